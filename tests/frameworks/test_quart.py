"""The contract on Quart, and what is Quart's own: blueprints, background tasks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from quart import Quart, Response, abort

from asgi_analytics import AnalyticsMiddleware
from tests.frameworks.contract import FrameworkContract, raise_heavy, raise_unforeseen, report, say_who


class TestQuart(FrameworkContract):
    def application(self, *routes: tuple[str, str]) -> Any:
        app = Quart(__name__)
        app.logger.disabled = True
        for path, name in routes:
            app.add_url_rule(self.template(path), name, getattr(self, name))
        return app

    def add(self, *routes: tuple[str, str]) -> Any:
        app = self.application(*routes)
        app.asgi_app = AnalyticsMiddleware(app.asgi_app, client=self.client)
        return app

    def template(self, path: str) -> str:
        return path.replace("{", "<").replace("}", ">")

    async def hello(self, item: str = "") -> str:
        return "hello"

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
