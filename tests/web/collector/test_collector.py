"""The collector: strict about who sends, how much, and what; and nothing but named fields is stored."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route

from asgi_analytics import AnalyticsMiddleware, PageViews
from asgi_analytics.errors import ConfigError
from asgi_analytics.testing import CapturedEvents, capture_events
from asgi_analytics.web.collector import create_collector_app
from asgi_analytics.web.collector.messages import route_of
from asgi_analytics.web.collector.rate import MOST_VISITORS, RateLimit
from tests.instrumentation.asgi_app import Server, http_scope

SAME_ORIGIN = [(b"host", b"shop.example"), (b"user-agent", b"a browser"), (b"sec-fetch-site", b"same-origin")]

BLOCKED = (
    "/api/analytics", "/analytics/event", "/analytics/page/", "/analytics/report/", "/analytics/v1/", "/ui/analytics/",
    "/web-analytics/", "/analytics-ingestion/", "/stats/pageview", "/stats/visitors", "/stats/impression",
    "/event/track", "/events/track/", "/collect", "/api/v1/metrics", "/umami.js", "/matomo.php", "analytics.js",
    "tracker.js", "/insights-collector.", "/insights-emitter.", "/track", "/pixel", "/beacon",
)  # fmt: skip
"""Patterns of EasyPrivacy, as of November 2026, that our own paths must not meet."""


async def send(app: Any, said: Any = None, *, headers: Any = SAME_ORIGIN, **more: Any) -> Server:
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    server = Server([{"type": "http.request", "body": body, "more_body": False}])
    scope = http_scope(
        **({"path": "/insights/e", "root_path": "/insights", "method": "POST", "headers": headers} | more)
    )
    await app(scope, server.receive, server.send)
    return server


@pytest.fixture
def app(analytics: CapturedEvents) -> Any:
    return create_collector_app(analytics.client, events=["video_played", "cart.filled"])


async def said(app: Any, analytics: CapturedEvents, message: Any) -> Any:
    server = await send(app, message)
    assert (server.status, server.body) == (204, b"")
    return analytics.events[-1]


async def test_a_page_view(app: Any, analytics: CapturedEvents) -> None:
    view = await said(
        app,
        analytics,
        {
            "event": "page_view",
            "page": "/plans/7?utm_source=news&token=secret#x",
            "referrer": "https://www.google.com/search?q=secret",
            "properties": {"channel": "email", "user_id": "root"},
        },
    )
    assert view.event_type == "page_view"
    assert view.data == {
        "page": "/plans/{id}",
        "referrer": "www.google.com",
        "channel": "organic_search",
        "utm_source": "news",
    }
    assert view.user_id is None
    assert len(view.context["visitor"]) == 32


async def test_how_long_a_page_was_visible(app: Any, analytics: CapturedEvents) -> None:
    message = {"event": "page_engaged", "page": "/plans/a", "properties": {"visible_ms": 1234, "x": 1}}
    assert (await said(app, analytics, message)).data == {"page": "/plans/a", "visible_ms": 1234}


async def test_a_link_that_leads_away(app: Any, analytics: CapturedEvents) -> None:
    message = {"event": "outbound_link_clicked", "page": "/", "properties": {"host": "Blog.Example", "href": "/secret"}}
    assert (await said(app, analytics, message)).data == {"page": "/", "host": "blog.example"}


async def test_a_name_that_is_allowed(app: Any, analytics: CapturedEvents) -> None:
    message = {"event": "video_played", "page": "/v", "properties": {"seconds": 7, "user_id": "root", "page": "/x"}}
    event = await said(app, analytics, message)
    assert (event.event_type, event.user_id) == ("video_played", None)
    assert event.data == {"seconds": 7, "user_id": "root", "page": "/v"}
    assert (await said(app, analytics, {"event": "cart.filled", "page": "/"})).event_type == "cart_filled"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([(b"sec-fetch-site", b"same-origin")], 204),
        ([(b"sec-fetch-site", b"same-site")], 403),
        ([(b"sec-fetch-site", b"cross-site")], 403),
        ([(b"sec-fetch-site", b"none")], 403),
        ([], 403),
        ([(b"origin", b"https://shop.example")], 204),
        ([(b"origin", b"https://SHOP.example:443")], 204),
        ([(b"origin", b"http://shop.example:80")], 204),
        ([(b"origin", b"https://shop.example:8443")], 403),
        ([(b"origin", b"https://evil.example")], 403),
        ([(b"origin", b"https://shop.example.evil.example")], 403),
        ([(b"origin", b"null")], 403),
        ([(b"origin", b"file://")], 403),
        ([(b"origin", b"https://")], 403),
        ([(b"referer", b"https://shop.example/")], 403),
    ],
)
async def test_only_pages_of_the_same_origin(app: Any, headers: Any, status: int) -> None:
    server = await send(app, {"event": "page_view", "page": "/"}, headers=[(b"host", b"shop.example"), *headers])
    assert server.status == status


async def test_without_a_host_no_origin_is_equal(app: Any) -> None:
    assert (await send(app, {"event": "page_view", "page": "/"}, headers=[(b"origin", b"https://")])).status == 403


@pytest.mark.parametrize("size", [4096, 4097])
@pytest.mark.parametrize("announced", [True, False])
async def test_at_most_4_kib(app: Any, analytics: CapturedEvents, size: int, announced: bool) -> None:
    message = json.dumps({"event": "page_view", "page": "/"}).encode()
    headers = [*SAME_ORIGIN, (b"content-length", b"%d" % size)] if announced else SAME_ORIGIN
    server = await send(app, message + b" " * (size - len(message)), headers=headers)
    assert server.status == (204 if size == 4096 else 413)
    assert len(analytics.events) == (size == 4096)


async def test_a_body_in_parts_is_not_read_beyond_the_limit(app: Any) -> None:
    parts = [{"type": "http.request", "body": b" " * 1000, "more_body": True} for _ in range(100)]
    server = Server(parts)
    scope = http_scope("/insights/e", "POST", root_path="/insights", headers=SAME_ORIGIN)
    await app(scope, server.receive, server.send)
    assert server.status == 413
    assert len(server.incoming) > 90


async def test_who_leaves_before_the_end_gets_no_answer(app: Any, analytics: CapturedEvents) -> None:
    server = Server([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])
    await app(http_scope("/insights/e", "POST", headers=SAME_ORIGIN), server.receive, server.send)
    assert server.sent == []
    assert analytics.events == []


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 4000,
        b'{"event":"video_played","page":"/","properties":{"a":' + b"[" * 1500 + b"]" * 1500 + b"}}",
        [],
        {"event": "page_view"},
        {"page": "/"},
        {"event": "page_view", "page": 7},
        {"event": "api_request", "page": "/"},
        {"event": "user_identified", "page": "/"},
        {"event": "not_allowed", "page": "/"},
        {"event": "page_engaged", "page": "/"},
        {"event": "page_engaged", "page": "/", "properties": {"visible_ms": -1}},
        {"event": "page_engaged", "page": "/", "properties": {"visible_ms": 1e12}},
        {"event": "page_engaged", "page": "/", "properties": {"visible_ms": "1"}},
        {"event": "outbound_link_clicked", "page": "/"},
        {"event": "outbound_link_clicked", "page": "/", "properties": {"host": "<script>"}},
        {"event": "outbound_link_clicked", "page": "/", "properties": {"host": ["a"]}},
        {"event": "video_played", "page": "/", "properties": [1]},
    ],
)
async def test_anything_else_is_422(app: Any, analytics: CapturedEvents, message: Any) -> None:
    server = await send(app, message)
    assert server.status in (422, 204 if isinstance(message, bytes) and b"video" in message else 422)
    assert analytics.events == []
    if server.status == 422:
        assert "script>" not in server.body.decode()


async def test_a_visitor_may_send_so_much_a_minute(analytics: CapturedEvents, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("asgi_analytics.web.collector.rate.time.monotonic", lambda: now)
    app = create_collector_app(analytics.client, events_per_minute=3)
    message = {"event": "page_view", "page": "/"}
    statuses = [(await send(app, message)).status for _ in range(5)]
    assert statuses == [204, 204, 204, 429, 429]
    assert (await send(app, message, client=("10.0.0.9", 1))).status == 204
    now += 60
    assert (await send(app, message)).status == 204


def test_the_visitors_that_are_counted_are_bounded() -> None:
    rate = RateLimit(1)
    for number in range(3 * MOST_VISITORS):
        rate.allows(str(number), b"")
    assert len(rate._counts) <= MOST_VISITORS
    assert "10.0.0.1" not in str(rate._counts)


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/insights/e", "GET", 405),
        ("/insights/s.js", "POST", 405),
        ("/insights/x", "GET", 404),
        ("/insights/", "GET", 404),
    ],
)
async def test_other_paths_and_methods(app: Any, path: str, method: str, status: int) -> None:
    assert (await send(app, path=path, method=method)).status == status


async def test_the_script_is_small_and_kept(app: Any) -> None:
    server = await send(app, path="/insights/s.js", method="GET")
    headers = dict(server.sent[0]["headers"])
    assert server.status == 200
    assert headers[b"content-type"] == b"text/javascript; charset=utf-8"
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert len(gzip.compress(server.body, 9)) < 1024
    assert b"__" not in server.body
    again = [*SAME_ORIGIN, (b"if-none-match", headers[b"etag"])]
    assert (await send(app, path="/insights/s.js", method="GET", headers=again)).status == 304


async def test_below_the_middleware_the_caller_is_the_middlewares(analytics: CapturedEvents) -> None:
    def address(scope: Any) -> str:
        return str(dict(scope["headers"])[b"x-real-ip"].decode())

    async def home(request: Any) -> HTMLResponse:
        return HTMLResponse("<p>")

    collector = create_collector_app(analytics.client, events_per_minute=1)
    inner = Starlette(routes=[Route("/plans/{plan}", home), Mount("/insights", collector)])
    app = AnalyticsMiddleware(
        inner,
        client=analytics.client,
        page_views=PageViews(address=address),
        user_id=lambda scope: "ada",
        exclude=["/insights/*"],
    )
    headers = [*SAME_ORIGIN, (b"x-real-ip", b"192.0.2.1")]
    await send(app, path="/plans/7", root_path="", method="GET", headers=headers)
    await send(app, {"event": "page_engaged", "page": "/plans/7", "properties": {"visible_ms": 5}}, path="/insights/e",
               root_path="", headers=headers)  # fmt: skip
    other = [*SAME_ORIGIN, (b"x-real-ip", b"192.0.2.2")]
    assert (await send(app, {"event": "page_view", "page": "/"}, root_path="", headers=other)).status == 204
    [view, second], [engaged] = analytics.of("page_view"), analytics.of("page_engaged")
    assert view.context["visitor"] == engaged.context["visitor"] != second.context["visitor"]  # type: ignore[index]
    assert view.user_id == engaged.user_id
    silent = await send(app, path="/insights/s.js", root_path="", method="GET")
    alone = await send(collector, path="/insights/s.js", method="GET")
    assert (b"view(1," in silent.body, b"view(0," in alone.body) == (True, True)
    assert len(analytics.of("api_request")) == 1


async def test_it_answers_at_once_though_the_queue_is_full() -> None:
    with capture_events(queue_size=1) as captured:
        app = create_collector_app(captured.client)
        for _ in range(3):
            assert (await send(app, {"event": "page_view", "page": "/"})).status == 204
        assert captured.client.stats().dropped["queue_full"] == 2


async def test_a_lifespan_begins_and_ends(app: Any) -> None:
    server = Server([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    await app({"type": "lifespan"}, server.receive, server.send)
    assert [one["type"] for one in server.sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/", "/"),
        ("/plans/7", "/plans/{id}"),
        ("/plans/7/edit", "/plans/{id}/edit"),
        ("/u/0198c0de-0000-7000-8000-000000000001", "/u/{id}"),
        ("/u/0198C0DE00007000800000000000000F", "/u/{id}"),
        ("/c/3f2a9bc04d5e", "/c/{id}"),
        ("/posts/2026-a-year", "/posts/2026-a-year"),
        ("/v2/facade", "/v2/facade"),
        ("/deadbeefcafe", "/deadbeefcafe"),
    ],
)
def test_ids_are_no_part_of_a_route(path: str, route: str) -> None:
    assert route_of(path) == route


async def test_the_route_may_be_named(analytics: CapturedEvents) -> None:
    app = create_collector_app(analytics.client, page=lambda path: path.replace("/alice/", "/{user}/"))
    assert (await said(app, analytics, {"event": "page_view", "page": "/u/alice/x"})).data["page"] == "/u/{user}/x"
    failing = create_collector_app(analytics.client, page=lambda path: 1 / 0)  # type: ignore[arg-type, return-value]
    assert (await said(failing, analytics, {"event": "page_view", "page": "/u/7"})).data["page"] == "/u/{id}"


@pytest.mark.parametrize(
    "options",
    [
        {"events": "video_played"},
        {"events": ["Video Played"]},
        {"events": ["page_view"]},
        {"page": "/x"},
        {"page_views": True},
        {"events_per_minute": 0},
        {"events_per_minute": True},
    ],
)
def test_a_wrong_setting_is_refused(analytics: CapturedEvents, options: Any) -> None:
    with pytest.raises(ConfigError):
        create_collector_app(analytics.client, **options)


def test_its_paths_are_on_no_list_of_blockers() -> None:
    for path in ("/insights/s.js", "/insights/e"):
        assert not [pattern for pattern in BLOCKED if pattern in path]


async def test_it_works_on_trio(app: Any, analytics: CapturedEvents) -> None:
    trio = pytest.importorskip("trio", reason="trio is not installed")

    def serve() -> Server:
        return trio.run(send, app, {"event": "page_view", "page": "/"})  # type: ignore[no-any-return]

    server = await asyncio.to_thread(serve)
    assert server.status == 204
    assert len(analytics.of("page_view")) == 1
