"""A real Chromium, and an application that it looks at. Skipped, with the reason, where there is none."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio
import uvicorn

from tests.kit.databases import free_port

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

Serve = Callable[[Any], Awaitable[str]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Any]:
    """Give a Chromium that does not say that a program drives it; each ``new_page()`` knows nothing of the others."""
    playwright = pytest.importorskip(
        "playwright.async_api", reason="Playwright is not installed: pip install playwright"
    )
    if CHROMIUM is None:
        pytest.skip("there is no Chromium: apt install chromium")
    async with playwright.async_playwright() as driver:
        arguments = ["--no-sandbox", "--disable-blink-features=AutomationControlled"]
        chromium = await driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield chromium
        await chromium.close()


@pytest_asyncio.fixture(loop_scope="module")
async def serve() -> AsyncIterator[Serve]:
    """Give ``await serve(app)``: serves an application by uvicorn, and returns its URL, ``http://127.0.0.1:…``."""
    async with AsyncExitStack() as stack:

        async def serve(app: Any) -> str:
            port = free_port()
            config = uvicorn.Config(app, port=port, log_level="warning", timeout_graceful_shutdown=1)
            server = uvicorn.Server(config)
            task = asyncio.create_task(server._serve())

            async def end() -> None:
                server.should_exit = True
                await task

            stack.push_async_callback(end)
            while not server.started:  # uvicorn has no event for it
                await asyncio.sleep(0.01)
            return f"http://127.0.0.1:{port}"

        yield serve
