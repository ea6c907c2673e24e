"""The decorators on endpoints, with the middleware above them and without."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from asgi_analytics import AnalyticsMiddleware, capture_errors, capture_query, capture_request
from asgi_analytics.testing import CapturedEvents, capture_events

pytest.importorskip("fastapi")

from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route


@pytest.fixture
def captured() -> Iterator[CapturedEvents]:
    with capture_events() as captured:
        yield captured


async def request(app: Any, path: str, method: str = "GET") -> list[Any]:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [],
    }
    await app({**scope, "root_path": "", "http_version": "1.1", "scheme": "http", "server": ("t", 80)}, receive, send)
    return sent


def body(sent: list[Any]) -> Any:
    return json.loads(b"".join(message.get("body", b"") for message in sent))


async def test_as_an_endpoint_of_starlette_below_the_middleware(captured: CapturedEvents) -> None:
    @capture_request(captured.client, "named")
    async def named(request: Request) -> Response:
        return PlainTextResponse(request.path_params["id"])

    @capture_request(captured.client)
    def in_a_thread(request: Request) -> Response:
        return PlainTextResponse("ok")

    app = Starlette(routes=[Route("/named/{id}", named), Route("/template/{id}", in_a_thread)])
    wrapped = AnalyticsMiddleware(app, client=captured.client)
    assert (await request(wrapped, "/named/7"))[0]["status"] == 200
    await request(wrapped, "/template/7")
    assert [event.data["endpoint"] for event in captured.of("api_request")] == ["named", "/template/{id}"]
    captured.clear()
    await request(app, "/named/7", "HEAD")
    [event] = captured.events
    assert (event.data["method"], event.data["endpoint"], event.data["status_code"]) == ("HEAD", "named", 200)


async def test_as_an_endpoint_of_fastapi(captured: CapturedEvents) -> None:
    app = FastAPI()

    @capture_query(captured.client, "select", "users")
    async def dependency() -> AsyncIterator[str]:
        yield "ada"

    @app.get("/items/{number}")
    @capture_errors(captured.client)
    @capture_request(captured.client)
    async def item(request: Request, number: int, user: str = Depends(dependency)) -> dict[str, Any]:
        return {"number": number, "user": user}

    @app.get("/plain/{number}")
    @capture_request(captured.client)
    def plain_item(number: int) -> dict[str, int]:
        return {"number": number}

    assert body(await request(app, "/items/7")) == {"number": 7, "user": "ada"}
    assert (await request(app, "/items/x"))[0]["status"] == 422
    assert body(await request(app, "/plain/8")) == {"number": 8}
    assert [event.data["method"] for event in captured.of("api_request")] == ["GET", "_OTHER"]
    assert len(captured.of("database_query")) >= 1


async def test_the_middleware_does_not_report_it_again(captured: CapturedEvents) -> None:
    @capture_errors(captured.client)
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("once")

    with pytest.raises(RuntimeError):
        await request(AnalyticsMiddleware(app, client=captured.client), "/")
    assert len(captured.of("application_error")) == 1
    assert len(captured.of("api_request")) == 1
