"""The server that the command runs: uvicorn, which leaves in peace and does not wait for ever for a request."""

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
    from collections.abc import Iterator
    from types import FrameType

    from starlette.applications import Starlette

KEEP_ALIVE = 75
"""Seconds that an idle connection is kept: longer than the clients keep theirs, so that they are the ones to end it."""

HEADER_TIMEOUT = 20.0
"""Seconds for a connection to bring the headers of a request, once it is open or has begun to send them."""

MOST_HEADER_BYTES = 64 * 1024
"""Bytes of a request, or of its end, that may come without being body; h11 has the same bound of its own."""

BACKLOG = 2048
LARGER_THAN_BODIES = 8 * 1024 * 1024

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; raises `ConfigError` where that is impossible."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        # With the protocol named: asyncio switches Nagle's algorithm off only where it reads TCP there.
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)  # from now on who connects waits instead of being refused
        except OSError:
            listener.close()
            raise
        return listener
    except OSError as error:
        raise ConfigError(f"cannot listen on {host} port {port}: {error.strerror or error}") from None


class Server(uvicorn.Server):
    """Ends on SIGTERM and SIGINT without dying of them: what was taken is finished, and the exit code is 0."""

    def __init__(self, app: Starlette, *, graceful_timeout: float) -> None:
        self._is_ready = app.state.ingestion.is_ready
        super().__init__(
            uvicorn.Config(
                app,
                http=_Patient,
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
        # glibc gives a buffer of the size of a body back to the system each time, and takes it anew page by page, until
        # something larger was freed once: a twentieth of the service's work.
        bytes(LARGER_THAN_BODIES)
        # From now on, not only once it serves: a signal that comes earlier ends it as peacefully.
        for number in SIGNALS:
            signal.signal(number, self._end)

    def _end(self, number: int, frame: FrameType | None) -> None:
        self.handle_exit(number, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and ask for the database once: a wrong password is told now, not with the first batch."""
        await super().startup(sockets)
        self._first_look = asyncio.create_task(self._is_ready(), name="asgi-analytics first look")

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals as they are: uvicorn would raise them once more at the end, and die of that."""
        yield


class _Patient(AutoHTTPProtocol):  # type: ignore[misc, valid-type]  # one of two classes
    """Closes a connection that does not bring the headers of a request in time, or without end.

    uvicorn alone waits for ever, and with httptools keeps what comes, however much.
    """

    _deadline: asyncio.TimerHandle | None = None
    _without_body: int | None = None
    """The bytes since the parser, where it is httptools, has come further; None between requests."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._await_request()

    def data_received(self, data: bytes) -> None:
        if self._without_body is not None:
            self._without_body += len(data)
        super().data_received(data)
        if (self._without_body or 0) > MOST_HEADER_BYTES:
            self.logger.warning("a connection is closed: more than %d bytes of headers", MOST_HEADER_BYTES)
            self.transport.close()
        elif self.cycle is not None and not self.cycle.response_complete:
            self._forget()
        elif self._deadline is None:  # the beginning of a request, or a body that was answered before its end
            self._await_request()

    # These four are called by httptools alone.

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
