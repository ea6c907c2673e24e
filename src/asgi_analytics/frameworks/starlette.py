"""Starlette, and what is made of it: FastAPI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ref

from asgi_analytics.instrumentation.framework import Framework, Template
from asgi_analytics.instrumentation.routes import RouteTable

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from asgi_analytics.instrumentation.request import CapturedRequest

_MOST_TABLES = 32


class Starlette(Framework):
    """Routes by the tables of the routers that have served a request."""

    module = "starlette.routing"

    def __init__(self) -> None:
        self._tables: dict[int, tuple[ref[Any], RouteTable]] = {}

    def template(self, scope: MutableMapping[str, Any], request: CapturedRequest) -> Template | None:
        """Return the route that the outermost router and those below it have matched."""
        root = scope.get("router")
        if root is None:
            return None
        known = self._tables.get(id(root))
        if known is None or known[0]() is not root:
            if len(self._tables) >= _MOST_TABLES:  # an application makes routers as it goes
                self._tables.clear()
            known = self._tables[id(root)] = (ref(root), RouteTable(root))
        table = known[1]
        # What most requests of most applications are: below no mount, on a route of its own.
        route = scope.get("route")
        alone = table.alone.get(id(route))
        if alone is None or alone[0] is not route or alone[1] is not scope.get("endpoint"):
            return table.find(scope)
        return table.find(scope) if "app_root_path" in scope or "fastapi" in scope else alone[2]
