"""Looking at a page: what it says and asks, and what axe finds."""

from __future__ import annotations

from typing import Any

import pytest

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


async def opened(browser: Any, url: str, **options: Any) -> Any:
    """Open a page that collects what its console says, and what it asks of whom."""
    context = await browser.new_context(**options)
    page = await context.new_page()
    page.said, page.asked = [], []
    # Not what it says to developers only, for instance that a login without a user name is unusual.
    page.on("console", lambda message: page.said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("dialog", lambda dialog: page.said.append("dialog"))
    page.on("request", lambda request: page.asked.append(request.url))
    await page.goto(url)
    return page


async def violations(page: Any, only: dict[str, Any] | None = None) -> list[str]:
    """Return what axe finds, by all rules of WCAG 2.2 AA or some."""
    axe = pytest.importorskip("axe_playwright_python.async_playwright").Axe()
    found = await axe.run(page, options={"runOnly": only or RULES})
    return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found.response["violations"]]
