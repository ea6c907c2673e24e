"""WebSocket: one ``ApiRequest`` with the method WEBSOCKET per connection, which ends by whoever closes it first."""

from __future__ import annotations

from time import perf_counter_ns
from typing import TYPE_CHECKING

from opentelemetry.context import get_current

from asgi_analytics.instrumentation.requests.request import CapturedRequest, Exchange
from asgi_analytics.log import failure, log_problem

if TYPE_CHECKING:
    from asgi_analytics.instrumentation.types import Message, Receive

_NORMAL_CLOSES = frozenset({1000, 1001, 1005})
"""A close by intent: done, going away (a closed tab), and a close frame without a code."""


def watched(request: CapturedRequest, server_receive: Receive) -> Receive:
    """Return what the application is to receive by: what the client sends, with a note of its leaving."""

    async def receive() -> Message:
        message = await server_receive()
        try:
            if message["type"] == "websocket.disconnect" and request.ended is None:
                request.ended = perf_counter_ns()
                request.client_left = True
                code = message.get("code")
                request.close_code = 1005 if code is None else int(code)
        except Exception as error:
            log_problem("receive", "a WebSocket message was not captured: %s", failure(error))
        return message

    return receive


def _note(request: CapturedRequest, message: Message) -> None:
    try:
        kind = message["type"]
        if kind == "websocket.send":
            if (data := message.get("bytes")) is not None:
                _add_bytes(request, len(data))
            elif (text := message.get("text")) is not None:
                _add_bytes(request, len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass")))
        elif kind == "websocket.accept":
            _answer(request, 101)
            request.accepted = True
        elif kind == "websocket.close":
            _answer(request, 403)
            if request.accepted and request.ended is None:
                request.close_code = int(message.get("code") or 1000)
            _end(request)
        elif kind == "websocket.http.response.start":
            _answer(request, int(message["status"]))
        elif kind == "websocket.http.response.body":
            _add_bytes(request, len(message.get("body", b"")))
            if not message.get("more_body", False):
                _end(request)
    except Exception as error:
        log_problem("send", "a WebSocket message was not captured: %s", failure(error))


def _add_bytes(request: CapturedRequest, count: int) -> None:
    request.response_bytes = (request.response_bytes or 0) + count


def _answer(request: CapturedRequest, status: int) -> None:
    if request.status is None:
        request.status = status
        request.ttfb = perf_counter_ns() - request.started
        request.trace = get_current()


def _end(request: CapturedRequest) -> None:
    if request.ended is None:
        request.ended = perf_counter_ns()


def _answered(request: CapturedRequest) -> int:
    """Return the status of the handshake; the outcome is settled here too."""
    if request.outcome in ("ok", "disconnected") and request.client_left:
        # Whether the application has caught its WebSocketDisconnect or not, the close code says how it was.
        is_normal = request.accepted and request.close_code in _NORMAL_CLOSES
        request.outcome = "ok" if is_normal else "disconnected"
    if request.status is not None:
        return request.status
    if request.outcome == "ok":
        request.outcome = "error"  # it returned without a message: the server refuses the connection
    return 500 if request.outcome == "error" else 499


WEBSOCKET = Exchange(note=_note, answered=_answered)
