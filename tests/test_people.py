"""From the browser to the answer: what the middleware and the collector see becomes sessions, pages and users."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid5

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Mount, Route

from asgi_analytics import (
    AnalyticsClient,
    AnalyticsMiddleware,
    AnalyticsWorker,
    PageViews,
    TimescaleSink,
    events,
    set_user,
)
from asgi_analytics.events import USER_NAMESPACE
from asgi_analytics.reading import AnalyticsReader
from asgi_analytics.web.collector import create_collector_app
from tests.instrumentation.asgi_app import Server, http_scope
from tests.kit.databases import Database

FIREFOX = b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
BOT = b"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"


class Browser:
    """Sends requests from one address."""

    def __init__(self, app: Any, address: str, agent: bytes = FIREFOX) -> None:
        self.app = app
        self.address = address
        self.agent = agent

    async def request(
        self, path: str, method: str = "GET", body: Any = None, headers: dict[str, bytes] | None = None
    ) -> None:
        sent = {"host": b"shop.example", "user-agent": self.agent, "cf-ipcountry": b"DE"} | (headers or {})
        server = Server([{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}])
        path, _, query = path.partition("?")
        scope = http_scope(
            path,
            method,
            query_string=query.encode(),
            client=(self.address, 1),
            headers=[(name.encode(), value) for name, value in sent.items()],
        )
        await self.app(scope, server.receive, server.send)
        assert server.status in (200, 204)

    async def open(self, path: str, referrer: bytes = b"https://shop.example/") -> None:
        await self.request(path, headers={"referer": referrer, "sec-fetch-dest": b"document"})

    async def say(self, event: str, page: str, **properties: Any) -> None:
        body = {"event": event, "page": page, "properties": properties}
        await self.request("/insights/e", "POST", body, {"sec-fetch-site": b"same-origin"})


def application(client: AnalyticsClient) -> Any:
    async def plan(request: Request) -> HTMLResponse:
        return HTMLResponse("<p>")

    async def login(request: Request) -> JSONResponse:
        set_user("ada")
        client.track(events.UserLoggedIn(user_id="ada", provider="password", mfa_used=False))
        client.track(events.identify("ada", plan="pro"))
        return JSONResponse({})

    routes = [
        Route("/plans/{plan}", plan),
        Route("/login", login, methods=["POST"]),
        Mount("/insights", create_collector_app(client)),
    ]
    views = PageViews(country_header="CF-IPCountry")
    return AnalyticsMiddleware(Starlette(routes=routes), client=client, page_views=views, exclude=["/insights/*"])


async def test_visits_become_sessions(database: Database) -> None:
    client = AnalyticsClient(service="shop", strict=True)
    app = application(client)
    ada, other, bot = Browser(app, "203.0.113.1"), Browser(app, "203.0.113.2"), Browser(app, "203.0.113.3", BOT)
    async with AnalyticsWorker(client, TimescaleSink(database.dsn)):
        await ada.open("/plans/7?utm_campaign=spring", b"https://www.google.com/search?q=plans")
        await ada.say("page_engaged", "/plans/7", visible_ms=12_000)
        await ada.open("/plans/8")
        await ada.request("/login", "POST")
        await other.open("/plans/9", b"https://blog.example/post")
        await bot.open("/plans/7", b"")

    async with AnalyticsReader.from_url(database.dsn) as reader:
        found = {session.channel: session for session in (await reader.query_sessions()).sessions}
        summary = await reader.get_session_summary()
        pages = await reader.list_pages()
    assert set(found) == {"organic_search", "referral", "direct"}
    session = found["organic_search"]
    assert session.user_id == uuid5(USER_NAMESPACE, "ada")
    assert session.visitor is not None
    assert (session.page_views, session.event_count) == (2, 4)
    assert (session.landing_page, session.exit_page) == ("/plans/{plan}", "/plans/{plan}")
    assert (session.referrer, session.utm_campaign, session.country) == ("www.google.com", "spring", "DE")
    assert (session.device_type, session.browser, session.os) == ("desktop", "Firefox", "Linux")
    assert session.is_bounce is False
    assert found["referral"].is_bounce is True
    assert found["direct"].device_type == "bot"
    assert (summary.sessions, summary.visitors, summary.page_views) == (3, 3, 4)
    assert sum(page.page_views for page in pages) == 4
