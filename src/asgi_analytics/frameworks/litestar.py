"""Litestar: its routes, and the exceptions that it answers before a middleware sees them."""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from asgi_analytics.exceptions import unwrapped
from asgi_analytics.instrumentation.asgi import AnalyticsMiddleware
from asgi_analytics.instrumentation.requests.framework import Framework, Template
from asgi_analytics.instrumentation.requests.request import captured_request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asgi_analytics.instrumentation.types import Scope

_NOT_ALLOWED = object()
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")


class Litestar(Framework):
    """Litestar's own layers run inside of the middleware, and its exceptions are seen by ``after_exception``.

    As ``middleware=[…]`` it would stand inside of the router, where no 404 and no lifespan comes by.
    """

    module = "litestar.app"

    @classmethod
    def install_hooks(cls) -> None:
        """Make each Litestar application ask for its middleware, and tell of its exceptions."""
        application = sys.modules["litestar.app"].Litestar
        run_application = application.__call__

        async def run(self: Any, scope: Any, receive: Any, send: Any) -> Any:
            hook = next((hook for hook in self.after_exception if isinstance(hook, _AfterException)), None)
            if hook is None:
                hook = _AfterException(_outermost(self, run_application))
                self.after_exception.append(hook)
            if hook.middleware is None:
                return await run_application(self, scope, receive, send)
            return await hook.middleware(scope, receive, send)

        application.__call__ = run

    def template(self, scope: Scope, state: Any) -> Template | None:
        """Return the route that Litestar has matched."""
        handler = scope.get("route_handler")
        if handler is None:
            return _other_method(scope) if state is _NOT_ALLOWED else None
        if not getattr(handler, "is_mount", False):
            text = _plain_route(scope) or scope.get("path_template")
            return Template(text) if text else None
        for route in _app_of(scope).routes:
            if getattr(route, "route_handler", None) is handler:
                prefix = route.path_format.rstrip("/")
                return Template(prefix + "/{path}", prefix)
        return None

    def unwrap(self, exc: BaseException) -> BaseException:
        """Return the application's exception: once a response has begun, each layer of Litestar wraps it anew."""
        while type(exc).__name__ == "LitestarException" and "after response started" in str(exc) and exc.__cause__:
            exc = unwrapped(exc.__cause__)
        return exc


class _AfterException:
    """The hook of one application, and the middleware that is to run around it."""

    def __init__(self, middleware: AnalyticsMiddleware | None) -> None:
        self.middleware = middleware

    async def __call__(self, exc: BaseException, scope: Scope) -> None:
        request = captured_request()
        if request is None:
            return
        if getattr(exc, "status_code", None) == 405 and "route_handler" not in scope:
            request.framework_state = _NOT_ALLOWED
        if not _is_handled(exc, scope):
            request.failed(exc)


def _outermost(app: Any, run: Callable[..., Awaitable[None]]) -> AnalyticsMiddleware | None:
    """Return the middleware that is defined for an application, around all of it."""
    for define in app.middleware or ():
        made = getattr(define, "middleware", None)
        if isinstance(made, type) and issubclass(made, AnalyticsMiddleware):
            middleware: AnalyticsMiddleware = define(partial(run, app))
            return middleware
    return None


def _app_of(scope: Scope) -> Any:
    return scope.get("litestar_app") or scope["app"]  # older releases have only the latter


def _plain_route(scope: Scope) -> str | None:
    """Return the path where it is a route without parameters: older releases give those the template of the root."""
    path: str = scope["path"]
    return path if path in getattr(_app_of(scope).asgi_router, "_plain_routes", ()) else None


def _other_method(scope: Scope) -> Template | None:
    """Return the route that the path would have taken with another method."""
    path = scope["path"]
    if root_path := scope.get("root_path", ""):
        path = path.split(root_path, maxsplit=1)[-1]
    path = sys.modules["litestar.utils"].normalize_path(path)
    router = _app_of(scope).asgi_router
    for method in _METHODS:
        with suppress(Exception):  # not this one either
            found = router.handle_routing(path=path, method=method)
            return Template(found[2] if found[2] in getattr(router, "_plain_routes", ()) else found[4])
    return None


def _is_handled(exc: BaseException, scope: Scope) -> bool:
    """Tell whether the application has an answer for this exception, not only for whatever goes wrong."""
    exceptions = sys.modules["litestar.exceptions"]
    answers = (exceptions.HTTPException, exceptions.WebSocketException)
    if isinstance(exc, answers) and not isinstance(exc, exceptions.WebSocketDisconnect):
        return True
    starlette = sys.modules.get("starlette.exceptions")
    if starlette is not None and isinstance(exc, starlette.HTTPException):
        return True
    handler = scope.get("route_handler")
    source = _app_of(scope).exception_handlers if handler is None else handler.resolve_exception_handlers()
    return any(cls in source for cls in type(exc).__mro__ if cls not in (Exception, BaseException, object))
