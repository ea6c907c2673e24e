"""AnalyticsMiddleware: one ``ApiRequest`` for each request, and nothing changed for the application or the client."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from asgi_analytics.client import checked_client
from asgi_analytics.context import current, suppressed
from asgi_analytics.errors import ConfigError
from asgi_analytics.instrumentation.requests.http import http_request
from asgi_analytics.instrumentation.requests.plan import CaptureSettings
from asgi_analytics.instrumentation.requests.request import REQUEST_KEY
from asgi_analytics.instrumentation.requests.websocket import websocket_connection
from asgi_analytics.log import failure, log, log_problem, number_of_events, one_line

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping
    from uuid import UUID

    from asgi_analytics.client import AnalyticsClient
    from asgi_analytics.instrumentation.requests.framework import Framework
    from asgi_analytics.instrumentation.requests.identified import IdentifiedRequest
    from asgi_analytics.instrumentation.requests.request import CapturedRequest

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]


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
        self.client = client
        self.settings = CaptureSettings(
            client,
            exclude=exclude,
            user_id=user_id,
            session_id=session_id,
            endpoint=endpoint,
            capture_errors=capture_errors,
        )
        self.capture_websockets = capture_websockets
        self._enabled = client.settings.enabled
        self.app = app
        self._find_frameworks()

    def _find_frameworks(self) -> None:
        """Look which frameworks the application uses: at construction, and once more at the first request."""
        found = [framework for known in self.known_frameworks if (framework := known.found(self._app)) is not None]
        self.settings.know(tuple(found))

    @property
    def app(self) -> Callable[..., Awaitable[None]]:
        """The application; another one may take its place."""
        return self._app

    @app.setter
    def app(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Run the application; whatever it raises goes on unchanged."""
        request: CapturedRequest | None
        # Most of them: what _request() would find out, without its call.
        if scope["type"] == "http" and self.settings.is_warm and REQUEST_KEY not in scope and not suppressed.get():
            request = http_request(self.settings, scope, receive, send)
        else:
            request = self._request(scope, receive, send)
            if request is None:
                try:
                    await self._app(scope, receive, send)
                finally:
                    if scope["type"] == "lifespan":
                        await self._flush()
                return
            receive = request.receiver()
        token = current.set(request)
        try:
            await self._app(scope, receive, request.send)
        except BaseException as exc:
            request.failed(exc)
            raise
        finally:
            request.finish()
            try:
                current.reset(token)
            except ValueError:  # somebody runs the application in one context and ends it in another
                current.set(None)

    def _request(self, scope: Scope, receive: Receive, send: Send) -> CapturedRequest | None:
        """Return the request to capture; None for what is no request, or not captured by this middleware."""
        kind = scope["type"]
        if kind != "http" and not (kind == "websocket" and self.capture_websockets):
            return None
        outer: IdentifiedRequest | None = scope.get(REQUEST_KEY)
        if not self._captures(outer):
            return None
        make = http_request if kind == "http" else websocket_connection
        request: CapturedRequest = make(self.settings, scope, receive, send)
        if outer is not None:
            request.outer = outer
            request.ordinary = False
        return request

    def _captures(self, outer: IdentifiedRequest | None) -> bool:
        """Tell whether this middleware captures a request: not when one of the same client does already."""
        if not self._enabled or suppressed.get():
            return False
        while outer is not None:
            if outer.settings.client is self.client:
                return False
            outer = outer.outer
        return self._is_warm()

    def _is_warm(self) -> bool:
        """Look at the application at its first request, when it is complete; False where nothing is captured."""
        if self._enabled and not self.settings.is_warm:
            self.settings.is_warm = True
            self._find_frameworks()
        return self._enabled

    async def _flush(self) -> None:
        """Wait, within ``close_timeout``, until what was tracked is settled."""
        client = self.client
        try:
            if client.sink is not None:
                # The worker has a thread of its own, and this blocks the loop on purpose: uvicorn raises the signal
                # that ended it, which kills the process, as soon as the loop turns after the application's shutdown.
                settled = client.flush()
            else:
                settled = not client._queue.has_worker() or await client.aflush()
            if not settled:  # said here: where a signal kills the process next, no exit hook will say it
                stats = client.stats()
                left = stats.queued + stats.in_flight
                log.warning(
                    "%s of %s %s not stored at the shutdown of the application; last error: %s",
                    number_of_events(left),
                    one_line(client.settings.service),
                    "is" if left == 1 else "are",
                    one_line(stats.last_error),
                )
        except Exception as error:
            log_problem("flush", "the flush at lifespan shutdown failed: %s", failure(error))
