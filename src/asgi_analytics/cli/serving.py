"""What the commands that serve HTTP share: their options, the tokens, the signals, and the server's life."""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn, TypeVar

from asgi_analytics import values
from asgi_analytics.cli.options import option
from asgi_analytics.cli.output import Output
from asgi_analytics.cli.program import DONE, run_reporting
from asgi_analytics.errors import ConfigError
from asgi_analytics.log import log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from types import FrameType

    from starlette.types import ASGIApp

    from asgi_analytics.cli.options import Parser

T = TypeVar("T")

HOST = "127.0.0.1"


def add_serving_options(parser: Parser, *, port: int) -> None:
    """Add ``--host``, ``--port``, ``--insecure``, ``--graceful-timeout`` and ``--quiet``; ``port`` is the default."""
    parser.set_defaults(default_port=port)
    parser.add_argument("--host", default=HOST, help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=option(values.port), help=f"port to listen on, 0 for a free one (default: PORT, else {port})"
    )
    parser.add_argument("--insecure", action="store_true", help="listen on any address without tokens")
    parser.add_argument(
        "--graceful-timeout",
        metavar="SECONDS",
        type=option(values.positive_seconds),
        default=25.0,
        help="time to finish what was accepted when a signal ends the service (default: 25)",
    )
    parser.add_argument("--quiet", action="store_true", help="log problems only, not every request")


def read_tokens(variable: str) -> list[str]:
    """Return the tokens of a variable; raises `ConfigError` if it is set but holds none."""
    return _read(variable, values.tokens) or []


def require_tokens(options: argparse.Namespace, tokens: Sequence[str], variable: str) -> None:
    """Raise `ConfigError` if the service would be open to others without a token."""
    if not tokens and not options.insecure and not is_loopback(options.host):
        raise ConfigError(
            f"without tokens anyone who reaches {options.host} could use the service: set {variable}, "
            "or listen on 127.0.0.1, or give --insecure"
        )


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach an address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def run_service(parser: Parser, argv: Sequence[str] | None, start: Callable[[argparse.Namespace], None]) -> int:
    """Parse the options, call ``start``, which serves until a signal comes, and return the exit code."""
    options = argparse.Namespace()

    def run() -> int:
        parser.parse_args(argv, options)
        with _leaving_on_signals():
            start(options)
        return DONE

    return run_reporting(run, Output(parser.prog), options)


def serve(
    app: ASGIApp,
    options: argparse.Namespace,
    *,
    tokens: int,
    first_look: Callable[[], Awaitable[object]] | None = None,
) -> None:
    """Serve an application until SIGTERM or SIGINT, and return after what was accepted is finished.

    ``tokens`` is how many are accepted, for the log. ``first_look`` is called once the server has started. Raises
    `ConfigError` if the address cannot be listened on, `MissingExtra` without uvicorn.
    """
    # Imported here, so that --help and a wrong option are answered without the extra.
    from asgi_analytics.web.server import Server, listen

    port = options.port
    if port is None:
        port = _read("PORT", values.port)
    level = logging.WARNING if options.quiet else logging.INFO
    logging.basicConfig(stream=sys.stderr, level=level, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    server = Server(app, graceful_timeout=options.graceful_timeout, first_look=first_look)
    with listen(options.host, options.default_port if port is None else port) as listener:
        host = f"[{options.host}]" if ":" in options.host else options.host
        allowed = f"tokens: {tokens}" if tokens else "without tokens"
        log.info("listening on http://%s:%d, %s", host, listener.getsockname()[1], allowed)
        server.run(sockets=[listener])
    log.info("ended")


def _read(variable: str, read: Callable[[str], T]) -> T | None:
    """Return the value of a variable, None if it is not set or empty."""
    text = os.environ.get(variable, "")
    if not text:
        return None
    try:
        return read(text)
    except ValueError as error:
        raise ConfigError(f"{variable}: {error}") from None


@contextlib.contextmanager
def _leaving_on_signals() -> Iterator[None]:
    """Exit at once on a signal, until the server takes the signals over: nothing was accepted yet.

    The default handlers are not enough: the first process of a container does not die of a SIGTERM.
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
