"""AnalyticsMiddleware: one ``ApiRequest`` for each request, and nothing changed for the application or the client."""

from __future__ import annotations

from collections.abc import Iterable
from sys import exception
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, ClassVar

from asgi_analytics._context import current, otel_context, suppressed
from asgi_analytics._log import log_problem
from asgi_analytics.client import checked_client
from asgi_analytics.errors import ConfigError
from asgi_analytics.instrumentation.request import REQUEST_KEY, CapturedRequest
from asgi_analytics.instrumentation.request_lines import RequestLines
from asgi_analytics.instrumentation.websockets import WebSocketConnection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping
    from uuid import UUID

    from asgi_analytics.client import AnalyticsClient
    from asgi_analytics.instrumentation.framework import Framework

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

_METHODS = {m: m for m in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")}


class AnalyticsMiddleware:
    """Captures each request of an ASGI application as an `ApiRequest`, and what it raises as an `ApplicationError`.

    Wrap the application, or add it in the framework's own way; more than once does no harm. ``exclude`` holds paths,
    exact ones and ``prefix/*`` for all that is below the prefix, without ``root_path``. ``user_id``, ``session_id``
    and ``endpoint`` are functions of the scope; what they raise is logged and changes nothing. ``capture_errors=False``
    leaves errors out, ``capture_websockets=False`` WebSocket connections. Raises `ConfigError` for a wrong option.
    """

    # Set by the package: what is known of single frameworks. The middleware itself knows plain ASGI.
    known_frameworks: ClassVar[Iterable[type[Framework]]] = ()

    def __init__(
        self,
        app: Any,  # each framework has types of its own for an ASGI application, and they do not agree
        *,
        client: AnalyticsClient,
        exclude: Iterable[str] = (),
        user_id: Callable[[Scope], UUID | str | int | None] | None = None,
        session_id: Callable[[Scope], str | None] | None = None,
        endpoint: Callable[[Scope], str | None] | None = None,
        capture_errors: bool = True,
        capture_websockets: bool = True,
    ) -> None:
        checked_client(client)
        for name, option in (("user_id", user_id), ("session_id", session_id), ("endpoint", endpoint)):
            if option is not None and not callable(option):
                raise ConfigError(f"{name} is no function: use a function of the scope")
        self.app: Callable[..., Awaitable[None]] = app
        self.client = client
        self.user_id = user_id
        self.session_id = session_id
        self.endpoint = endpoint
        self.capture_errors = capture_errors
        self.capture_websockets = capture_websockets
        self._excluded_paths, self._excluded_prefixes = _read_exclude(exclude)
        self._has_excluded = bool(self._excluded_paths or self._excluded_prefixes)
        self._enabled = client.settings.enabled
        self._is_warm = False
        self.lines = client.lines(RequestLines)
        self.writer = -1 if self.lines is None else self.lines.writer
        self.find_frameworks()

    def find_frameworks(self) -> None:
        """Look which frameworks the application uses: at construction, and once more at the first request."""
        found = [framework for known in self.known_frameworks if (framework := known.found()) is not None]
        self.frameworks: tuple[Framework, ...] = tuple(found)
        self.knows_endpoints = bool(found) or self.endpoint is not None
        # Most applications have one framework, and nothing to ask but this.
        self.only_framework = found[0] if len(found) == 1 and self.endpoint is None else None
        self.alone = {} if self.only_framework is None else self.only_framework.alone
        # What is known of a route that is not among them: all there is to know, where there is no framework.
        self.unrouted = None if self.knows_endpoints else (None, None)
        self.frameworks_know_users = any(framework.knows_users for framework in found)
        self.knows_users = self.user_id is not None or self.frameworks_know_users
        # Whether nothing has to be asked at the end of an ordinary request but its route and `user_id`.
        self.asks_little = self.session_id is None and self.lines is not None and not self.frameworks_know_users

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Run the application; whatever it raises goes on unchanged."""
        request: CapturedRequest
        outer = None
        # Spelled out where a call would be seen in every request: what _captures() says of most of them.
        if scope["type"] == "http" and self._is_warm and REQUEST_KEY not in scope and not suppressed.get():
            request = HttpRequest(
                self, scope, receive, send, perf_counter_ns(), method=_METHODS.get(scope["method"], "_OTHER")
            )
        elif scope["type"] == "http" and self._captures(scope):
            request = HttpRequest(
                self, scope, receive, send, perf_counter_ns(), method=_METHODS.get(scope["method"], "_OTHER")
            )
            outer = scope.get(REQUEST_KEY)
        elif scope["type"] == "websocket" and self.capture_websockets and self._captures(scope):
            request = connection = WebSocketConnection(
                self, scope, receive, send, perf_counter_ns(), method="WEBSOCKET", ordinary=False
            )
            receive = connection.receive
            outer = scope.get(REQUEST_KEY)
        else:
            try:
                await self.app(scope, receive, send)
            finally:
                if scope["type"] == "lifespan":
                    await self._flush()
            return
        if outer is not None:
            request.outer = outer
            request.ordinary = False
        if self._has_excluded and self._is_excluded(scope):
            request.excluded = True
            request.ordinary = False
        scope[REQUEST_KEY] = request
        token = current.set(request)
        try:
            await self.app(scope, receive, request.send)
        except BaseException as exc:
            request.failed(exc)
            raise
        finally:
            request.finish()
            try:
                current.reset(token)
            except ValueError:  # somebody runs the application in one context and ends it in another
                current.set(None)
            if outer is None:
                scope.pop(REQUEST_KEY, None)
            else:
                scope[REQUEST_KEY] = outer

    def _captures(self, scope: Scope) -> bool:
        """Tell whether this middleware captures the request: not when one of the same client does already."""
        if not self._enabled or suppressed.get():
            return False
        outer: CapturedRequest | None = scope.get(REQUEST_KEY)
        while outer is not None:
            if outer.middleware.client is self.client:
                return False
            outer = outer.outer
        if not self._is_warm:
            self._is_warm = True
            self.find_frameworks()
        return True

    def _is_excluded(self, scope: Scope) -> bool:
        """Tell whether a request's path, without ``root_path``, is among the excluded ones."""
        path: str = scope["path"]
        root_path: str = scope.get("root_path") or ""
        if root_path and path.startswith(root_path) and path[len(root_path) :][:1] in ("", "/"):
            path = path[len(root_path) :]
        return path in self._excluded_paths or path.startswith(self._excluded_prefixes)

    async def _flush(self) -> None:
        """Wait, within ``close_timeout``, until what was tracked is settled."""
        client = self.client
        try:
            if client.sink is not None:
                # The worker has a thread of its own, and this blocks the loop on purpose: uvicorn raises the signal
                # that ended it, which kills the process, as soon as the loop turns after the application's shutdown.
                client.flush()
            elif client._queue.has_worker():
                await client.aflush()
        except Exception as error:
            log_problem("flush", "the flush at lifespan shutdown failed: %s: %s", type(error).__name__, error)


class HttpRequest(CapturedRequest, eq=False):
    """One HTTP request: what was sent of its response, and when."""

    response_bytes: int | None = 0
    _has_trailers: bool = False

    async def send(self, message: Message) -> None:
        """Pass a message on, and take note of it when it is sent."""
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
                if not message.get("more_body") and not self._has_trailers and self.ended is None:
                    self.ended = perf_counter_ns()
            elif kind == "http.response.start":
                if self.status is None:
                    self.ttfb = perf_counter_ns() - self.started
                    self.status = message["status"]
                    if message.get("trailers"):
                        self._has_trailers = True
                    # An error handler answers from within its except block: what is raised again is not raised anew.
                    if (answering := exception()) is not None:
                        self.answering = answering
                        self.ordinary = False
                    if trace := otel_context():  # a span inside of this middleware is over at the end
                        self.trace = trace
            else:
                self._note_extension(kind, message)
        except Exception as error:
            log_problem("send", "a message of a response was not captured: %s: %s", type(error).__name__, error)

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
            if not message.get("more_body", False) and not self._has_trailers:
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


def _read_exclude(exclude: Iterable[str]) -> tuple[frozenset[str], tuple[str, ...]]:
    """Return the exact paths and the prefixes, each with its slash, of the option ``exclude``."""
    if not isinstance(exclude, Iterable):
        raise ConfigError(f"exclude is {exclude!r}: use a list, exclude=['/health']")
    if isinstance(exclude, str):
        raise ConfigError(f"exclude is the str {exclude!r}: use a list, exclude=[{exclude!r}]")
    exact, prefixes = [], []
    for path in exclude:
        if not isinstance(path, str) or not path.startswith("/") or "*" in path.removesuffix("/*"):
            raise ConfigError(f"exclude holds {path!r}: use paths, '/health', or 'prefix/*', '/static/*'")
        if path.endswith("/*"):
            prefixes.append(path[:-1])
        else:
            exact.append(path)
    return frozenset(exact), tuple(prefixes)
