"""The server of every service: uvicorn, with limits on what precedes a body, and an orderly end on a signal."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from typing import TYPE_CHECKING, Any

from asgi_analytics.errors import ConfigError, MissingExtra

try:
    import uvicorn
    from uvicorn.protocols.http.auto import AutoHTTPProtocol
except ImportError:
    raise MissingExtra("uvicorn", "server") from None

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from types import FrameType

    from starlette.types import ASGIApp

KEEP_ALIVE = 75
"""Seconds that an idle connection is kept: longer than clients keep theirs, so that the client closes it."""

HEADER_TIMEOUT = 20.0
"""Seconds for a connection to send the headers of a request, once it is open or has begun to send them."""

MOST_HEADER_BYTES = 64 * 1024
"""Bytes before or after a body that a request may have. h11 has the same limit itself."""

BACKLOG = 2048
LARGER_THAN_BODIES = 8 * 1024 * 1024

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; raises `ConfigError` if the address cannot be used."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        # Name the protocol: asyncio turns Nagle's algorithm off only for a socket that says it is TCP.
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)  # from now on a connection waits instead of being refused
        except OSError:
            listener.close()
            raise
        return listener
    except OSError as error:
        raise ConfigError(f"cannot listen on {host} port {port}: {error.strerror or error}") from None


class Server(uvicorn.Server):
    """Serve ``app`` until SIGTERM or SIGINT: requests that were accepted are finished, and the exit code is 0.

    They get ``graceful_timeout`` seconds, at least one. ``first_look`` is called once when the server has started, so
    that the log tells of a wrong password before the first request.
    """

    def __init__(
        self, app: ASGIApp, *, graceful_timeout: float, first_look: Callable[[], Awaitable[object]] | None = None
    ) -> None:
        self._first_look = first_look
        super().__init__(
            uvicorn.Config(
                app,
                http=_BoundedProtocol,
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE,
                timeout_graceful_shutdown=max(1, round(graceful_timeout)),
            )
        )
        # glibc returns a buffer of a body's size to the system each time, and gets it again page by page, until
        # something larger was freed once. That costs a twentieth of the service's CPU.
        bytes(LARGER_THAN_BODIES)
        # From now on, not only once it serves: an earlier signal ends it in the same way.
        for number in SIGNALS:
            signal.signal(number, self._end)

    def _end(self, number: int, frame: FrameType | None) -> None:
        self.handle_exit(number, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and take the first look."""
        await super().startup(sockets)
        if self.should_exit:
            # A signal has come meanwhile. uvicorn would leave now, and cancel the lifespan, which shows a traceback.
            await self.lifespan.shutdown()
        elif self._first_look is not None:
            self._looking = asyncio.ensure_future(self._first_look())  # a reference, since the loop has only a weak one

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone: uvicorn would raise them again at the end, and die of them."""
        yield


class _BoundedProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]  # one of two classes
    """Close a connection whose headers take too long or never end.

    uvicorn itself waits for ever; with httptools it also keeps whatever comes, however much.
    """

    _deadline: asyncio.TimerHandle | None = None
    _without_body: int | None = None
    """Bytes since httptools last recognised something; None between requests, and with h11."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._await_request()

    def data_received(self, data: bytes) -> None:
        if self._without_body is not None:
            self._without_body += len(data)
        super().data_received(data)
        if (self._without_body or 0) > MOST_HEADER_BYTES:
            self.logger.warning("connection closed: more bytes of headers than %d", MOST_HEADER_BYTES)
            self.transport.close()
        elif self.cycle is not None and not self.cycle.response_complete:
            self._forget()
        elif self._deadline is None:  # a request begins, or a body goes on that was answered before its end
            self._await_request()

    # Only httptools calls these four.

    def on_message_begin(self) -> None:
        self._without_body = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._without_body = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._without_body = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._without_body = None
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def _await_request(self) -> None:
        self._deadline = asyncio.get_running_loop().call_later(HEADER_TIMEOUT, self._give_up)

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
