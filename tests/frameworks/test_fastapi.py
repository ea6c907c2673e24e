"""The contract on FastAPI, and what is FastAPI's own: included routers, dependencies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, HTTPException
from fastapi.responses import HTMLResponse, PlainTextResponse, StreamingResponse

from asgi_analytics import AnalyticsMiddleware
from tests.frameworks.contract import (
    PAGE,
    FrameworkContract,
    fill_cart,
    raise_heavy,
    raise_unforeseen,
    report,
    say_who,
)


class TestFastAPI(FrameworkContract):
    def application(self, *routes: tuple[str, str]) -> Any:
        app = FastAPI()
        for path, name in routes:
            app.add_api_route(path, getattr(self, name), response_class=PlainTextResponse)
        return app

    def add(self, *routes: tuple[str, str]) -> Any:
        app = self.application(*routes)
        app.add_middleware(AnalyticsMiddleware, client=self.client, **self.options)
        return app

    async def hello(self) -> str:
        return "hello"

    async def page(self) -> HTMLResponse:
        fill_cart(self.client)
        return HTMLResponse(PAGE)

    async def not_found(self, item: str) -> str:
        raise HTTPException(404)

    async def refused(self) -> str:
        raise HTTPException(503)

    async def boom(self) -> None:
        raise_unforeseen()

    async def heavy(self) -> None:
        raise_heavy()

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

    async def stream(self) -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield b"0123456789"
                await asyncio.sleep(0.006)

        return StreamingResponse(parts())
