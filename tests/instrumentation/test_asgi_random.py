"""Thousands of random requests against random trees of routes: the captured histogram is the one the test computes.

The tree knows for each of its routes what a request to it must be captured as; nothing here asks the framework.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Host, Mount, Route, Router

from asgi_analytics import AnalyticsMiddleware
from asgi_analytics.testing import CapturedEvents
from tests.instrumentation.asgi_app import Server, http_scope

REQUESTS = 3_000
METHODS = ["GET", "POST", "PUT", "DELETE"]
STATUS = {"ok": 200, "created": 201, "missing": 404, "refused": 503, "broken": 500}


@dataclass
class Leaf:
    """A route as the tree made it, and what its requests are."""

    template: str
    method: str
    behaviour: str
    host: str | None


class Tree:
    """A random tree of routers; every name in it is unique, so that no route hides another."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.names = (f"n{number}" for number in range(1_000_000))
        self.leaves: list[Leaf] = []

    def segment(self) -> str:
        """Return a fixed name, always, and sometimes a parameter after it."""
        name = next(self.names)
        return f"/{name}/{{p{name}}}" if self.random.random() < 0.5 else f"/{name}"

    def leaf(self, prefix: str, host: str | None) -> Leaf:
        leaf = Leaf(prefix, self.random.choice(METHODS), self.random.choice(list(STATUS)), host)
        self.leaves.append(leaf)
        return leaf

    def handler(self, leaf: Leaf) -> Callable[..., Any]:
        async def handle(request: Request) -> Response:
            return answer(leaf.behaviour)

        return handle

    def routes(self, prefixes: list[tuple[str, str | None]], depth: int) -> list[BaseRoute]:
        """Return Starlette's routes for a router that stands below all of these prefixes."""
        made: list[BaseRoute] = []
        for _ in range(self.random.randint(3, 5)):
            segment = self.segment()
            below = [(prefix + segment, host) for prefix, host in prefixes]
            kind = self.random.random()
            if depth > 0 and kind < 0.35:
                app: Any = Router(self.routes(below, depth - 1))
                made.append(Mount(segment, Starlette(routes=app.routes) if kind < 0.15 else app))
            elif depth > 0 and kind < 0.45:  # one application at two places
                again = self.segment()
                shared = self.routes(below + [(prefix + again, host) for prefix, host in prefixes], depth - 1)
                inner = Starlette(routes=shared)
                made += [Mount(segment, inner), Mount(again, inner)]
            elif depth > 0 and kind < 0.55:
                made.append(Mount(segment, self.fastapi(below, depth - 1)))
            else:
                first, *others = [self.leaf(prefix, host) for prefix, host in below]
                for other in others:
                    other.method, other.behaviour = first.method, first.behaviour
                made.append(Route(segment, self.handler(first), methods=[first.method]))
        return made

    def fastapi(self, prefixes: list[tuple[str, str | None]], depth: int) -> FastAPI:
        app = FastAPI(openapi_url=None)
        router = APIRouter()
        include = [self.segment(), self.segment()]
        nested = [(prefix + segment, host) for prefix, host in prefixes for segment in include]
        for _ in range(2):
            segment = self.segment()
            first, *others = [self.leaf(prefix + segment, host) for prefix, host in nested]
            for other in others:
                other.method, other.behaviour = first.method, first.behaviour
            router.add_api_route(segment, api_handler(first), methods=[first.method])
        for segment in include:
            app.include_router(router, prefix=segment)
        if depth > 0:
            segment = self.segment()
            below = [(prefix + segment, host) for prefix, host in prefixes]
            app.mount(segment, Router(self.routes(below, depth - 1)))
        return app


def answer(behaviour: str) -> Response:
    if behaviour == "broken":
        raise ZeroDivisionError
    if STATUS[behaviour] >= 400:
        raise HTTPException(STATUS[behaviour])
    return PlainTextResponse(behaviour, STATUS[behaviour])


def api_handler(leaf: Leaf) -> Callable[..., Any]:
    async def handle() -> Any:
        return answer(leaf.behaviour)

    return handle


def concrete(template: str, chance: random.Random) -> str:
    return "/".join(f"v{chance.randint(0, 9)}" if part.startswith("{") else part for part in template.split("/"))


@pytest.mark.parametrize("install", ["usual", "outermost"])
@pytest.mark.parametrize("seed", range(4))
async def test_the_captured_histogram_is_the_expected_one(analytics: CapturedEvents, seed: int, install: str) -> None:
    tree = Tree(seed)
    host = Host("{sub}.example.org", Starlette(routes=tree.routes([("", "a.example.org")], 2)))
    routes = [host, *tree.routes([("", None)], 3)]
    app: Any = Starlette(routes=routes)
    if install == "usual":
        app.add_middleware(AnalyticsMiddleware, client=analytics.client)
    else:
        app = AnalyticsMiddleware(app, client=analytics.client)
    expected: Counter[tuple[str, str | None, int]] = Counter()
    errors = 0

    async def request() -> None:
        nonlocal errors
        leaf, kind = tree.random.choice(tree.leaves), tree.random.random()
        path, method = concrete(leaf.template, tree.random), leaf.method
        endpoint: str | None = leaf.template
        status = STATUS[leaf.behaviour]
        if kind < 0.1:
            method = "TRACE"
            status = 405
        elif kind < 0.2:
            path, endpoint, status = path + "/nowhere/at/all", None, 404
        elif leaf.behaviour == "broken":
            errors += 1
        root_path = tree.random.choice(["", "/behind"])
        headers = [(b"host", (leaf.host or "plain").encode())]
        expected[method, endpoint, status] += 1
        server = Server()
        try:
            scope = http_scope(root_path + path, method, root_path=root_path, headers=headers)
            await app(scope, server.receive, server.send)
        except ZeroDivisionError:
            pass
        assert server.status == status

    for _ in range(REQUESTS // 50):
        await asyncio.gather(*(request() for _ in range(50)))

    captured = Counter(
        (event.data["method"], event.data["endpoint"], event.data["status_code"])
        for event in analytics.of("api_request")
    )
    assert captured == expected
    assert len(expected) > 40
    assert len(analytics.of("application_error")) == errors
