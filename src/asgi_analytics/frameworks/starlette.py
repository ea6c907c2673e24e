"""Starlette, and what is made of it: FastAPI."""

from __future__ import annotations

import copy
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from asgi_analytics.encoding.records import LONGEST_NAME
from asgi_analytics.frameworks.starlette_routes import RouteTable
from asgi_analytics.instrumentation.asgi import AnalyticsMiddleware
from asgi_analytics.instrumentation.requests.framework import Framework, Template, as_coroutine_function

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, MutableMapping

    from asgi_analytics.instrumentation.requests.identified import IdentifiedRequest

_MOST_TABLES = 32
_MOST_ALONE = 10_000
_MOST_LAYERS = 100
_MOUNTED = frozenset({"app_root_path", "fastapi"})
"""What stands in the scope where a route's template may have a prefix."""


class Starlette(Framework):
    """Routes by the tables of the routers that have served a request; the middleware outside of the error handler.

    Starlette puts what ``add_middleware`` adds inside of the layer that answers for unhandled exceptions, where the
    answer cannot be seen. That layer is made to run inside of the middleware.
    """

    module = "starlette.routing"

    def __init__(self) -> None:
        super().__init__()
        self._tables: dict[int, RouteTable] = {}

    @classmethod
    def is_inside(cls, app: object) -> bool:
        """Tell whether no application of Starlette's is below: with the middleware around it nothing is hidden."""
        applications = sys.modules.get("starlette.applications")
        return applications is None or not any(isinstance(one, applications.Starlette) for one in _layers_of(app))

    @classmethod
    def connect(cls) -> None:
        """Make Starlette's outermost layer ask for the middleware inside of it."""
        errors = sys.modules.get("starlette.middleware.errors")
        if errors is None:
            return
        layer = errors.ServerErrorMiddleware
        run_layer = layer.__call__

        # No coroutine of its own: for an application without the middleware nothing is different.
        def run(self: Any, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
            try:
                middleware = self.asgi_analytics
            except AttributeError:  # its first request
                middleware = self.asgi_analytics = _outermost(self, run_layer)
            if middleware is None or scope["type"] == "lifespan":
                return run_layer(self, scope, receive, send)  # type: ignore[no-any-return]
            return middleware(scope, receive, send)  # type: ignore[no-any-return]

        layer.__call__ = as_coroutine_function(run)

    def template(self, scope: MutableMapping[str, Any], request: IdentifiedRequest) -> Template | None:
        """Return the route that the outermost router and those below it have matched."""
        root = scope.get("router")
        if root is None:
            return None
        table = self._tables.get(id(root))
        if table is None:
            if not hasattr(root, "routes"):
                return None
            if len(self._tables) >= _MOST_TABLES:  # an application makes routers as it goes
                self._tables.clear()
                self.alone.clear()
            table = self._tables[id(root)] = RouteTable(root)
        found = table.find(scope)
        route = scope.get("route")
        if id(route) in table.alone and not _MOUNTED.intersection(scope) and found and len(found.text) <= LONGEST_NAME:
            if len(self.alone) >= _MOST_ALONE:  # it adds routes, and takes them away
                self.alone.clear()
            self.alone[id(route)] = (route, found.text)
        return found


def _outermost(layer: Any, run_layer: Callable[..., Awaitable[None]]) -> AnalyticsMiddleware | None:
    """Return the middleware that stands inside of a layer, around that layer; None where there is none."""
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
