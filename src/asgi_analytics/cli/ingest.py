"""The command line ``analytics-ingest``: the ingestion service."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from asgi_analytics import __version__, values
from asgi_analytics.cli.options import Parser, add_database_url, database_url, option
from asgi_analytics.cli.serving import add_serving_options, read_tokens, require_tokens, run_service, serve

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

PORT = 8094
TOKENS = "ANALYTICS_TOKENS"

EPILOG = f"""\
variables:
  DATABASE_URL, or PLATFORM_DATABASE_URL   the database, unless --database-url names it
  PORT                                     the port, unless --port names it (default: {PORT})
  {TOKENS}                         the accepted tokens, separated by commas; several of them, to replace one

A variable keeps the password out of the list of processes. Without tokens, anyone who reaches the service can send
events to it. It then listens on loopback only, unless --insecure is given.

exit codes: 0 ended by SIGTERM or SIGINT, after everything that was accepted is stored; 2 error, in one line on stderr;
143, as the shell shows it, for a SIGTERM in the first moments, while Python still loads the command.
"""


def make_parser() -> Parser:
    """Return the parser; the reference page prints its help."""
    parser = Parser(
        prog="analytics-ingest",
        description="Take batches of analytics events over HTTP and store them: POST /events/batch.",
        epilog=EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"analytics-ingest {__version__}")
    add_serving_options(parser, port=PORT)
    add_database_url(parser)
    parser.add_argument("--schema", metavar="NAME", help="schema of the tables (default: the search_path decides)")
    parser.add_argument(
        "--strict-types",
        action="store_true",
        help="refuse event types that have neither a class here nor a schema in the registry (analytics-schemas sync), "
        "and check them by it",
    )
    parser.add_argument(
        "--max-body",
        metavar="SIZE",
        type=option(values.size),
        default=5 * values.MIB,
        help="largest body, uncompressed (default: 5MiB)",
    )
    parser.add_argument(
        "--max-events",
        metavar="N",
        type=option(values.count),
        default=10_000,
        help="most events in one batch (default: 10000)",
    )
    parser.add_argument(
        "--body-timeout",
        metavar="SECONDS",
        type=option(values.positive_seconds),
        default=30.0,
        help="time for a body to arrive (default: 30)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the service until a signal ends it, and return the exit code."""
    return run_service(make_parser(), argv, _start)


def _start(options: argparse.Namespace) -> None:
    # Imported here, so that --help and a wrong option are answered without the extra.
    from asgi_analytics.web.ingestion import create_ingestion_app

    tokens = read_tokens(TOKENS)
    require_tokens(options, tokens, TOKENS)
    app = create_ingestion_app(
        database_url=database_url(options),
        schema=options.schema,
        tokens=tokens,
        max_body_bytes=options.max_body,
        max_events=options.max_events,
        body_timeout=options.body_timeout,
        strict_types=options.strict_types,
    )
    serve(app, options, tokens=len(tokens), first_look=app.state.ingestion.probes.is_ready)


if __name__ == "__main__":
    sys.exit(main())
