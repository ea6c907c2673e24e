"""AnalyticsMiddleware: one ``ApiRequest`` per request, and nothing changed for the application or the client."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from asgi_analytics.client import checked_client
from asgi_analytics.context import current, suppressed
from asgi_analytics.errors import ConfigError
from asgi_analytics.instrumentation.page_views import PageViews
from asgi_analytics.instrumentation.requests.http import HTTP
from asgi_analytics.instrumentation.requests.plan import CapturePlan
from asgi_analytics.instrumentation.requests.request import REQUEST_KEY, CapturedRequest
from asgi_analytics.instrumentation.requests.websocket import WEBSOCKET, watched
from asgi_analytics.instrumentation.types import METHODS
from asgi_analytics.log import failure, log, log_problem, one_line

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from asgi_analytics.client import AnalyticsClient
    from asgi_analytics.instrumentation.requests.framework import Framework
    from asgi_analytics.instrumentation.types import ASGIApp, Receive, Scope, Send

# Bound once: a method of a variable is an object that is made anew for each call.
_enter, _leave, _suppressed = current.set, current.reset, suppressed.get


class AnalyticsMiddleware:
    """Captures each request of an ASGI application as an `ApiRequest`, and what it raises as an `ApplicationError`.

    Wrap the application, or add it in the framework's own way; more than once does no harm. ``exclude`` holds paths,
    exact ones and ``prefix/*`` for all that is below the prefix, without ``root_path``. ``user_id``, ``session_id``
    and ``endpoint`` are functions of the scope; what they raise is logged and changes nothing. ``capture_errors=False``
    leaves errors out, ``capture_websockets=False`` WebSocket connections. ``page_views=PageViews()`` also makes a
    ``page_view`` of each page that is shown. Raises `ConfigError` for a wrong option.
    """

    # Set by the package, its composition root. The middleware itself knows plain ASGI.
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
        page_views: PageViews | None = None,
    ) -> None:
        checked_client(client)
        for name, option in (("user_id", user_id), ("session_id", session_id), ("endpoint", endpoint)):
            if option is not None and not callable(option):
                raise ConfigError(f"{name} must be a callable that takes the ASGI scope")
        if page_views is not None and not isinstance(page_views, PageViews):
            raise ConfigError(f"page_views is {page_views!r}: use page_views=PageViews()")
        self.app: ASGIApp = app
        self.client = client
        self.plan = CapturePlan(
            client,
            exclude=exclude,
            user_id=user_id,
            session_id=session_id,
            endpoint=endpoint,
            capture_errors=capture_errors,
            page_views=page_views,
        )
        self.capture_websockets = capture_websockets
        self._find_frameworks()
        self._is_enabled = client.settings.enabled
        self._is_ready = False

    def _find_frameworks(self) -> None:
        """Find out which frameworks the application uses: at construction, and once more at the first request."""
        found = [framework for known in self.known_frameworks if (framework := known.detect(self.app)) is not None]
        self.plan.set_frameworks(tuple(found))

    # The types are loose because those of the frameworks do not agree.
    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        """Run the application; what it returns or raises goes on unchanged."""
        request = self._begin(scope, receive, send)
        if request is None:
            return await self._pass_on(scope, receive, send)
        token = _enter(request)
        try:
            return await self.app(scope, request.receive, request.send)
        except BaseException as exc:
            request.failed(exc)
            raise
        finally:
            request.finish()
            try:
                _leave(token)
            except ValueError:  # the application is begun in one context and ended in another
                _enter(None)

    def _begin(self, scope: Scope, receive: Receive, send: Send) -> CapturedRequest | None:
        """Return the request to capture; None for what is not a request, or not captured by this middleware."""
        kind = scope["type"]
        if kind != "http" and not (kind == "websocket" and self.capture_websockets):
            return None
        if not self._is_enabled or _suppressed():
            return None
        outer: CapturedRequest | None = scope.get(REQUEST_KEY)
        if outer is not None and self._is_captured(outer):
            return None
        if not self._is_ready:  # the application is complete now
            self._is_ready = True
            self._find_frameworks()
        if kind == "http":
            method = scope["method"]
            request = CapturedRequest(self.plan, scope, receive, send, method if method in METHODS else "_OTHER", HTTP)
        else:
            request = CapturedRequest(self.plan, scope, receive, send, "WEBSOCKET", WEBSOCKET)
            request.receive = watched(request, receive)
        scope[REQUEST_KEY] = request
        if outer is not None:
            request.outer = outer
        if self.plan.has_excluded and self.plan.excludes(scope):
            request.excluded = True
        return request

    def _is_captured(self, outer: CapturedRequest | None) -> bool:
        """Tell whether a middleware of the same client captures the request already."""
        while outer is not None:
            if outer.plan.client is self.client:
                return True
            outer = outer.outer
        return False

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Run the application without capturing; the flush follows the end of its lifespan."""
        try:
            return await self.app(scope, receive, send)
        finally:
            if scope["type"] == "lifespan":
                await self._flush()

    async def _flush(self) -> None:
        """Wait, within ``close_timeout``, until what was tracked is settled."""
        client = self.client
        try:
            if client.sink is None and not client._delivery.has_worker():
                is_settled = True
            elif client.sink is not None or asyncio._get_running_loop() is None:  # the latter on trio
                # The worker runs in another thread, and this blocks the loop on purpose: uvicorn raises the signal
                # that ended it, which kills the process, as soon as the loop turns after the application's shutdown.
                is_settled = client.flush()
            else:
                is_settled = await client.aflush()
            if not is_settled:  # said here: if a signal kills the process next, no exit hook will say it
                client._delivery.spill()  # nor would it take anything to disk
                stats = client.stats()
                log.warning(
                    "the application has shut down before all was stored; service: %s; last error: %s; left: %d; "
                    "in the spool: %d",
                    one_line(client.settings.service),
                    one_line(stats.last_error),
                    stats.queued + stats.in_flight,
                    stats.spooled,
                )
        except Exception as error:
            log_problem("flush", "the flush at lifespan shutdown failed: %s", failure(error))
