"""The contract on Starlette, and what is Starlette's own: mounts, hosts, error handlers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from asgi_analytics import AnalyticsMiddleware
from asgi_analytics.testing import CapturedEvents
from tests.frameworks.contract import (
    PAGE,
    FrameworkContract,
    Unforeseen,
    fill_cart,
    raise_heavy,
    raise_unforeseen,
    report,
    say_who,
)
from tests.instrumentation.asgi_app import Server, http_scope, run
from tests.kit.scripts import run_script


class TestStarlette(FrameworkContract):
    def application(self, *routes: tuple[str, str]) -> Any:
        return Starlette(routes=[Route(path, getattr(self, name)) for path, name in routes])

    def add(self, *routes: tuple[str, str]) -> Any:
        app = self.application(*routes)
        app.add_middleware(AnalyticsMiddleware, client=self.client, **self.options)
        return app

    async def hello(self, request: Request) -> Response:
        return PlainTextResponse("hello")

    async def page(self, request: Request) -> Response:
        fill_cart(self.client)
        return HTMLResponse(PAGE)

    async def not_found(self, request: Request) -> Response:
        raise HTTPException(404)

    async def refused(self, request: Request) -> Response:
        raise HTTPException(503)

    async def boom(self, request: Request) -> Response:
        raise_unforeseen()
        raise AssertionError

    async def heavy(self, request: Request) -> Response:
        raise_heavy()
        raise AssertionError

    async def reported(self, request: Request) -> Response:
        report(self.client)
        return PlainTextResponse("hello")

    async def me(self, request: Request) -> Response:
        say_who(self.client, "alice", "s-1")
        return PlainTextResponse("hello")

    async def who(self, request: Request) -> Response:
        await asyncio.sleep(0)
        say_who(self.client, request.path_params["name"])
        await asyncio.sleep(0)
        return PlainTextResponse("hello")

    def thread(self, request: Request) -> Response:
        say_who(self.client, "bob")
        return PlainTextResponse("hello")

    async def stream(self, request: Request) -> Response:
        async def parts() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield b"0123456789"
                await asyncio.sleep(0.006)

        return StreamingResponse(parts())


async def refuse(request: Request, exc: Exception) -> Response:
    return PlainTextResponse("sorry", 503)


@pytest.mark.parametrize("install", ["usual", "outermost"])
async def test_a_page_for_errors_is_what_the_client_got(analytics: CapturedEvents, install: str) -> None:
    async def boom(request: Request) -> Response:
        raise_unforeseen()
        raise AssertionError

    starlette = Starlette(routes=[Route("/boom", boom)], exception_handlers={Exception: refuse})
    app: Any = starlette
    if install == "usual":
        starlette.add_middleware(AnalyticsMiddleware, client=analytics.client)
    else:
        app = AnalyticsMiddleware(starlette, client=analytics.client)
    server = Server()
    with pytest.raises(Unforeseen):
        await app(http_scope("/boom"), server.receive, server.send)

    [request] = analytics.of("api_request")
    assert server.status == request.data["status_code"] == 503
    assert (request.data["outcome"], request.data["response_bytes"]) == ("error", 5)
    assert len(analytics.of("application_error")) == 1


async def test_an_exception_with_a_handler_is_handled(analytics: CapturedEvents) -> None:
    async def boom(request: Request) -> Response:
        raise LookupError

    app = Starlette(routes=[Route("/boom", boom)], exception_handlers={LookupError: refuse})
    await run(AnalyticsMiddleware(app, client=analytics.client), http_scope("/boom"))

    [request] = analytics.events
    assert (request.data["status_code"], request.data["outcome"]) == (503, "ok")


async def test_another_application_keeps_its_middleware_to_itself(analytics: CapturedEvents) -> None:
    async def page(request: Request) -> Response:
        return PlainTextResponse("page")

    with_it = Starlette(routes=[Route("/", page)])
    with_it.add_middleware(AnalyticsMiddleware, client=analytics.client)
    without = Starlette(routes=[Route("/", page)])
    await run(with_it, http_scope("/"))
    await run(without, http_scope("/"))

    assert len(analytics.events) == 1


@pytest.mark.parametrize("inside", [False, True])
def test_starlette_is_left_as_it_is_unless_the_middleware_stands_inside(inside: bool) -> None:
    done = run_script(
        f"""
        from starlette.applications import Starlette
        from starlette.middleware import Middleware
        from starlette.middleware.errors import ServerErrorMiddleware
        from starlette.middleware.gzip import GZipMiddleware
        from asgi_analytics import AnalyticsMiddleware

        before = ServerErrorMiddleware.__call__
        client = AnalyticsClient(service="shop")
        if {inside}:
            Starlette(middleware=[Middleware(AnalyticsMiddleware, client=client)]).build_middleware_stack()
        else:
            AnalyticsMiddleware(Starlette(), client=client)
            AnalyticsMiddleware(GZipMiddleware(Starlette()), client=client)
        print(ServerErrorMiddleware.__call__ is before)
        """
    )
    assert done.split() == [str(not inside)]


async def _pass_on(request: Request, call_next: Any) -> Response:
    response: Response = await call_next(request)
    return response


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("install", ["outermost", "usual"])
async def test_a_stream_that_breaks_below_base_http_middleware_is_an_error(
    analytics: CapturedEvents, layers: int, install: str
) -> None:
    async def broken(request: Request) -> Response:
        async def parts() -> AsyncIterator[bytes]:
            yield b"half"
            raise_unforeseen()

        return StreamingResponse(parts())

    app: Any = Starlette(
        routes=[Route("/broken", broken)], middleware=[Middleware(BaseHTTPMiddleware, dispatch=_pass_on)] * layers
    )
    if install == "usual":
        app.add_middleware(AnalyticsMiddleware, client=analytics.client)
    else:
        app = AnalyticsMiddleware(app, client=analytics.client)
    with pytest.raises(Unforeseen):
        await run(app, http_scope("/broken"))

    [request], [error] = analytics.of("api_request"), analytics.of("application_error")
    assert (request.data["status_code"], request.data["outcome"]) == (200, "error")
    assert request.data["error_type"] == error.data["error_type"] == "tests.frameworks.contract.Unforeseen"


@pytest.mark.newest  # older releases do not hand on what a background task raises below such a middleware
async def test_a_background_task_that_raises_below_base_http_middleware_leaves_its_request_ok(
    analytics: CapturedEvents,
) -> None:
    async def answered(request: Request) -> Response:
        return PlainTextResponse("whole", background=BackgroundTask(raise_unforeseen))

    app = Starlette(
        routes=[Route("/answered", answered)], middleware=[Middleware(BaseHTTPMiddleware, dispatch=_pass_on)]
    )
    with pytest.raises(Unforeseen):
        await run(AnalyticsMiddleware(app, client=analytics.client), http_scope("/answered"))

    assert analytics.of("api_request")[0].data["outcome"] == "ok"
    assert len(analytics.of("application_error")) == 1
