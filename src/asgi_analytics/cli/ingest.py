"""The command ``analytics-ingest``: the ingestion service."""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import logging
import math
import os
import re
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from asgi_analytics import __version__
from asgi_analytics.cli.command_line import Parser, database_url
from asgi_analytics.config import KIB, MIB
from asgi_analytics.errors import AnalyticsError, ConfigError
from asgi_analytics.log import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import FrameType

DONE, FAILED = 0, 2
HOST, PORT = "127.0.0.1", 8094
EPILOG = """\
variables:
  DATABASE_URL, or PLATFORM_DATABASE_URL   the database, where --database-url does not name it
  PORT                                     the port, where --port does not name it (default 8094)
  ANALYTICS_TOKENS                         the accepted tokens, separated by commas: several, to replace one

A variable keeps the password out of the list of processes. Without tokens everybody who reaches the service may send:
it listens on loopback only then, unless --insecure is given.

exit codes: 0 ended by SIGTERM or SIGINT, after what was taken is stored; 2 error, in one line on stderr; 143, as the
shell shows it, for a SIGTERM in the first moments, while Python still loads the command.
"""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; the reference page prints its help."""
    parser = Parser(
        prog="analytics-ingest",
        description="Take batches of analytics events by HTTP and store them: POST /events/batch.",
        epilog=EPILOG,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"analytics-ingest {__version__}")
    parser.add_argument("--host", default=HOST, help=f"address to listen on (default {HOST})")
    parser.add_argument("--port", type=_port, help=f"port to listen on, 0 for a free one (default PORT, or {PORT})")
    parser.add_argument("--database-url", metavar="URL", help="postgresql://user:password@host:5432/database")
    parser.add_argument("--schema", metavar="NAME", help="where the tables are (default: search_path)")
    parser.add_argument("--insecure", action="store_true", help="listen on any address without tokens")
    parser.add_argument("--strict-types", action="store_true", help="refuse event types that are not known here")
    parser.add_argument(
        "--max-body", metavar="BYTES", type=_size, default=5 * MIB, help="largest body, unpacked (default 5MiB)"
    )
    parser.add_argument("--max-events", metavar="N", type=_count, default=10_000, help="most events (default 10000)")
    parser.add_argument(
        "--body-timeout", metavar="SECONDS", type=_seconds, default=30.0, help="for a body to arrive (default 30)"
    )
    parser.add_argument(
        "--graceful-timeout",
        metavar="SECONDS",
        type=_seconds,
        default=25.0,
        help="for what was taken to be finished at the end (default 25)",
    )
    parser.add_argument("--quiet", action="store_true", help="log problems only, not each request")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the service until a signal ends it, and return the exit code."""
    try:
        options = make_parser().parse_args(argv)
        with _leaving_on_signals():
            return _serve(options, os.environ)
    except AnalyticsError as exc:
        sys.stderr.write(f"analytics-ingest: {one_line(exc)}\n")
        return FAILED
    except KeyboardInterrupt:
        return DONE


def _serve(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    # Here, not above: --help and a wrong option are answered without the extra too.
    from asgi_analytics.web.ingestion import create_ingestion_app
    from asgi_analytics.web.server import Server, listen

    tokens = _tokens(environ)
    port = options.port if options.port is not None else _port_of(environ)
    if not tokens and not options.insecure and not _is_loopback(options.host):
        raise ConfigError(
            f"without tokens everybody who reaches {options.host} may send: set ANALYTICS_TOKENS, "
            "or listen on 127.0.0.1, or give --insecure"
        )
    app = create_ingestion_app(
        database_url=database_url(options.database_url, environ),
        schema=options.schema,
        tokens=tokens,
        max_body_bytes=options.max_body,
        max_events=options.max_events,
        body_timeout=options.body_timeout,
        strict_types=options.strict_types,
    )
    level = logging.WARNING if options.quiet else logging.INFO
    logging.basicConfig(stream=sys.stderr, level=level, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    server = Server(app, graceful_timeout=options.graceful_timeout)
    with listen(options.host, port) as listener:
        shown = f"[{options.host}]" if ":" in options.host else options.host
        logging.getLogger("asgi_analytics").info(
            "listening on http://%s:%d, %s",
            shown,
            listener.getsockname()[1],
            f"tokens: {len(tokens)}" if tokens else "without tokens",
        )
        server.run(sockets=[listener])
    logging.getLogger("asgi_analytics").info("ended")
    return DONE


@contextlib.contextmanager
def _leaving_on_signals() -> Iterator[None]:
    """Until the server takes the signals over, end at once: nothing was taken yet.

    To leave them as they are is not enough: the first process of a container does not die of a SIGTERM.
    """
    before = {number: signal.signal(number, _leave) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except BaseException:
        for number, handler in before.items():
            signal.signal(number, handler)
        raise


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    os._exit(DONE)


def _tokens(environ: Mapping[str, str]) -> list[str]:
    text = environ.get("ANALYTICS_TOKENS", "")
    tokens = [token for part in text.split(",") if (token := part.strip())]
    if text and not tokens:  # somebody meant to demand one
        raise ConfigError("ANALYTICS_TOKENS is set but holds no token: give some, or unset it")
    return tokens


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _port_of(environ: Mapping[str, str]) -> int:
    text = environ.get("PORT", "")
    if not text:
        return PORT
    try:
        return _port(text)
    except argparse.ArgumentTypeError as exc:
        raise ConfigError(f"PORT: {exc}") from None


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: use 0 to 65535")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1")
    return int(text)


def _size(text: str) -> int:
    match = re.fullmatch(r"\s*(\d+)\s*(|kib|mib)\s*", text.lower())
    if match is None or int(match[1]) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: use bytes, or a number with KiB or MiB")
    return int(match[1]) * {"": 1, "kib": KIB, "mib": MIB}[match[2]]


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
