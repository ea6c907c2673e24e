"""The command line ``analytics-api``: the API, and the dashboard beside it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from asgi_analytics import __version__, values
from asgi_analytics.cli.options import Parser, add_database_url, database_url, option
from asgi_analytics.cli.serving import add_serving_options, read_tokens, require_tokens, run_service, serve

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

PORT = 8093
TOKENS = "ANALYTICS_READ_TOKENS"
CHANGE_TOKENS = "ANALYTICS_TOKENS"
CONNECTIONS = 5
"""One for each question that runs at once, and one for /ready."""

EPILOG = f"""\
variables:
  DATABASE_URL, or PLATFORM_DATABASE_URL   the database, unless --database-url names it
  PORT                                     the port, unless --port names it (default: {PORT})
  {TOKENS}                    the accepted tokens, separated by commas; several of them, to replace one
  {CHANGE_TOKENS}                         the tokens that may also keep and delete funnels; without any, nobody may

A variable keeps the password out of the list of processes. The reader role is enough. The dashboard
is at /ui/; it asks for one of the tokens that read. Without tokens, anyone who reaches the service can read, and the
dashboard is for this machine only. It then listens on loopback only, unless --insecure is given.

exit codes: 0 ended by SIGTERM or SIGINT, after the requests that had come were answered; 2 error, in one line on
stderr; 143, as the shell shows it, for a SIGTERM in the first moments, while Python still loads the command.
"""


def make_parser() -> Parser:
    """Return the parser; the reference page prints its help."""
    parser = Parser(
        prog="analytics-api",
        description="Answer questions about the events over HTTP, as JSON, CSV or newline-delimited JSON; and serve "
        "the dashboard at /ui/.",
        epilog=EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"analytics-api {__version__}")
    add_serving_options(parser, port=PORT)
    add_database_url(parser)
    parser.add_argument("--schema", metavar="NAME", help="schema of the tables (default: the search_path decides)")
    parser.add_argument(
        "--timezone",
        metavar="NAME",
        default="UTC",
        help="IANA name of the time zone whose days are meant unless a request names another (default: UTC)",
    )
    parser.add_argument(
        "--statement-timeout",
        metavar="SECONDS",
        type=option(values.positive_seconds),
        default=10.0,
        help="time for the database to answer a question (default: 10)",
    )
    parser.add_argument(
        "--no-dashboard", action="store_true", help="serve the API alone, without the dashboard at /ui/"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the service until a signal ends it, and return the exit code."""
    return run_service(make_parser(), argv, _start)


def _start(options: argparse.Namespace) -> None:
    # Imported here, so that --help and a wrong option are answered without the extra.
    from asgi_analytics.reading import AnalyticsReader
    from asgi_analytics.web.api import create_api_app

    tokens = read_tokens(TOKENS)
    require_tokens(options, tokens, TOKENS)
    reader = AnalyticsReader.from_url(
        database_url(options),
        timezone=options.timezone,
        statement_timeout=options.statement_timeout,
        schema=options.schema,
        connections=CONNECTIONS,
    )
    change_tokens = read_tokens(CHANGE_TOKENS)
    api = create_api_app(reader, tokens=tokens, change_tokens=change_tokens)
    app = api
    if not options.no_dashboard:
        from asgi_analytics.web.dashboard import create_dashboard_app, join

        authorize = tokens or ("loopback" if not options.insecure else _anyone)
        dashboard = create_dashboard_app(
            reader, authorize=authorize, change_tokens=change_tokens, answers=api.state.api.answers
        )
        app = join(api, dashboard)
    serve(app, options, tokens=len(tokens), first_look=api.state.api.probes.is_ready)


def _anyone(scope: object) -> bool:
    """Let anyone see the dashboard, as --insecure says."""
    return True


if __name__ == "__main__":
    sys.exit(main())
