"""The dashboard in a real browser, over a month of a shop's life: every page and control, by mouse and keyboard."""

from __future__ import annotations

import asyncio
import csv
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from asgi_analytics.reading import AnalyticsReader
from asgi_analytics.web.dashboard import create_dashboard_app
from tests.browser.looking import opened, violations
from tests.browser.shop import HOSTILE, Served, hostile_events, load_history
from tests.conftest import SERVERS
from tests.kit.databases import Database, free_port
from tests.kit.servers import Servers
from tests.reading.happened import insert

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGES = {
    "overview": "?range=30d&compare=1",
    "api": "api?range=30d",
    "endpoint": "api?range=30d&endpoint=/products/{product_id}/buy&method=POST",
    "errors": "errors?range=30d&compare=1",
    "database": "database?range=30d",
    "web": "web?range=30d&compare=1&from=utm_source&with=browser",
    "sessions": "sessions?range=30d",
    "funnels": "funnels?range=30d&name=checkout&breakdown=data.plan",
    "who": "funnels?range=30d&name=checkout&step_number=2&dropped=1",
    "retention": "retention?range=30d&period=week",
    "events": "events?range=30d",
    "user": "user",
    "metrics": "metrics?range=30d",
    "metric": "metrics?range=7d&name=delivery",
    "pipeline": "pipeline",
}
OF_THE_THEME = {"type": "rule", "values": ["color-contrast", "target-size", "scrollable-region-focusable"]}
"""What another theme or width can change."""
SHIFTS = """() => new Promise((resolve) => {
  let sum = 0;
  new PerformanceObserver((list) => { for (const one of list.getEntries()) sum += one.value; })
    .observe({ type: "layout-shift", buffered: true });
  requestAnimationFrame(() => requestAnimationFrame(() => resolve(sum)));
})"""


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=SERVERS.available[:1])
async def served(request: pytest.FixtureRequest, servers: Servers) -> AsyncIterator[Served]:
    """Serve dashboards over one filled database."""
    server = servers.shared(request.param)
    database = Database(server, server.create(template=server.template()))
    await load_history().fill(database.dsn, scale=0.2)
    connection = await database.connect()
    await insert(connection, hostile_events())
    await database.close()
    async with AnalyticsReader.from_url(database.dsn) as reader:
        inner = Starlette(
            routes=[Mount("/inner", create_dashboard_app(reader, authorize="t0ken", change_tokens=["t0ken"]))]
        )
        routes = [Mount("/open", create_dashboard_app(reader, authorize="loopback")), Mount("/outer", inner)]
        port = free_port()
        running = uvicorn.Server(
            uvicorn.Config(Starlette(routes=routes), port=port, log_level="error", timeout_graceful_shutdown=1)
        )
        task = asyncio.create_task(running._serve())
        while not running.started:  # uvicorn has no event for it
            await asyncio.sleep(0.01)
        yield Served(f"http://127.0.0.1:{port}", reader)
        running.should_exit = True
        await task
    server.drop(database.name)


def is_quiet(page: Any, url: str) -> bool:
    """Tell whether a page said nothing, and asked nobody else."""
    assert page.said == []
    origin = re.match(r"https?://[^/]+/", url)
    assert origin is not None
    return all(one.startswith(origin[0]) for one in page.asked)


@pytest.mark.parametrize(("theme", "width"), [("light", 1440), ("dark", 390)])
async def test_every_page_is_quiet_still_and_accessible(browser: Any, served: Served, theme: str, width: int) -> None:
    page = await opened(
        browser, served.open, color_scheme=theme, viewport={"width": width, "height": 900}, reduced_motion="reduce"
    )
    for name, path in PAGES.items():
        answer = await page.goto(served.open + path)
        assert answer.status == 200, name
        assert await page.locator(".panel.error").count() == 0, (
            name,
            await page.locator(".panel.error").all_inner_texts(),
        )
        for figure in await page.locator("figure.plot").all():
            assert await figure.locator("canvas").count() == 1, name
        for panel in await page.locator(".panel.table:has(tbody), .panel.chart:has(tbody)").all():
            assert await panel.locator("a[download]").count() == 1, (name, await panel.inner_text())
        assert await page.evaluate(SHIFTS) == 0, name
        assert await page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, name
        assert await violations(page, None if theme == "light" else OF_THE_THEME) == [], name
        assert is_quiet(page, served.open), name
    await page.context.close()


async def test_hostile_data_is_shown_as_text(browser: Any, served: Served) -> None:
    page = await opened(browser, served.open)
    for path in ("", "api", "errors", "database", "web", "sessions", "events",
                 "funnels?step1=x&breakdown=" + HOSTILE,
                 "user?user_id=" + HOSTILE, "retention?target_event=" + HOSTILE,
                 "events?endpoint=" + HOSTILE):  # fmt: skip
        await page.goto(served.open + path)
        assert await page.locator("main img, main script").count() == 0
        assert await page.locator("main [onerror]").count() == 0
        assert "{{7*7}}" in await page.content() or path in ("retention",), path
    await page.goto(served.open + "errors")
    await page.get_by_role("link", name=HOSTILE).first.click()
    assert await page.locator("ol.frames").inner_text() == f"{HOSTILE} {HOSTILE}:1"
    assert is_quiet(page, served.open)
    await page.context.close()


async def test_the_controls_change_the_url_and_what_is_shown(browser: Any, served: Served) -> None:
    page = await opened(browser, served.open + "api")
    before = await page.locator(".range").inner_text()
    await page.locator("[name=range]").select_option("30d")
    await page.wait_for_url("**range=30d**")
    assert await page.locator(".range").inner_text() != before
    await page.get_by_label("Compare").check()
    await page.wait_for_url("**compare=1**")

    await page.get_by_text("Filters", exact=True).click()
    await page.get_by_label("Service").fill("shop")
    await page.get_by_label("Service").press("Enter")
    await page.wait_for_url("**service=shop**")
    assert "environment=" not in page.url  # what is empty stays out of the URL
    await page.get_by_label("Time zone").fill("Asia/Kolkata")
    await page.get_by_label("Time zone").press("Enter")
    await page.wait_for_url("**timezone=Asia**")
    assert "Asia/Kolkata" in await page.locator(".range").inner_text()

    await page.get_by_role("link", name="Errors", exact=True).click()
    assert "service=shop" in page.url  # what is looked at goes along
    await page.locator("[name=range]").select_option("custom")
    today = datetime.now(UTC).date()
    await page.locator("[name=start]").fill(str(today - timedelta(days=9)))
    await page.locator("[name=end]").fill(str(today))
    await page.wait_for_url(f"**end={today}**")
    assert (await page.locator(".panel.error").count()) == 0

    await page.get_by_role("button", name="Dark").click()
    assert await page.evaluate("getComputedStyle(document.body).colorScheme") == "dark"
    await page.reload()
    assert await page.evaluate("getComputedStyle(document.body).colorScheme") == "dark"
    assert is_quiet(page, served.open)
    await page.context.close()


async def test_the_keyboard_is_enough(browser: Any, served: Served) -> None:
    page = await opened(browser, served.open)
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.className") == "skip"
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.closest('main') !== null")

    await page.locator("button.what").first.focus()
    await page.keyboard.press("Enter")
    assert await page.locator(":popover-open").count() == 1
    await page.keyboard.press("Escape")
    assert await page.locator(":popover-open").count() == 0
    await page.locator(".numbers summary").first.focus()
    await page.keyboard.press("Enter")
    row = page.locator(".numbers[open] tbody a").first
    await row.focus()
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/api**range=custom**")
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    for _ in range(12):
        await page.keyboard.press("Tab")
        assert await page.evaluate(outline) != "none"
    await page.context.close()


async def test_a_chart_leads_to_the_rows_behind_it(browser: Any, served: Served) -> None:
    page = await opened(browser, served.open + "errors?range=30d")
    box = await page.locator(".u-over").bounding_box()
    assert box is not None
    await page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
    await page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 20)
    await page.wait_for_url("**/events**type=application_error**")
    await page.go_back()
    await page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + 20)
    await page.mouse.down()
    await page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 20, steps=4)
    await page.mouse.up()
    await page.wait_for_url("**/errors**range=custom**start=**")
    assert await page.locator(".panel.error").count() == 0
    await page.context.close()


async def test_a_head_sorts_its_table(browser: Any, served: Served) -> None:
    page = await opened(browser, served.open + "api?range=30d&compare=1")
    table = page.get_by_role("region", name="Endpoints", exact=True)

    async def column(number: int) -> list[str]:
        return [await one.inner_text() for one in await table.locator(f"tbody td:nth-child({number}) code").all()]

    async def figures(number: int) -> list[float]:
        found = await table.locator(f"tbody td:nth-child({number}) data").all()
        return [float(await one.get_attribute("value")) for one in found]

    assert await figures(2) == sorted(await figures(2), reverse=True)
    names = await column(1)
    await table.get_by_role("button", name="p50").click()
    assert await figures(3) == sorted(await figures(3), reverse=True)
    assert await table.locator("th[aria-sort=descending]").inner_text() == "p50 ms"
    await table.get_by_role("button", name="p50").press("Enter")
    assert await figures(3) == sorted(await figures(3))
    await table.get_by_role("button", name="Endpoint", exact=True).click()
    assert sorted(await column(1)) == sorted(names)
    by_name = await page.evaluate("names => names.toSorted((one, other) => one.localeCompare(other))", names)
    assert await column(1) == by_name
    assert await table.locator("th[aria-sort]").count() == 1
    await page.context.close()


async def test_a_table_is_saved_as_it_is_shown(browser: Any, served: Served) -> None:
    for path, name, columns in (
        ("events?range=30d&type=api_request", "Over time", 2),
        (PAGES["endpoint"], "Durations", 4),
        (PAGES["endpoint"], "Its errors", 7),
        ("metrics?range=30d", "Metrics", 5),
        ("api?range=30d&compare=1", "Durations", 5),
        ("web?range=30d", "Ways through the pages", 4),
        ("metrics?range=30d", "delivery", 4),
    ):
        page = await opened(browser, served.open + path)
        panel = page.get_by_role("region", name=name, exact=True).first
        async with page.expect_download() as download:
            await panel.get_by_role("link", name=f"{name} as CSV").click()
        text = (await (await download.value).path()).read_text()
        head, *rows = csv.reader(text.splitlines())
        assert len(head) == columns
        assert len(rows) == await panel.locator(".scroll tbody tr").count() > 0
        values = [
            await one.get_attribute("value")
            for one in await panel.locator(".scroll tbody tr").first.locator("data").all()
        ]
        assert set(values) <= set(rows[0])
        await page.context.close()


async def test_the_tables_are_there_without_script(browser: Any, served: Served) -> None:
    page = await opened(browser, served.open + "api?range=30d", java_script_enabled=False)
    assert await page.locator("main table").count() >= 4
    assert await page.locator(".controls > button").is_visible()
    await page.get_by_text("As a table").first.click()
    assert await page.locator(".numbers tbody tr").first.is_visible()
    await page.context.close()


async def test_a_funnel_is_built_kept_followed_and_deleted(browser: Any, served: Served) -> None:
    page = await opened(browser, served.locked)
    await page.get_by_label("Token").fill("t0ken")
    await page.keyboard.press("Enter")
    await page.get_by_role("heading", name="Overview").wait_for()
    page.said.clear()  # the console shows the answer 401 of the login
    await page.goto(served.locked + "funnels?range=30d")
    for number, step in enumerate(["product_viewed", "cart_filled", "order_placed"], 1):
        await page.get_by_label(f"Step {number}").fill(step)
    await page.get_by_role("button", name="Add a step").click()
    assert await page.get_by_label("Step 4").count() == 1
    await page.locator("[name=field3]").fill("data.plan")
    await page.locator("[name=operator3]").select_option("is_not")
    await page.locator("[name=value3]").fill("free")
    await page.get_by_role("button", name="Show the funnel").click()
    counts = [int(await one.get_attribute("value")) for one in await page.locator(".stages data").all()]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] > 0

    name = "paid & <done>"
    await page.get_by_label("Keep it as").fill(name)
    await page.get_by_role("button", name="Keep").click()
    await page.wait_for_url("**name=paid**")  # it is kept by now
    await page.goto(served.locked + "funnels?range=30d")
    await page.get_by_role("link", name=name).click()
    await page.get_by_role("link", name="dropped out").first.click()
    dropped = counts[0] - counts[1]
    assert f"{dropped:,} in all" in await page.locator("main").inner_text()
    kept = await served.reader.query_funnel_conversions(
        name, 2, True, start=datetime.now(UTC).date() - timedelta(days=29)
    )
    assert len(kept) == dropped
    await page.go_back()
    await page.get_by_role("button", name=f"Delete the funnel {name}").click()
    assert name not in [one.name for one in await served.reader.list_funnels()]
    assert is_quiet(page, served.url + "/")
    await page.context.close()


async def test_below_two_prefixes_one_logs_in_and_a_session_ends(browser: Any, served: Served) -> None:
    page = await opened(browser, served.locked + "errors?range=30d&live=1")
    assert await violations(page) == []
    await page.get_by_label("Token").fill("wrong")
    await page.keyboard.press("Enter")
    await page.get_by_role("alert").wait_for()
    page.said.clear()  # the console shows each answer 401
    await page.get_by_label("Token").fill("t0ken")
    await page.keyboard.press("Enter")
    await page.wait_for_url(served.locked + "errors?range=30d&live=1")
    [cookie] = await page.context.cookies()
    assert (cookie["path"], cookie["httpOnly"], cookie["sameSite"]) == ("/outer/inner", True, "Strict")
    assert await page.locator("canvas").count() == 1
    async with page.expect_download() as download:
        await page.locator("a[download]").first.click()
    assert Path(await (await download.value).path()).read_text().startswith("event,")

    async with page.expect_response(lambda answer: answer.request.resource_type == "fetch"):  # it stays fresh by itself
        pass
    assert is_quiet(page, served.url + "/")
    await page.context.clear_cookies()
    await page.get_by_role("heading", name="Log in").wait_for(timeout=15_000)
    await page.context.close()


async def test_numbers_are_those_of_the_api(browser: Any, served: Served) -> None:
    start = datetime.now(UTC).date() - timedelta(days=29)
    page = await opened(browser, served.open + "api?range=30d")
    rows = sorted(
        await served.reader.get_endpoint_latency(bucket="all", start=start), key=lambda row: -row.request_count
    )
    table = page.get_by_role("region", name="Endpoints", exact=True)
    shown = await table.locator("tbody tr").all()
    assert len(shown) == len(rows) > 5
    for found, row in list(zip(shown, rows, strict=True))[:4]:
        values = [float(await one.get_attribute("value")) for one in await found.locator("td data").all()]
        assert values[:7] == [
            row.request_count, row.p50_duration_ms, row.p95_duration_ms, row.p99_duration_ms, row.error_4xx_count,
            row.error_5xx_count, row.error_rate,
        ]  # fmt: skip
    await page.goto(served.open + "web?range=30d")
    summary = await served.reader.get_session_summary(start=start)
    values = [float(await one.get_attribute("value")) for one in await page.locator(".stats data").all()]
    assert values == [
        summary.visitors, summary.sessions, summary.page_views, summary.page_views_per_session,
        summary.median_duration_ms, summary.bounce_rate,
    ]  # fmt: skip
    await page.context.close()
