"""The command line ``analytics-migrate``: create the analytics schema, bring it up to date and refresh it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_analytics.cli.options import add_session_options
from asgi_analytics.cli.program import Program

if TYPE_CHECKING:
    from asgi_analytics.cli.options import Parser

EPILOG = """\
The database is --database-url, or the variable DATABASE_URL, or PLATFORM_DATABASE_URL, in this order. A variable keeps
the password out of the list of processes. postgresql+asyncpg:// and postgres:// are read as postgresql://.

exit codes: 0 done, or nothing pending; 1 something is pending (status only); 2 error, in one line on stderr;
130 interrupted.
Options may stand before or after the command. Some commands take more of them: analytics-migrate refresh --help.
"""


def add_options(parser: Parser) -> None:
    """Add the options that every command takes."""
    add_session_options(parser)
    parser.add_argument(
        "--require-timescaledb", action="store_true", help="refuse a database that is plain PostgreSQL (exit 2)"
    )


program = Program(
    "analytics-migrate",
    __name__,
    description="Create, update, inspect and refresh the analytics schema of a database.",
    epilog=EPILOG,
    add_options=add_options,
)
main = program.main
make_parser = program.make_parser
