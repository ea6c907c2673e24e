"""Starlette, and what is made of it: FastAPI."""

from __future__ import annotations

import copy
import sys
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

from asgi_analytics.frameworks.starlette_routes import RouteTable, is_route
from asgi_analytics.instrumentation.asgi import AnalyticsMiddleware
from asgi_analytics.instrumentation.requests.framework import Framework, Template

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from asgi_analytics.instrumentation.types import Scope

_MOST_TABLES = 32
_MOST_LAYERS = 100


class Starlette(Framework):
    """Knows routes from the tables of the routers that have served a request, and hooks Starlette's outermost layer.

    Starlette puts what ``add_middleware`` adds inside the layer that answers unhandled exceptions, where the answer
    cannot be seen. That layer is made to run inside the middleware.
    """

    module = "starlette.routing"

    def __init__(self) -> None:
        self._tables: dict[int, RouteTable] = {}
        # In place of a router, if the application is a single route or mount.
        self._bare_root: Any = None

    @classmethod
    def detect(cls, app: object) -> Self | None:
        """Return an instance that knows whether the application is a single route."""
        found = super().detect(app)
        if found is not None:
            route = next((layer for layer in _layers_of(app) if is_route(layer)), None)
            if route is not None and not hasattr(route, "redirect_slashes"):
                found._bare_root = SimpleNamespace(routes=[route])
        return found

    @classmethod
    def needs_hooks(cls, app: object) -> bool:
        """Tell whether no application of Starlette's is below: with the middleware around it nothing is hidden."""
        applications = sys.modules.get("starlette.applications")
        return applications is None or not any(isinstance(one, applications.Starlette) for one in _layers_of(app))

    @classmethod
    def install_hooks(cls) -> None:
        """Make Starlette's outermost layer ask for the middleware inside it."""
        errors = sys.modules.get("starlette.middleware.errors")
        if errors is None:
            return
        layer = errors.ServerErrorMiddleware
        run_layer = layer.__call__

        async def run(self: Any, scope: Any, receive: Any, send: Any) -> Any:
            try:
                middleware = self.asgi_analytics
            except AttributeError:  # its first request
                middleware = self.asgi_analytics = _outermost(self, run_layer)
            if middleware is None or scope["type"] == "lifespan":
                return await run_layer(self, scope, receive, send)
            return await middleware(scope, receive, send)

        layer.__call__ = run

    def template(self, scope: Scope, state: Any) -> Template | None:
        """Return the route that the outermost router and those below it have matched."""
        root = self._bare_root or scope.get("router")
        if root is None:
            return None
        table = self._tables.get(id(root))
        if table is None:
            if not hasattr(root, "routes"):
                return None
            if len(self._tables) >= _MOST_TABLES:  # an application makes routers as it goes
                self._tables.clear()
            table = self._tables[id(root)] = RouteTable(root)
        return table.find(scope)


def _outermost(layer: Any, run_layer: Callable[..., Awaitable[None]]) -> AnalyticsMiddleware | None:
    """Return the middleware that stands inside a layer, around that layer; None if there is none."""
    for app in _layers_of(getattr(layer, "app", None)):
        if isinstance(app, AnalyticsMiddleware):
            outermost = copy.copy(app)
            outermost.app = partial(run_layer, layer)
            return outermost
    return None


def _layers_of(app: object) -> Iterator[object]:
    """Yield an application and what it stands around, as middleware says it."""
    for _ in range(_MOST_LAYERS):
        if app is None:
            return
        yield app
        app = getattr(app, "app", None)
