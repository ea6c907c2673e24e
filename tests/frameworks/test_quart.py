"""The contract on Quart, and what is Quart's own: blueprints, background tasks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from quart import Blueprint, Quart, Response, abort, websocket

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
from tests.instrumentation.asgi_app import http_scope, run, websocket_scope


class TestQuart(FrameworkContract):
    def application(self, *routes: tuple[str, str]) -> Any:
        app = Quart(__name__)
        app.logger.disabled = True
        for path, name in routes:
            app.add_url_rule(self.template(path), name, getattr(self, name))
        return app

    def add(self, *routes: tuple[str, str]) -> Any:
        app = self.application(*routes)
        app.asgi_app = AnalyticsMiddleware(app.asgi_app, client=self.client, **self.options)
        return app

    def template(self, path: str) -> str:
        return path.replace("{", "<").replace("}", ">")

    async def hello(self, item: str = "") -> Response:
        return Response("hello", mimetype="text/plain")

    async def page(self, item: str) -> str:
        fill_cart(self.client)
        return PAGE

    async def not_found(self, item: str) -> str:
        abort(404)

    async def refused(self) -> str:
        abort(503)

    async def boom(self) -> str:
        raise_unforeseen()
        return ""

    async def heavy(self) -> str:
        raise_heavy()
        return ""

    async def reported(self) -> str:
        report(self.client)
        return "hello"

    async def me(self) -> str:
        say_who(self.client, "alice", "s-1")
        return "hello"

    async def who(self, name: str) -> str:
        await asyncio.sleep(0)
        say_who(self.client, name)
        await asyncio.sleep(0)
        return "hello"

    def thread(self) -> str:
        say_who(self.client, "bob")
        return "hello"

    async def stream(self) -> Response:
        async def parts() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield b"0123456789"
                await asyncio.sleep(0.006)

        return Response(parts())


async def test_blueprints_sub_paths_and_websockets(analytics: CapturedEvents) -> None:
    blueprint = Blueprint("shop", __name__, url_prefix="/shops/<shop>")

    @blueprint.get("/items/<int:item>")
    async def item(shop: str, item: int) -> str:
        return "item"

    @blueprint.websocket("/chat")
    async def chat(shop: str) -> None:
        await websocket.accept()

    app = Quart(__name__)
    app.register_blueprint(blueprint)
    wrapped = AnalyticsMiddleware(app, client=analytics.client)
    await run(wrapped, http_scope("/shops/a/items/1"))
    await run(wrapped, http_scope("/shops/a/items/x"))
    connected = asyncio.create_task(run(wrapped, websocket_scope("/shops/a/chat"), [{"type": "websocket.connect"}]))
    await asyncio.sleep(0.05)
    connected.cancel()
    await asyncio.gather(connected, return_exceptions=True)
    found = [(event.data["method"], event.data["endpoint"]) for event in analytics.of("api_request")]
    assert found == [
        ("GET", "/shops/<shop>/items/<int:item>"),
        ("GET", None),
        ("WEBSOCKET", "/shops/<shop>/chat"),
    ]


async def test_a_background_task_that_raises(analytics: CapturedEvents) -> None:
    app = Quart(__name__)
    app.logger.disabled = True

    async def work() -> None:
        raise_unforeseen()

    @app.get("/")
    async def page() -> str:
        app.add_background_task(work)
        await asyncio.sleep(0.01)  # it fails while the request is still being answered
        return "page"

    await run(AnalyticsMiddleware(app, client=analytics.client), http_scope("/"))
    await asyncio.gather(*app.background_tasks)

    [request] = analytics.of("api_request")
    [error] = analytics.of("application_error")
    assert (request.data["status_code"], request.data["outcome"]) == (200, "ok")
    assert (error.data["handled"], error.data["endpoint"]) == (False, "/")


async def test_an_error_handler_of_the_application_handles(analytics: CapturedEvents) -> None:
    app = Quart(__name__)
    app.logger.disabled = True

    @app.errorhandler(LookupError)
    async def answer(error: Exception) -> tuple[str, int]:
        return "sorry", 400

    @app.errorhandler(500)
    async def sorry(error: Exception) -> tuple[str, int]:
        return "sorry", 500

    @app.get("/<what>")
    async def page(what: str) -> str:
        if what == "handled":
            raise LookupError
        raise_unforeseen()
        return ""

    for path in ("/handled", "/not-handled"):
        await run(AnalyticsMiddleware(app, client=analytics.client), http_scope(path))

    first, second = (event.data for event in analytics.of("api_request"))
    assert (first["status_code"], first["outcome"]) == (400, "ok")
    assert (second["status_code"], second["outcome"]) == (500, "error")
    assert len(analytics.of("application_error")) == 1


async def test_a_client_that_leaves(analytics: CapturedEvents) -> None:
    app = Quart(__name__)

    @app.get("/slow")
    async def slow() -> str:
        await asyncio.sleep(10)
        return "late"

    incoming = [{"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}]
    await run(AnalyticsMiddleware(app, client=analytics.client), http_scope("/slow"), incoming)

    [request] = analytics.of("api_request")
    assert (request.data["status_code"], request.data["outcome"], request.data["endpoint"]) == (
        499,
        "disconnected",
        "/slow",
    )
    assert analytics.of("application_error") == []
