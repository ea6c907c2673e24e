"""The contract on Litestar, and what is Litestar's own: layers, its exception handlers, mounts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from litestar import Litestar, Request, Response, Router, WebSocket, asgi, get, websocket
from litestar.exceptions import HTTPException
from litestar.middleware import DefineMiddleware
from litestar.response import Stream
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from asgi_analytics import AnalyticsMiddleware
from asgi_analytics.testing import CapturedEvents
from tests.frameworks.contract import (
    PAGE,
    FrameworkContract,
    fill_cart,
    raise_heavy,
    raise_unforeseen,
    report,
    say_who,
)
from tests.instrumentation.asgi_app import Server, http_scope, run, websocket_scope


class TestLitestar(FrameworkContract):
    def application(self, *routes: tuple[str, str], **options: Any) -> Any:
        handlers = [getattr(self, name)(path.replace("}", ":str}")) for path, name in routes]
        return Litestar(handlers, logging_config=None, openapi_config=None, **options)

    def add(self, *routes: tuple[str, str]) -> Any:
        middleware: Any = AnalyticsMiddleware  # Litestar has types of its own for ASGI messages
        return self.application(*routes, middleware=[DefineMiddleware(middleware, client=self.client, **self.options)])

    def hello(self, path: str) -> Any:
        @get(path, media_type="text/plain")
        async def handler() -> str:
            return "hello"

        return handler

    def page(self, path: str) -> Any:
        @get(path, media_type="text/html")
        async def handler() -> str:
            fill_cart(self.client)
            return PAGE

        return handler

    def not_found(self, path: str) -> Any:
        @get(path)
        async def handler() -> None:
            raise HTTPException(status_code=404)

        return handler

    def refused(self, path: str) -> Any:
        @get(path)
        async def handler() -> None:
            raise HTTPException(status_code=503)

        return handler

    def boom(self, path: str) -> Any:
        @get(path)
        async def handler() -> None:
            raise_unforeseen()

        return handler

    def heavy(self, path: str) -> Any:
        @get(path)
        async def handler() -> None:
            raise_heavy()

        return handler

    def reported(self, path: str) -> Any:
        @get(path)
        async def handler() -> None:
            report(self.client)

        return handler

    def me(self, path: str) -> Any:
        @get(path)
        async def handler() -> None:
            say_who(self.client, "alice", "s-1")

        return handler

    def who(self, path: str) -> Any:
        @get(path)
        async def handler(request: Request[Any, Any, Any]) -> None:
            await asyncio.sleep(0)
            say_who(self.client, request.path_params["name"])
            await asyncio.sleep(0)

        return handler

    def thread(self, path: str) -> Any:
        @get(path, sync_to_thread=True)
        def handler() -> None:
            say_who(self.client, "bob")

        return handler

    def stream(self, path: str) -> Any:
        async def parts() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield b"0123456789"
                await asyncio.sleep(0.006)

        @get(path)
        async def handler() -> Stream:
            return Stream(parts())

        return handler


def silent(*handlers: Any, **options: Any) -> Litestar:
    return Litestar(list(handlers), logging_config=None, openapi_config=None, **options)


@pytest.mark.newest  # copy_scope, which newer releases warn about where it is not set
async def test_routes_beside_the_root_and_mounts_have_their_own_templates(analytics: CapturedEvents) -> None:
    @get(["/", "/plain", "/with/{item:int}"])
    async def page() -> str:
        return "page"

    inner = Starlette(routes=[Route("/a/{b}/", lambda request: PlainTextResponse("a"))])

    @asgi("/mounted", is_mount=True, copy_scope=False)
    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        await inner(scope, receive, send)

    app = AnalyticsMiddleware(silent(Router("/v1", route_handlers=[page, mounted])), client=analytics.client)
    for path in ("/v1", "/v1/plain", "/v1/with/1", "/v1/with/x", "/v1/mounted/a/1"):
        await run(app, http_scope(path))

    assert [event.data["endpoint"] for event in analytics.of("api_request")] == [
        "/v1",
        "/v1/plain",
        "/v1/with/{item}",
        None,
        "/v1/mounted/a/{b}/",
    ]


async def test_an_exception_with_a_handler_is_handled_and_a_page_for_errors_is_none(analytics: CapturedEvents) -> None:
    @get("/handled")
    async def handled() -> None:
        raise LookupError

    @get("/not-handled")
    async def not_handled() -> None:
        raise_unforeseen()

    def answer(request: Any, exc: Exception) -> Response[str]:
        return Response("sorry", status_code=400 if isinstance(exc, LookupError) else 500)

    app = silent(handled, not_handled, exception_handlers={LookupError: answer, Exception: answer})
    for path in ("/handled", "/not-handled"):
        await run(AnalyticsMiddleware(app, client=analytics.client), http_scope(path))

    first, second = (event.data for event in analytics.of("api_request"))
    assert (first["status_code"], first["outcome"]) == (400, "ok")
    assert (second["status_code"], second["outcome"]) == (500, "error")
    assert len(analytics.of("application_error")) == 1


def passing_on(app: Any) -> Any:
    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)

    return middleware


@pytest.mark.parametrize("layers", [0, 1, 3])
async def test_what_raises_after_the_start_is_what_was_raised(analytics: CapturedEvents, layers: int) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"a"
        raise_unforeseen()

    @get("/stream")
    async def stream() -> Stream:
        return Stream(parts())

    with contextlib.suppress(Exception):
        app = silent(stream, middleware=[passing_on] * layers)
        await run(AnalyticsMiddleware(app, client=analytics.client), http_scope("/stream"))

    [request] = analytics.of("api_request")
    [error] = analytics.of("application_error")
    assert (request.data["status_code"], request.data["outcome"]) == (200, "error")
    assert request.data["error_type"] == error.data["error_type"] == "tests.frameworks.contract.Unforeseen"


async def test_websockets(analytics: CapturedEvents) -> None:
    @websocket("/chat/{room:str}")
    async def chat(socket: WebSocket[Any, Any, Any]) -> None:
        await socket.accept()
        await socket.receive_text()

    app = AnalyticsMiddleware(silent(chat), client=analytics.client)
    for code in (1000, 1006):
        incoming = [{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": code}]
        await run(app, websocket_scope("/chat/1"), incoming)

    normal, lost = (event.data for event in analytics.of("api_request"))
    assert (normal["endpoint"], normal["status_code"], normal["outcome"]) == ("/chat/{room}", 101, "ok")
    assert (lost["outcome"], lost["close_code"]) == ("disconnected", 1006)
    assert analytics.of("application_error") == []


async def test_the_flush_comes_with_litestars_lifespan(analytics: CapturedEvents) -> None:
    flushed: list[bool] = []

    class Middleware(AnalyticsMiddleware):
        async def _flush(self) -> None:
            flushed.append(True)

    app = silent(middleware=[DefineMiddleware(Middleware, client=analytics.client)])
    server = Server([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    AnalyticsMiddleware(app, client=analytics.client)  # whoever comes first finds Litestar
    await app({"type": "lifespan"}, server.receive, server.send)  # type: ignore[arg-type]

    assert flushed == [True]
