"""One framework mounted in another: the mount's prefix and the inner template make the endpoint."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from litestar import Litestar, get
from quart import Quart
from starlette.applications import Starlette
from starlette.routing import Mount

from asgi_analytics import AnalyticsMiddleware
from asgi_analytics.testing import CapturedEvents
from tests.instrumentation.asgi_app import http_scope, run


def fastapi() -> Any:
    app = FastAPI()
    app.add_api_route("/a/{b}", lambda b: b)
    return app


def litestar() -> Any:
    @get("/a/{b:str}")
    async def page() -> str:
        return "page"

    return Litestar([page], logging_config=None, openapi_config=None)


def quart() -> Any:
    app = Quart(__name__)

    @app.get("/a/<b>")
    async def page(b: str) -> str:
        return "page"

    return app


@pytest.mark.parametrize(
    ("inner", "template"), [(fastapi, "/a/{b}"), (litestar, "/a/{b}"), (quart, "/a/<b>")], ids=lambda one: str(one)[:20]
)
async def test_a_framework_in_a_mount(analytics: CapturedEvents, inner: Any, template: str) -> None:
    app = AnalyticsMiddleware(Starlette(routes=[Mount("/t/{tenant}", inner())]), client=analytics.client)
    for path in ("/t/acme/a/1", "/t/acme/nowhere"):
        await run(app, http_scope(path))

    found, missed = (event.data for event in analytics.of("api_request"))
    assert (found["status_code"], found["endpoint"]) == (200, "/t/{tenant}" + template)
    assert missed["status_code"] == 404
    assert missed["endpoint"] in (None, "/t/{tenant}/{path}")
