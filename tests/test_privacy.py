"""Page views and visitors are counted, and nothing that was sent is in the database, or in the log."""

from __future__ import annotations

import json
import logging
from typing import Any

import asyncpg
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from asgi_analytics import AnalyticsClient, AnalyticsMiddleware, AnalyticsWorker, PageViews, TimescaleSink, events
from asgi_analytics.admin.refresh import refresh
from asgi_analytics.web.collector import create_collector_app
from tests.instrumentation.asgi_app import Server, http_scope, websocket_scope
from tests.kit.databases import Database

ADDRESSES = ("203.0.113.77", "2001:db8::77", "198.51.100.23")
SECRETS = (
    *ADDRESSES,
    "SecretBrowser/7.5",
    "q=secretquery",
    "secretquery",
    "secretvalue",
    "session=secretcookie",
    "secretcookie",
    "secretpath",
    "secretreferrer",
    "secretlanguage",
    "secrettoken",
    "secrethref",
)
RELATIONS = """
SELECT format('%I.%I', n.nspname, c.relname) AS name
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
ORDER BY 1
"""


def headers(site: bytes = b"none", **more: bytes) -> list[tuple[bytes, bytes]]:
    sent = {
        "host": b"shop.example",
        "user-agent": b"Mozilla/5.0 (X11; Linux x86_64) SecretBrowser/7.5 Firefox/140.0",
        "cookie": b"session=secretcookie",
        "referer": b"https://user:secrettoken@blog.example/secretreferrer?q=secretquery",
        "accept-language": b"secretlanguage",
        "authorization": b"Bearer secrettoken",
        "sec-fetch-dest": b"document",
        "sec-fetch-site": site,
        "x-forwarded-for": ADDRESSES[2].encode(),
    }
    return [(name.encode(), value) for name, value in (sent | more).items()]


def application(client: AnalyticsClient) -> Any:
    async def page(request: Request) -> HTMLResponse:
        client.track(events.track("cart_filled", items=3))
        return HTMLResponse("<p>")

    async def data(request: Request) -> JSONResponse:
        return JSONResponse({})

    async def broken(request: Request) -> JSONResponse:
        raise RuntimeError("out of lamps")

    async def chat(websocket: WebSocket) -> None:
        await websocket.accept()
        client.track(events.track("message_read"))
        await websocket.close()

    routes = [
        Route("/plans/{plan}", page),
        Route("/data/{plan}", data),
        Route("/broken/{plan}", broken),
        WebSocketRoute("/chat/{plan}", chat),
        Mount("/insights", create_collector_app(client, events=["video_played"])),
    ]
    return AnalyticsMiddleware(Starlette(routes=routes), client=client, page_views=PageViews())


async def visit(app: Any, address: str) -> None:
    """Send all that a browser sends, and more, each time with what nobody is to find."""
    query = b"q=secretquery&utm_source=news&token=secretvalue"
    for path in ("/plans/secretpath", "/data/secretpath", "/broken/secretpath", "/nowhere/secretpath"):
        server = Server()
        scope = http_scope(path, headers=headers(), query_string=query, client=(address, 50_000))
        try:
            await app(scope, server.receive, server.send)
        except RuntimeError:
            assert path.startswith("/broken")
    for message in (
        {"event": "page_view", "page": "/plans/7?q=secretquery&token=secretvalue#secretvalue"},
        {"event": "page_view", "page": "/plans/7", "referrer": "https://blog.example/secretreferrer?q=secretquery"},
        {
            "event": "page_engaged",
            "page": "/plans/7?q=secretquery",
            "properties": {"visible_ms": 5, "x": "secretvalue"},
        },
        {"event": "outbound_link_clicked", "page": "/", "properties": {"host": "blog.example", "href": "secrethref"}},
        {"event": "video_played", "page": "/plans/7?q=secretquery", "properties": {"seconds": 7}},
    ):
        body = json.dumps(message).encode()
        server = Server([{"type": "http.request", "body": body, "more_body": False}])
        scope = http_scope(
            "/insights/e", "POST", headers=headers(b"same-origin"), query_string=query, client=(address, 50_000)
        )
        await app(scope, server.receive, server.send)
        assert server.status == 204
    server = Server([{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1000}])
    scope = websocket_scope("/chat/secretpath", headers=headers(), query_string=query, client=(address, 50_000))
    await app(scope, server.receive, server.send)


async def dump(connection: asyncpg.Connection) -> dict[str, str]:
    """Return every row of every table as text, those of the extension included."""
    names = [row["name"] for row in await connection.fetch(RELATIONS)]
    assert "public.analytics_visitor_keys" in names
    found = {}
    for name in names:
        try:
            rows = await connection.fetch(f"SELECT t::text FROM ONLY {name} AS t")
        except asyncpg.PostgresError:  # a table that only the extension itself may read
            continue
        found[name] = "\n".join(str(row[0]) for row in rows)
    return found


async def test_nothing_that_was_sent_is_anywhere_in_the_database(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client = AnalyticsClient(service="shop", strict=True)
    app = application(client)
    async with AnalyticsWorker(client, TimescaleSink(database.dsn)):
        for address in ADDRESSES[:2]:
            await visit(app, address)
    connection = await database.connect()
    await refresh(connection)

    rows = await connection.fetch("SELECT event_type, data, context FROM analytics_events")
    seen = {row["event_type"] for row in rows}
    assert seen >= {"page_view", "cart_filled", "page_engaged", "outbound_link_clicked", "video_played", "api_request"}
    visitors = {json.loads(row["context"]).get("visitor") for row in rows if row["event_type"] == "page_view"}
    assert len(visitors) == 2
    assert None not in visitors

    tables = await dump(connection)
    assert any("page_view" in text for text in tables.values())
    for name, text in tables.items():
        assert not [secret for secret in SECRETS if secret.lower() in text.lower()], name
    log = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("asgi_analytics"))
    assert not [secret for secret in SECRETS if secret in log]


async def test_what_the_database_refuses_holds_nothing_of_it_either(database: Database) -> None:
    connection = await database.connect()
    await connection.execute("ALTER TABLE analytics_events ADD CONSTRAINT no_views CHECK (event_type <> 'page_view')")
    client = AnalyticsClient(service="shop", strict=True)
    app = application(client)
    async with AnalyticsWorker(client, TimescaleSink(database.dsn)):
        await visit(app, ADDRESSES[0])
    letters = await connection.fetch("SELECT payload FROM analytics_dead_letters")
    assert len(letters) == 3
    for name, text in (await dump(connection)).items():
        assert not [secret for secret in SECRETS if secret.lower() in text.lower()], name


async def test_the_address_is_forgotten_once_the_worker_has_looked_at_it(database: Database) -> None:
    kept: list[Any] = []
    client = AnalyticsClient(service="shop", strict=True)
    app = application(client)
    async with AnalyticsWorker(client, TimescaleSink(database.dsn)):
        await visit(app, ADDRESSES[0])
        kept += [item.caller for item in client._queue.items if hasattr(item, "caller")]
        assert {caller.address for caller in kept} == {ADDRESSES[0]}
        assert 0 <= client.stats().oldest_seconds < 60
    assert {(caller.address, caller.agent, caller.host) for caller in kept} == {(None, b"", b"")}
