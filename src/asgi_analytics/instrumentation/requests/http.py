"""One HTTP request: an ``ApiRequest`` when its response is sent."""

from __future__ import annotations

from sys import exception
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


METHODS = {m: m for m in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")}


def http_request(settings: CaptureSettings, scope: Scope, receive: Receive, send: Send) -> HttpRequest:
    """Return the request of a scope, which begins now."""
    method = METHODS.get(scope["method"], "_OTHER")
    request = HttpRequest(settings, scope, receive, send, perf_counter_ns(), method)
    if settings.has_excluded and settings.excludes(scope):
        request.excluded = True
        request.ordinary = False
    scope[REQUEST_KEY] = request
    return request


class HttpRequest(CapturedRequest):
    """One HTTP request: what was sent of its response, and when."""

    __slots__ = ()

    async def send(self, message: Message) -> None:
        """Pass a message on, and take note of it when it is sent."""
        # As WebSocketConnection.send(), but with the note spelled out: a call more for each message would be felt.
        try:
            await self._send(message)
        except OSError as error:
            self.send_error = error
            self.ordinary = False
            raise
        try:
            kind = message["type"]
            if kind == "http.response.body":
                if (body := message.get("body")) and self.response_bytes is not None:
                    self.response_bytes += len(body)
                if not message.get("more_body") and not self.has_trailers and self.ended is None:
                    self.ended = perf_counter_ns()
            elif kind == "http.response.start":
                if self.status is None:
                    self.ttfb = perf_counter_ns() - self.started
                    self.status = message["status"]
                    if message.get("trailers"):
                        self.has_trailers = True
                    # An error handler answers from within its except block: what is raised again is not raised anew.
                    if (answering := exception()) is not None:
                        self.answering = answering
                        self.ordinary = False
                    if trace := otel_context():  # a span inside of this middleware is over at the end
                        self.trace = trace
            else:
                self._note_extension(kind, message)
        except Exception as error:
            log_problem("send", "a message of a response was not captured: %s", failure(error))

    def _complete(self) -> None:
        if self.ended is None:
            self.ended = perf_counter_ns()

    def _note_extension(self, kind: str, message: Message) -> None:
        if kind == "http.response.trailers":
            if not message.get("more_trailers", False):
                self._complete()
        elif kind == "http.response.pathsend":
            self.response_bytes = None  # the server reads the file; looking at its size would be I/O
            self._complete()
        elif kind == "http.response.zerocopysend":
            number = message.get("count")
            if number is None:
                self.response_bytes = None
            elif self.response_bytes is not None:
                self.response_bytes += number
            if not message.get("more_body", False) and not self.has_trailers:
                self._complete()

    def answered(self) -> int:
        """Return the status that the client got; the outcome is settled here too."""
        status = self.status
        if status is None:
            return self._unanswered()
        if self.ended is None and self.outcome == "ok":
            self.outcome = "disconnected"
        if self.method == "HEAD":
            self.response_bytes = 0  # the server sends no body, whatever the application gives it
        return int(status)

    def _unanswered(self) -> int:
        """Return the status of a request for which the application has sent nothing."""
        self.response_bytes = None
        if self.outcome == "error":
            return 500
        if self.outcome == "ok":
            # The application returned. uvicorn knows whether the client has left, or waits: then it sends a 500.
            if getattr(getattr(self._receive, "__self__", None), "disconnected", None) is False:
                self.outcome = "error"
                return 500
            self.outcome = "disconnected"
        return 499
