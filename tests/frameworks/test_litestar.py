"""The contract on Litestar, and what is Litestar's own: layers, its exception handlers, mounts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from litestar import Litestar, Request, get
from litestar.exceptions import HTTPException
from litestar.middleware import DefineMiddleware
from litestar.response import Stream

from asgi_analytics import AnalyticsMiddleware
from tests.frameworks.contract import FrameworkContract, raise_heavy, raise_unforeseen, report, say_who


class TestLitestar(FrameworkContract):
    def application(self, *routes: tuple[str, str], **options: Any) -> Any:
        handlers = [getattr(self, name)(path.replace("}", ":str}")) for path, name in routes]
        return Litestar(handlers, logging_config=None, openapi_config=None, **options)

    def add(self, *routes: tuple[str, str]) -> Any:
        middleware: Any = AnalyticsMiddleware  # Litestar has types of its own for ASGI messages
        return self.application(*routes, middleware=[DefineMiddleware(middleware, client=self.client)])

    def hello(self, path: str) -> Any:
        @get(path, media_type="text/plain")
        async def handler() -> str:
            return "hello"

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
