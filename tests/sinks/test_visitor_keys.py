"""The keys that visitors are counted by: shared by all writers, read by nobody else, forgotten after 48 hours."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import asyncpg
import pytest

from asgi_analytics import (
    AnalyticsClient,
    AnalyticsMiddleware,
    AnalyticsWorker,
    MemorySink,
    PageViews,
    TimescaleSink,
)
from asgi_analytics.encoding.caller import Caller, CallerLine
from asgi_analytics.errors import TransientError
from asgi_analytics.sinks.base import KnowsVisitors
from asgi_analytics.worker.callers import Callers
from tests.instrumentation.asgi_app import body as body_of
from tests.instrumentation.asgi_app import get, sending, start
from tests.kit.databases import Database

HTML = [(b"content-type", b"text/html")]
DAY = timedelta(days=1)


def today() -> date:
    return datetime.now(UTC).date()


async def keys(connection: asyncpg.Connection) -> list[date]:
    return [row["day"] for row in await connection.fetch("SELECT day FROM analytics_visitor_keys ORDER BY day")]


async def visit(client: AnalyticsClient, address: str = "203.0.113.7", **more: Any) -> None:
    app = AnalyticsMiddleware(sending(start(headers=HTML), body_of()), client=client, page_views=PageViews())
    await get(app, headers=[(b"host", b"shop.example"), (b"user-agent", b"a")], client=(address, 1), **more)


async def test_all_processes_get_one_key_a_day(database: Database) -> None:
    sinks = [TimescaleSink(database.dsn) for _ in range(5)]
    assert all(isinstance(sink, KnowsVisitors) for sink in sinks)
    found = await asyncio.gather(*(sink.visitor_key(today()) for sink in sinks))
    assert len(set(found)) == 1
    assert len(found[0] or b"") == 32
    assert await sinks[0].visitor_key(today() - DAY) != found[0]
    for sink in sinks:
        await sink.aclose()


async def test_a_day_that_is_over_for_long_or_far_ahead_has_no_key(database: Database) -> None:
    sink = TimescaleSink(database.dsn)
    assert await sink.visitor_key(today() - 2 * DAY) is None
    assert await sink.visitor_key(today() + 2 * DAY) is None
    await sink.aclose()
    assert await keys(await database.connect()) == []


@pytest.mark.parametrize("by", ["the upkeep", "the next key"])
async def test_keys_and_visitors_are_forgotten_after_48_hours(database: Database, by: str) -> None:
    connection = await database.connect()
    sink = TimescaleSink(database.dsn)
    for days in range(6):
        await connection.execute("INSERT INTO analytics_visitor_keys VALUES ($1, 'k')", today() - days * DAY)
    await sink.note_visitors({"old": datetime.now(UTC) - timedelta(hours=49), "new": datetime.now(UTC)})
    await (sink.upkeep() if by == "the upkeep" else sink.visitor_key(today()))
    assert await keys(connection) == [today() - DAY, today()]
    assert await connection.fetchval("SELECT array_agg(visitor) FROM analytics_midnight_visitors") == ["new"]
    await sink.aclose()


async def test_who_was_seen_within_half_an_hour(database: Database) -> None:
    moment = datetime.now(UTC)
    sink = TimescaleSink(database.dsn)
    await sink.note_visitors({"a": moment, "b": moment - timedelta(minutes=31), "c": moment - timedelta(minutes=30)})
    await sink.note_visitors({"a": moment - timedelta(hours=1)})  # what is noted late changes nothing
    assert await sink.seen_visitors(dict.fromkeys("abcd", moment)) == {"a", "c"}
    await sink.aclose()


async def test_midnight_cuts_no_visit_over_two_processes(database: Database) -> None:
    sinks = [TimescaleSink(database.dsn) for _ in range(2)]
    one, other = (Callers(sink, None) for sink in sinks)
    midnight = datetime.combine(today() + DAY, time(), UTC)
    names = []
    for process, minutes in ((one, -10), (other, 10), (one, 40), (other, 70), (one, 110)):
        moment = int((midnight + timedelta(minutes=minutes)).timestamp()) * 1_000_000_000
        caller = Caller(moment, "203.0.113.7", b"agent", b"host", None, True)
        await process.describe([CallerLine(b"{}", caller)])
        names.append(json.loads(b"{" + (caller.described or b"")[1:] + b"}")["visitor"])
    assert len(set(names[:4])) == 1
    assert names[4] != names[0]
    for sink in sinks:
        await sink.aclose()


async def test_visits_of_one_caller_are_one_visitor_over_two_processes(database: Database) -> None:
    for _ in range(2):
        client = AnalyticsClient(service="shop", strict=True)
        async with AnalyticsWorker(client, TimescaleSink(database.dsn)):
            await visit(client)
            await visit(client, "203.0.113.8")
    rows = await (await database.connect()).fetch(
        "SELECT context ->> 'visitor' AS visitor, count(*) FROM analytics_events WHERE event_type = 'page_view'"
        " GROUP BY visitor"
    )
    assert sorted(row["count"] for row in rows) == [2, 2]
    assert all(len(row["visitor"]) == 32 for row in rows)


async def test_a_schema_of_an_earlier_release_costs_the_visitors_only(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    connection = await database.connect()
    await connection.execute("DROP FUNCTION analytics_visitor_key(date)")
    client = AnalyticsClient(service="shop", strict=True)
    async with AnalyticsWorker(client, TimescaleSink(database.dsn)):
        await visit(client)
    assert client.stats().stored == 2
    views = await connection.fetch("SELECT context ? 'visitor' FROM analytics_events WHERE event_type = 'page_view'")
    assert [row[0] for row in views] == [False]
    assert "visitors are not counted" in caplog.text
    assert "203.0.113" not in caplog.text


async def test_while_the_database_is_away_page_views_wait(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = 3

    async def away(self: TimescaleSink, day: date) -> bytes | None:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise TransientError("away")
        return b"k" * 32

    monkeypatch.setattr(TimescaleSink, "visitor_key", away)
    monkeypatch.setattr("asgi_analytics.worker.worker.LAST_BACKOFF", 0.01)
    client = AnalyticsClient(service="shop", strict=True)
    async with AnalyticsWorker(client, TimescaleSink(database.dsn)):
        await visit(client)
        assert await client.aflush(10)
    stats = client.stats()
    assert (stats.stored, stats.retries) == (2, 3)


async def test_any_other_sink_sees_visitors_of_its_own_process() -> None:
    client, sink = AnalyticsClient(service="shop", strict=True), MemorySink()
    async with AnalyticsWorker(client, sink):
        for address in ("203.0.113.7", "203.0.113.8", "203.0.113.7"):
            await visit(client, address)
    visitors = [event.context["visitor"] for event in sink.events if event.event_type == "page_view" and event.context]
    assert len(visitors) == 3
    assert visitors[0] == visitors[2] != visitors[1]
