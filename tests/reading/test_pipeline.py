"""The state of the pipeline is read with the reader's rights."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random
from uuid import uuid4

from asgi_analytics.reading import AnalyticsReader
from tests.kit.databases import Database
from tests.kit.states import refresh
from tests.reading.happened import an_event, insert


async def test_an_empty_pipeline_is_told_as_one(database: Database, reader: AnalyticsReader) -> None:
    health = await reader.get_pipeline_health()
    assert (health.newest_event_at, health.oldest_event_at, health.events_last_minute) == (None, None, 0)
    assert (health.dead_letters, health.pending) == ([], [])
    assert health.database.flavour == database.flavour
    kind = "SQLite" if database.flavour == "sqlite" else "PostgreSQL"
    assert database.version.endswith(f"{kind} {health.database.postgresql_version}")
    timescaledb = health.database.timescaledb_version
    assert (timescaledb is not None and database.version.startswith(f"TimescaleDB {timescaledb}")) is (
        database.flavour == "timescaledb"
    )


async def test_what_arrived_what_was_refused_and_what_is_behind(database: Database, reader: AnalyticsReader) -> None:
    now = datetime.now(UTC)
    connection = await database.connect()
    ages = [timedelta(days=20), timedelta(hours=30), timedelta(seconds=90), timedelta(seconds=1)]
    events = [an_event(Random(n), now - age)._replace(service="shop") for n, age in enumerate(ages)]
    await insert(connection, [*events, events[3]._replace(id=uuid4(), service="billing")])
    for reason, service in (("poison", "shop"), ("poison", "billing"), ("schema", "shop")):
        await connection.execute(
            "INSERT INTO analytics_dead_letters (id, service, reason, payload) VALUES ($1, $2, $3, '{}')",
            uuid4(), service, reason,
        )  # fmt: skip
    health = await reader.get_pipeline_health()
    assert (health.newest_event_at, health.oldest_event_at) == (now - ages[3], now - ages[0])
    assert health.events_last_minute == 2
    assert [(d.reason, d.count) for d in health.dead_letters] == [("poison", 2), ("schema", 1)]
    assert now - timedelta(minutes=5) < health.dead_letters[0].last_received_at < now + timedelta(minutes=5)
    assert "analytics_user_days" in {view.view for view in health.pending}
    day = (now - ages[0]).replace(hour=0, minute=0, second=0, microsecond=0)
    assert {view.since for view in health.pending if view.view == "analytics_user_days"} == {day}
    assert health.database.size_bytes is not None
    assert health.database.size_bytes > 8192

    mine = await reader.get_pipeline_health(service="billing")
    assert (mine.events_last_minute, [(d.reason, d.count) for d in mine.dead_letters]) == (1, [("poison", 1)])

    await refresh(connection)
    assert (await reader.get_pipeline_health()).pending == []


async def test_columns_are_told_apart(database: Database, reader: AnalyticsReader) -> None:
    connection = await database.connect()
    await insert(connection, [an_event(Random(n), datetime.now(UTC) - timedelta(days=9)) for n in range(50)])
    assert (await reader.get_pipeline_health()).database.compressed_size_bytes is None
    if database.flavour == "timescaledb":
        await connection.execute("SELECT compress_chunk(c) FROM show_chunks('analytics_events') AS c")
        size = (await reader.get_pipeline_health()).database.compressed_size_bytes
        assert size is not None
        assert size > 0
