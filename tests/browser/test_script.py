"""The script of the collector in a real browser: what it sends, from which pages, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route

from asgi_analytics import AnalyticsMiddleware, PageViews
from asgi_analytics.testing import CapturedEvents
from asgi_analytics.web.collector import create_collector_app
from tests.browser.conftest import Serve
from tests.kit.fakes import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

POLICY = "default-src 'none'; script-src 'self'; connect-src 'self'"
PAGE = """<!doctype html><title>A page</title>
<script defer src="/insights/s.js"></script>
<button id="buy" data-event="cart_filled"><b>Buy</b></button>
<a id="away" href="http://localhost:1/x?secret=1" target="nowhere">away</a>
<a id="inside" href="/plans/8">inside</a>"""


class Shop:
    """An application with the collector, with or without the page views of the middleware."""

    def __init__(self, analytics: CapturedEvents, *, page_views: PageViews | None, html: str = PAGE) -> None:
        self.analytics = analytics
        self.html = html
        collector = create_collector_app(analytics.client, events=["cart_filled", "video_played"])
        routes = [Route("/", self.page), Route("/plans/{plan}", self.page), Mount("/insights", collector)]
        self.app = AnalyticsMiddleware(
            Starlette(routes=routes), client=analytics.client, page_views=page_views, exclude=["/insights/*"]
        )

    async def page(self, request: Request) -> HTMLResponse:
        return HTMLResponse(self.html, headers={"Content-Security-Policy": POLICY})

    def of(self, event_type: str) -> list[Any]:
        return [event.data for event in self.analytics.of(event_type)]

    def visitors(self) -> set[str | None]:
        return {(event.context or {}).get("visitor") for event in self.analytics.of("page_view")}

    async def wait(self, event_type: str, number: int = 1) -> list[Any]:
        await eventually(lambda: len(self.of(event_type)) >= number)
        assert len(self.of(event_type)) == number
        return self.of(event_type)


@pytest.fixture
def alone(analytics: CapturedEvents) -> Shop:
    return Shop(analytics, page_views=None)


@pytest.fixture
def beside(analytics: CapturedEvents) -> Shop:
    return Shop(analytics, page_views=PageViews())


async def opened(browser: Any, url: str, **options: Any) -> Any:
    """Open a page, and collect what its console says."""
    context = await browser.new_context(**options)
    page = await context.new_page()
    page.said = []
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    await page.goto(url)
    await page.wait_for_function("window.analytics")
    return page


async def test_alone_it_sends_the_first_view(browser: Any, serve: Serve, alone: Shop) -> None:
    url = await serve(alone.app)
    page = await opened(browser, f"{url}/plans/7?utm_source=News&secret=1")
    assert await alone.wait("page_view") == [{"page": "/plans/{id}", "channel": "other", "utm_source": "news"}]
    assert page.said == []


async def test_it_tells_where_a_visitor_came_from(browser: Any, serve: Serve, alone: Shop) -> None:
    url = await serve(alone.app)
    page = await opened(browser, url.replace("127.0.0.1", "localhost"))
    await page.evaluate(f"location.href = '{url}/plans/7'")
    views = await alone.wait("page_view", 2)
    assert views[1] == {"page": "/plans/{id}", "channel": "referral", "referrer": "localhost"}


async def test_beside_the_middleware_it_adds_the_steps_of_a_router_only(
    browser: Any, serve: Serve, beside: Shop
) -> None:
    page = await opened(browser, await serve(beside.app) + "/plans/7")
    assert beside.of("page_view") == [{"page": "/plans/{plan}", "channel": "direct"}]
    await page.evaluate("history.pushState({}, '', '/plans/9/edit')")
    await page.evaluate("history.replaceState({scroll: 7}, '', '/plans/9/edit#part')")  # the same page
    views = await beside.wait("page_view", 2)
    assert views[1] == {"page": "/plans/{id}/edit", "channel": "direct"}
    await page.go_back()
    assert (await beside.wait("page_view", 3))[2]["page"] == "/plans/{id}"
    assert len(beside.visitors()) == 1
    assert page.said == []


async def test_it_tells_how_long_each_page_was_visible(browser: Any, serve: Serve, beside: Shop) -> None:
    page = await opened(browser, await serve(beside.app) + "/plans/7")
    await page.wait_for_timeout(300)
    await page.evaluate("history.pushState({}, '', '/about')")
    [first] = await beside.wait("page_engaged")
    assert first["page"] == "/plans/{id}"
    assert 250 <= first["visible_ms"] < 5000
    show = (
        "s => { Object.defineProperty(document, 'visibilityState', {get: () => s, configurable: true});"
        " document.dispatchEvent(new Event('visibilitychange')); }"
    )
    await page.wait_for_timeout(200)
    await page.evaluate(show, "hidden")
    second = (await beside.wait("page_engaged", 2))[1]
    assert second["page"] == "/about"
    assert 150 <= second["visible_ms"] < 5000
    await page.wait_for_timeout(600)  # not visible
    await page.evaluate(show, "visible")
    await page.wait_for_timeout(200)
    await page.goto("about:blank")
    third = (await beside.wait("page_engaged", 3))[2]
    assert 150 <= third["visible_ms"] < 600


async def test_the_route_that_a_page_names_is_its_page(browser: Any, serve: Serve, analytics: CapturedEvents) -> None:
    html = PAGE.replace('s.js"', 's.js" data-page="/plans/{plan}"')
    shop = Shop(analytics, page_views=PageViews(), html=html)
    page = await opened(browser, await serve(shop.app) + "/plans/seven")
    await page.wait_for_timeout(50)
    await page.evaluate("history.pushState({}, '', '/plans/7')")
    assert (await shop.wait("page_engaged"))[0]["page"] == "/plans/{plan}"
    assert (await shop.wait("page_view", 2))[1]["page"] == "/plans/{id}"


async def test_clicks(browser: Any, serve: Serve, alone: Shop) -> None:
    page = await opened(browser, await serve(alone.app))
    await page.click("#buy b")
    assert await alone.wait("cart_filled") == [{"page": "/"}]
    await page.evaluate("document.querySelector('#away').addEventListener('click', e => e.preventDefault())")
    await page.click("#away")
    assert await alone.wait("outbound_link_clicked") == [{"page": "/", "host": "localhost"}]
    await page.click("#inside")
    await alone.wait("page_view", 2)
    assert len(alone.of("outbound_link_clicked")) == 1


async def test_what_a_page_tracks(browser: Any, serve: Serve, alone: Shop) -> None:
    page = await opened(browser, await serve(alone.app))
    await page.evaluate("analytics.track('video_played', {seconds: 7, title: 'a\\u0000b'})")
    await page.evaluate("analytics.track('not_allowed', {seconds: 7})")
    await page.evaluate("analytics.track('video_played')")
    events = await alone.wait("video_played", 2)
    assert {"page": "/", "seconds": 7, "title": "a\ufffdb"} in events
    assert alone.of("not_allowed") == []


@pytest.mark.parametrize(
    "beacon",
    ["undefined", "() => false", "function () { throw new TypeError('blocked'); }"],
    ids=["missing", "full", "throws"],
)
async def test_without_beacons_it_fetches(browser: Any, serve: Serve, alone: Shop, beacon: str) -> None:
    url = await serve(alone.app)
    context = await browser.new_context()
    await context.add_init_script(f"Object.defineProperty(navigator, 'sendBeacon', {{value: {beacon}}})")
    page = await context.new_page()
    await page.goto(url)
    assert await alone.wait("page_view") == [{"page": "/", "channel": "direct"}]


async def test_nothing_is_stored_in_the_browser(browser: Any, serve: Serve, alone: Shop) -> None:
    page = await opened(browser, await serve(alone.app))
    await alone.wait("page_view")
    stored = "[document.cookie, localStorage.length, sessionStorage.length, (await indexedDB.databases()).length]"
    assert await page.evaluate(f"(async () => {stored})()") == ["", 0, 0, 0]
    assert await page.context.cookies() == []


async def test_a_browser_that_a_program_drives_sends_nothing(browser: Any, serve: Serve, alone: Shop) -> None:
    context = await browser.new_context()
    await context.add_init_script("Object.defineProperty(navigator, 'webdriver', {get: () => true})")
    page = await context.new_page()
    await page.goto(await serve(alone.app))
    await page.evaluate("analytics.track('video_played')")
    await page.click("#buy")
    await page.evaluate("history.pushState({}, '', '/about')")
    await page.wait_for_timeout(200)
    assert [event.event_type for event in alone.analytics.events] == ["api_request"]


async def test_markup_that_takes_the_scripts_place_sends_nothing_elsewhere(
    browser: Any, serve: Serve, analytics: CapturedEvents
) -> None:
    shop = Shop(analytics, page_views=None, html='<img name="currentScript" src="http://localhost:1/x/">' + PAGE)
    page = await (await browser.new_context()).new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(f"{request.method} {request.url}"))
    await page.goto(await serve(shop.app))
    await page.wait_for_function("window.analytics")
    await page.evaluate("analytics.track('cart_filled')")
    await page.wait_for_timeout(200)
    assert not [one for one in asked if one.startswith("POST")]


async def test_who_asks_not_to_be_followed_is_counted_without_a_visitor(
    browser: Any, serve: Serve, beside: Shop
) -> None:
    page = await opened(browser, await serve(beside.app), extra_http_headers={"Sec-GPC": "1"})
    await page.evaluate("history.pushState({}, '', '/about')")
    await beside.wait("page_view", 2)
    assert beside.visitors() == {None}


@pytest.mark.parametrize(
    "attack",
    [
        "fetch(url, {method: 'POST', mode: 'no-cors', body})",
        "fetch(url, {method: 'POST', body}).catch(() => 0)",
        "navigator.sendBeacon(url, body)",
        "navigator.sendBeacon(url, new Blob([body], {type: 'text/plain'}))",
        "const f = document.createElement('form'); f.method = 'post'; f.enctype = 'text/plain'; f.action = url;"
        " const i = document.createElement('input'); i.name = body; f.append(i); f.target = 'inner';"
        " const w = document.createElement('iframe'); w.name = 'inner'; document.body.append(w, f); f.submit();",
        "const s = document.createElement('script'); s.src = url.replace(/e$/, 's.js'); document.body.append(s);"
        " return new Promise(done => s.onload = () => { analytics.track('cart_filled'); done(); })",
    ],
    ids=["no-cors", "cors", "beacon", "blob", "form", "script"],
)
async def test_a_page_of_another_origin_gets_nothing_in(browser: Any, serve: Serve, alone: Shop, attack: str) -> None:
    async def hostile(request: Request) -> HTMLResponse:
        return HTMLResponse("<!doctype html><title>hostile</title><body>")

    url = await serve(alone.app)
    evil = (await serve(Starlette(routes=[Route("/", hostile)]))).replace("127.0.0.1", "localhost")
    page = await (await browser.new_context()).new_page()
    await page.goto(evil)
    body = '{"event": "cart_filled", "page": "/"}'
    async with page.expect_event("request"):
        await page.evaluate(f"([url, body]) => {{ {attack} }}", [f"{url}/insights/e", body])
    await page.wait_for_timeout(300)
    assert {event.event_type for event in alone.analytics.events} <= {"api_request"}
