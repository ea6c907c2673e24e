"""The command line ``analytics-export``: copy the events to a warehouse."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_analytics.cli.options import add_database_url
from asgi_analytics.cli.program import Program

if TYPE_CHECKING:
    from asgi_analytics.cli.options import Parser

EPILOG = """\
The database is --database-url, or the variable DATABASE_URL, or PLATFORM_DATABASE_URL, in this order: the primary
itself, not a standby and not a transaction pooler. A variable keeps the password out of the list of processes.

exit codes: 0 done, or ended by SIGTERM or SIGINT; 1 an export fails (status only); 2 error, in one line on stderr;
130 interrupted. Whatever ends a run, the next one goes on where it was.
Options may stand before or after the command. Some commands take more of them: analytics-export run --help.
"""


def add_options(parser: Parser) -> None:
    """Add the options that every command takes."""
    add_database_url(parser)
    parser.add_argument("--schema", metavar="NAME", help="schema of the tables (default: the search_path decides)")
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout, also for an error")


program = Program(
    "analytics-export",
    __name__,
    description="Copy every event exactly once to a warehouse: Parquet files, DuckDB, BigQuery or Redshift.",
    epilog=EPILOG,
    add_options=add_options,
)
main = program.main
make_parser = program.make_parser
