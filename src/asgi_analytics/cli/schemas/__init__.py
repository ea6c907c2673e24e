"""The command line ``analytics-schemas``: the registry of the schemas of events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_analytics.cli.options import add_session_options
from asgi_analytics.cli.program import Program

if TYPE_CHECKING:
    from asgi_analytics.cli.options import Parser

EPILOG = """\
The database is --database-url, or the variable DATABASE_URL, or PLATFORM_DATABASE_URL, in this order. A variable keeps
the password out of the list of processes. Modules are imported as Python would import them from this folder.

exit codes: 0 done, or all events are valid; 1 a breaking change was refused, or an event is not valid; 2 error, in one
line on stderr; 130 interrupted.
Options may stand before or after the command. Some commands take more of them: analytics-schemas sync --help.
"""


def add_options(parser: Parser) -> None:
    """Add the options that every command takes."""
    add_session_options(parser)


program = Program(
    "analytics-schemas",
    __name__,
    description="Keep the schemas of events: take them from classes, list them, and check events by them.",
    epilog=EPILOG,
    add_options=add_options,
)
main = program.main
make_parser = program.make_parser
