"""Which requests show a page, and what is stored of them: named fields, and nothing else of headers and query."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from asgi_analytics import AnalyticsMiddleware, PageViews, events
from asgi_analytics.errors import ConfigError
from asgi_analytics.events import Event, NamedEvent
from asgi_analytics.testing import CapturedEvents, capture_events
from tests.instrumentation.asgi_app import (
    App,
    Receive,
    Scope,
    Send,
    body,
    get,
    run,
    sending,
    start,
    websocket_scope,
    wrapped,
)

HTML = [(b"content-type", b"text/html; charset=utf-8")]
BROWSER = [
    (b"host", b"shop.example"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    (b"sec-fetch-dest", b"document"),
]


def page(status: int = 200, headers: Any = HTML) -> App:
    return sending(start(status, headers=headers), body(b"<p>"))


async def view(analytics: CapturedEvents, app: App | None = None, options: Any = None, **more: Any) -> Any:
    """Run a GET, and return the page view that it made, or None."""
    analytics.clear()
    await get(
        wrapped(app or page(), analytics, page_views=PageViews(**(options or {}))), **({"headers": BROWSER} | more)
    )
    views = analytics.of("page_view")
    assert len(views) <= 1
    assert len(analytics.of("api_request")) == 1
    return views[0] if views else None


@pytest.mark.parametrize("status", [200, 201, 206, 304])
async def test_a_page_is_html_with_a_status_of_success_or_304(analytics: CapturedEvents, status: int) -> None:
    assert await view(analytics, page(status)) is not None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 401, 404, 500])
async def test_any_other_status_is_no_page(analytics: CapturedEvents, status: int) -> None:
    assert await view(analytics, page(status)) is None


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"content-type", b"application/json")],
        [(b"content-type", b"text/plain")],
        [(b"content-type", b"text/xml")],
    ],
)
async def test_anything_but_html_is_no_page(analytics: CapturedEvents, headers: Any) -> None:
    assert await view(analytics, page(headers=headers)) is None


async def test_the_case_of_the_header_does_not_matter(analytics: CapturedEvents) -> None:
    assert await view(analytics, page(headers=[(b"Content-Type", b"TEXT/HTML;charset=utf-8")])) is not None


async def test_a_304_without_a_type_is_a_page_if_a_document_was_asked_for(analytics: CapturedEvents) -> None:
    assert await view(analytics, page(304, [])) is not None
    assert await view(analytics, page(304, []), headers=BROWSER[:2]) is None


@pytest.mark.parametrize("method", ["HEAD", "POST", "OPTIONS", "PUT", "BREW"])
async def test_only_get_shows_a_page(analytics: CapturedEvents, method: str) -> None:
    assert await view(analytics, method=method) is None


@pytest.mark.parametrize(
    ("header", "is_page"),
    [
        ((b"sec-fetch-dest", b"document"), True),
        ((b"sec-fetch-dest", b"iframe"), False),
        ((b"sec-fetch-dest", b"empty"), False),
        ((b"sec-fetch-dest", b"image"), False),
        ((b"sec-purpose", b"prefetch"), False),
        ((b"sec-purpose", b"prefetch;prerender"), False),
        ((b"purpose", b"prefetch"), False),
        ((b"accept", b"text/html"), True),
    ],
)
async def test_what_the_browser_asks_for(analytics: CapturedEvents, header: Any, is_page: bool) -> None:
    found = await view(analytics, headers=[*BROWSER[:2], header])
    assert (found is not None) is is_page


async def test_an_excluded_request_is_no_view_and_a_websocket_is_none(analytics: CapturedEvents) -> None:
    async def chat(scope: Scope, receive: Receive, send: Send) -> None:
        analytics.client.track(events.track("cart_filled"))
        await send({"type": "websocket.accept", "headers": HTML})
        await send({"type": "websocket.close"})

    await get(wrapped(page(), analytics, page_views=PageViews(), exclude=["/"]), headers=BROWSER)
    assert analytics.events == []
    app = wrapped(chat, analytics, page_views=PageViews())
    await run(app, websocket_scope(headers=BROWSER), [{"type": "websocket.connect"}])
    assert [event.event_type for event in analytics.events] == ["cart_filled", "api_request"]
    assert all("visitor" not in (event.context or {}) for event in analytics.events)


async def test_where_a_view_came_from(analytics: CapturedEvents) -> None:
    found = await view(
        analytics,
        headers=[*BROWSER, (b"referer", b"https://user:pw@Blog.Example:8443/post/7?token=secret")],
        query_string=b"utm_source=News&utm_medium=email&utm_term=a%20b&password=secret",
    )
    assert found.data == {
        "referrer": "blog.example",
        "channel": "email",
        "utm_source": "news",
        "utm_medium": "email",
        "utm_term": "a b",
    }


@pytest.mark.parametrize(
    "referrer", [b"https://shop.example/cart", b"https://www.shop.example/", b"http://shop.example:81"]
)
async def test_the_own_host_is_no_referrer(analytics: CapturedEvents, referrer: bytes) -> None:
    assert (await view(analytics, headers=[*BROWSER, (b"referer", referrer)])).data == {"channel": "direct"}


async def test_the_path_is_stored_only_if_wanted(analytics: CapturedEvents) -> None:
    assert "url" not in (await view(analytics, path="/plans/7")).data
    assert (await view(analytics, options={"store_paths": True}, path="/plans/7")).data["url"] == "/plans/7"


async def test_user_session_and_request_are_those_of_the_request(analytics: CapturedEvents) -> None:
    app = wrapped(
        page(), analytics, page_views=PageViews(), user_id=lambda scope: "ada", session_id=lambda scope: "s-1"
    )
    await get(app, headers=[*BROWSER, (b"x-request-id", b"r-1")])
    [found], [request] = analytics.of("page_view"), analytics.of("api_request")
    assert (found.user_id, found.session_id) == (request.user_id, "s-1")
    assert found.context["request_id"] == "r-1"  # type: ignore[index]
    assert found.context["visitor"]  # type: ignore[index]
    assert found.event_id != request.event_id


async def test_a_visitor_is_told_by_address_agent_and_host(analytics: CapturedEvents) -> None:
    async def visitor(agent: bytes = b"a", host: bytes = b"shop.example", address: Any = ("10.0.0.1", 1)) -> str:
        headers = [(b"host", host), (b"user-agent", agent)]
        found = await view(analytics, headers=headers, client=address)
        return str(found.context["visitor"])

    first = await visitor()
    assert await visitor() == first
    assert await visitor(address=("10.0.0.1", 2)) == first
    assert await visitor(host=b"SHOP.example:8000") == first
    others = {await visitor(agent=b"b"), await visitor(host=b"blog.example"), await visitor(address=("10.0.0.2", 1))}
    assert len(others | {first}) == 4


async def test_without_an_address_there_is_no_visitor(analytics: CapturedEvents) -> None:
    assert "visitor" not in (await view(analytics, client=None)).context
    assert "visitor" not in (await view(analytics, options={"address": lambda scope: None})).context


async def test_who_asks_not_to_be_followed_is_counted_and_no_visitor(analytics: CapturedEvents) -> None:
    headers = [*BROWSER, (b"sec-gpc", b"1")]
    assert "visitor" not in (await view(analytics, headers=headers)).context
    assert "visitor" in (await view(analytics, headers=headers, options={"respect_gpc": False})).context


async def test_the_address_behind_a_proxy(analytics: CapturedEvents) -> None:
    def forwarded(scope: Scope) -> str | None:
        return dict(scope["headers"]).get(b"x-real-ip", b"").decode() or None

    def headers(address: bytes) -> Any:
        return [*BROWSER, (b"x-real-ip", address)]

    options = {"address": forwarded}
    first = await view(analytics, options=options, headers=headers(b"192.0.2.1"))
    again = await view(analytics, options=options, headers=headers(b"192.0.2.1"), client=("10.0.0.9", 1))
    other = await view(analytics, options=options, headers=headers(b"192.0.2.2"))
    assert first.context["visitor"] == again.context["visitor"] != other.context["visitor"]


@pytest.mark.parametrize("address", [lambda scope: 1 / 0, lambda scope: 7])
async def test_an_address_that_fails_costs_the_visitor_only(analytics: CapturedEvents, address: Any) -> None:
    found = await view(analytics, options={"address": address})
    assert found is not None
    assert "visitor" not in found.context


@pytest.mark.parametrize(
    ("value", "country"), [(b"DE", "DE"), (b"de", "DE"), (b"XX", None), (b"T1", None), (b"x<y", None), (b"", None)]
)
async def test_the_country_comes_from_the_header_that_is_named(
    analytics: CapturedEvents, value: bytes, country: str | None
) -> None:
    headers = [*BROWSER, (b"cf-ipcountry", value)]
    found = await view(analytics, options={"country_header": "CF-IPCountry"}, headers=headers)
    assert found.context.get("geo") == (country and {"country": country})
    assert "geo" not in (await view(analytics, headers=headers)).context


async def test_nothing_that_was_sent_is_in_the_events(analytics: CapturedEvents) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        analytics.client.track(events.track("cart_filled"))
        await page()(scope, receive, send)

    sent = ["SecretAgent/1.0", "203.0.113.77", "q=secretquery", "session=secretcookie", "secretpath", "secretreferrer"]
    headers = [
        (b"host", b"shop.example"),
        (b"user-agent", b"SecretAgent/1.0"),
        (b"cookie", b"session=secretcookie"),
        (b"referer", b"https://blog.example/secretreferrer"),
        (b"accept-language", b"tlh"),
    ]
    await view(
        analytics, app, headers=headers, query_string=b"q=secretquery", path="/secretpath", client=("203.0.113.77", 9)
    )
    text = json.dumps([[event.data, event.context] for event in analytics.events])
    assert not [one for one in [*sent, "tlh"] if one in text]


async def test_headers_that_are_no_headers_cost_the_view_only(analytics: CapturedEvents) -> None:
    found = await view(
        analytics, headers=[(b"host", b"\xff\xfe"), (b"user-agent", b"\x00\xff"), (b"referer", b"\xff://[")]
    )
    assert found.data == {"channel": "direct"}
    analytics.clear()
    del_query = {"query_string": None}
    assert await view(analytics, **del_query) is None


async def test_before_track_sees_a_page_view() -> None:
    seen: list[Event] = []

    def look(event: Event) -> Event | None:
        seen.append(event)
        return event

    with capture_events(before_track=look) as captured:
        found = await view(captured)
    named = [event for event in seen if isinstance(event, NamedEvent)]
    assert [event.event_type for event in named] == ["page_view"]
    assert found.data == named[0].properties == {"channel": "direct"}
    assert found.context["visitor"]


async def test_the_day_of_the_key_is_that_of_the_clients_clock() -> None:
    moment = datetime(2026, 1, 2, 12, tzinfo=UTC)
    with capture_events(clock=lambda: moment) as captured:
        first = await view(captured)
        again = await view(captured)
        moment = datetime(2026, 1, 3, 12, tzinfo=UTC)
        next_day = await view(captured)
    assert first.context["visitor"] == again.context["visitor"] != next_day.context["visitor"]


@pytest.mark.parametrize(
    "options", [{"address": "x-real-ip"}, {"store_paths": 1}, {"respect_gpc": "yes"}, {"country_header": b"x"}]
)
def test_a_wrong_option_is_refused(options: Any) -> None:
    with pytest.raises(ConfigError):
        PageViews(**options)


def test_page_views_have_to_be_page_views(analytics: CapturedEvents) -> None:
    with pytest.raises(ConfigError, match="PageViews"):
        AnalyticsMiddleware(page(), client=analytics.client, page_views=True)  # type: ignore[arg-type]
