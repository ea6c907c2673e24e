"""One WebSocket connection: an ``ApiRequest`` with the method WEBSOCKET when it ends."""

from __future__ import annotations

from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from asgi_analytics.context import otel_context
from asgi_analytics.instrumentation.requests.request import REQUEST_KEY, CapturedRequest
from asgi_analytics.log import failure, log_problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from asgi_analytics.instrumentation.requests.plan import CaptureSettings

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

_NORMAL_CLOSES = frozenset({1000, 1001, 1005})
"""A close by intent: done, going away (a closed tab), and a close frame without a code."""


def websocket_connection(settings: CaptureSettings, scope: Scope, receive: Receive, send: Send) -> WebSocketConnection:
    """Return the connection of a scope, which begins now."""
    connection = WebSocketConnection(settings, scope, receive, send, perf_counter_ns(), "WEBSOCKET")
    if settings.has_excluded and settings.excludes(scope):
        connection.excluded = True
    scope[REQUEST_KEY] = connection
    return connection


class WebSocketConnection(CapturedRequest):
    """One connection: whether it was accepted, what was sent, and who ended it how."""

    response_bytes: int

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.ordinary = False
        self.accepted = False
        self.client_left = False

    def receiver(self) -> Receive:
        """Return what the application is to receive by."""
        return self.receive

    async def receive(self) -> Message:
        """Hand on what the client sends, and take note of its leaving."""
        message = await self._receive()
        try:
            if message["type"] == "websocket.disconnect" and self.ended is None:
                self.ended = perf_counter_ns()
                self.client_left = True
                code = message.get("code")
                self.close_code = 1005 if code is None else int(code)
        except Exception as error:
            log_problem("receive", "a WebSocket message was not captured: %s", failure(error))
        return message

    async def send(self, message: Message) -> None:
        """Pass a message on, and take note of it when it is sent."""
        try:
            await self._send(message)
        except OSError as error:
            self.send_error = error
            self.ordinary = False
            raise
        try:
            self._note(message["type"], message)
        except Exception as error:
            log_problem("send", "a WebSocket message was not captured: %s", failure(error))

    def _note(self, kind: str, message: Message) -> None:
        if kind == "websocket.send":
            if (data := message.get("bytes")) is not None:
                self.response_bytes += len(data)
            elif (text := message.get("text")) is not None:
                self.response_bytes += len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        elif kind == "websocket.accept":
            self._answer(101)
            self.accepted = True
        elif kind == "websocket.close":
            self._answer(403)
            if self.accepted and self.ended is None:
                self.close_code = int(message.get("code") or 1000)
            self._end()
        elif kind == "websocket.http.response.start":
            self._answer(int(message["status"]))
        elif kind == "websocket.http.response.body":
            self.response_bytes += len(message.get("body", b""))
            if not message.get("more_body", False):
                self._end()

    def _answer(self, status: int) -> None:
        if self.status is None:
            self.status = status
            self.ttfb = perf_counter_ns() - self.started
            self.trace = otel_context()

    def _end(self) -> None:
        if self.ended is None:
            self.ended = perf_counter_ns()

    def is_complete(self) -> bool:
        """Tell whether the connection is over: never while the application runs, whose errors are the connection's."""
        return False

    def answered(self) -> int:
        """Return the status of the handshake; the outcome is settled here too."""
        if self.outcome in ("ok", "disconnected") and self.client_left:
            # Whether the application has caught its WebSocketDisconnect or not, the close code says how it was.
            self.outcome = "ok" if self.accepted and self.close_code in _NORMAL_CLOSES else "disconnected"
        if self.status is not None:
            return self.status
        if self.outcome == "ok":
            self.outcome = "error"  # it returned without a word: the server refuses the connection
        return 500 if self.outcome == "error" else 499
