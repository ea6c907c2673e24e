"""The contract on Starlette, and what is Starlette's own: mounts, hosts, error handlers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.frameworks.contract import FrameworkContract, raise_heavy, raise_unforeseen, report, say_who


class TestStarlette(FrameworkContract):
    def application(self, *routes: tuple[str, str]) -> Any:
        return Starlette(routes=[Route(path, getattr(self, name)) for path, name in routes])

    def add(self, *routes: tuple[str, str]) -> Any:
        from asgi_analytics import AnalyticsMiddleware

        app = self.application(*routes)
        app.add_middleware(AnalyticsMiddleware, client=self.client)
        return app

    async def hello(self, request: Request) -> Response:
        return PlainTextResponse("hello")

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
