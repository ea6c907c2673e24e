"""The aggregates of metrics equal an independent computation, however they are filled, and outlive the rows."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import asyncpg
import msgspec
import pytest

from asgi_analytics import TimescaleSink
from asgi_analytics.events.base import METRIC
from tests.kit.databases import Database
from tests.kit.measurements import Measured, is_close, measured

COLUMNS = "name period_start period_type count sum min max avg p50 p90 p99 tags metric_type unit"
DASHBOARD_COLUMNS = "widget_id metric_key value previous_value change_percent updated_at"


def period_of(at: datetime, period_type: str) -> datetime:
    """Return the beginning of the period, in UTC, that a moment lies in."""
    hour = at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    day = hour.replace(hour=0)
    return {
        "hourly": hour,
        "daily": day,
        "weekly": day - timedelta(days=day.weekday()),
        "monthly": day.replace(day=1),
    }[period_type]


async def assert_aggregates(connection: asyncpg.Connection, all_measured: Iterable[Measured]) -> None:
    """Compare the view with the values."""
    wanted: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for one in all_measured:
        for period_type in ("hourly", "daily", "weekly", "monthly"):
            tags = json.dumps(one.tags, sort_keys=True)
            wanted[period_type, period_of(one.at, period_type), one.name, tags] += one.values
    found = await connection.fetch("SELECT * FROM analytics_metric_aggregates")
    keys = [
        (r["period_type"], r["period_start"], r["name"], json.dumps(json.loads(r["tags"]), sort_keys=True))
        for r in found
    ]
    assert sorted(keys) == sorted(wanted)
    for key, row in zip(keys, found, strict=True):
        values = wanted[key]
        assert row["count"] == len(values)
        assert [row["sum"], row["avg"]] == pytest.approx([sum(values), sum(values) / len(values)], abs=1e-6)
        assert (row["min"], row["max"]) == (min(values), max(values))
        for name, q in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
            if row["metric_type"] == "counter":
                assert row[name] is None
            else:
                assert is_close(row[name], values, q), (key, name, row[name], sorted(values))


async def test_aggregates_follow_every_change_and_outlive_their_rows(database: Database) -> None:
    connection, random = await database.connect(), Random(15)
    now = datetime.now(UTC)
    for view, columns in (
        ("analytics_metric_aggregates", COLUMNS),
        ("analytics_dashboard_metrics", DASHBOARD_COLUMNS),
    ):
        found = await connection.fetch(
            "SELECT attname FROM pg_attribute WHERE attrelid = $1::text::regclass ORDER BY attnum", view
        )
        assert " ".join(name for (name,) in found) == columns

    def at_random(days: float, number: int) -> list[Measured]:
        return [measured(random, now - timedelta(days=days) * random.random()) for _ in range(number)]

    sink = TimescaleSink(database.dsn)
    known = [*at_random(70, 600), *at_random(0.1, 100)]
    lines = [one.line() for one in known]
    assert (await sink.write(lines)).duplicates == 0
    assert (await sink.write(lines)).duplicates == len(lines)
    await assert_aggregates(connection, known)
    for _ in range(2):
        await sink.upkeep()
        await assert_aggregates(connection, known)
    kept = await connection.fetchval("SELECT count(*) FROM analytics_metrics")
    cutoff = (now - timedelta(days=31)).replace(hour=0, minute=0, second=0, microsecond=0)
    assert kept == sum(one.at >= cutoff for one in known)
    # What comes late, also for hours whose rows are gone, is added; what is deleted is taken away.
    late = at_random(70, 200)
    await sink.write([one.line() for one in late])
    known += late
    await sink.upkeep()
    await assert_aggregates(connection, known)
    newest = max(known, key=lambda one: one.at)
    await connection.execute(
        "DELETE FROM analytics_metrics WHERE timestamp > $1", newest.at - timedelta(microseconds=2)
    )
    known.remove(newest)
    await assert_aggregates(connection, known)
    await sink.upkeep()
    await assert_aggregates(connection, known)
    assert await connection.fetchval("SELECT count(*) FROM analytics_metrics WHERE timestamp < $1", cutoff) == 0
    await sink.aclose()


async def test_upkeep_beside_writers_loses_and_repeats_nothing(database: Database) -> None:
    random, now = Random(17), datetime.now(UTC)
    sinks = [TimescaleSink(database.dsn) for _ in range(4)]
    known: list[Measured] = []
    is_written = asyncio.Event()

    async def write(sink: TimescaleSink) -> None:
        for _ in range(25):
            some = [measured(random, now - timedelta(hours=60) * random.random()) for _ in range(8)]
            await sink.write([one.line() for one in some])
            known.extend(some)

    async def keep_up(sink: TimescaleSink) -> int:
        times = 0
        while not is_written.is_set():
            await sink.upkeep()
            times += 1
        return times

    upkeep = [asyncio.create_task(keep_up(sink)) for sink in sinks[2:]]
    await asyncio.gather(*(write(sink) for sink in sinks[:2] for _ in range(2)))
    is_written.set()
    assert sum(await asyncio.gather(*upkeep)) > 2
    connection = await database.connect()
    await assert_aggregates(connection, known)
    await sinks[0].upkeep()
    await assert_aggregates(connection, known)
    for sink in sinks:
        await sink.aclose()


BAD: list[dict[str, Any]] = [
    {"name": None},
    {"name": "n" * 256},
    {"metric_type": "summary"},
    {"count": 0},
    {"count": "many"},
    {"sum": 1e301},
    {"min": 3.0},
    {"last": 7.0},
    {"tags": []},
    {"bins": [1], "counts": []},
    {"bins": [[1]], "counts": [[1]]},
    {"bins": [1], "counts": [-1]},
    {"bins": [10**6], "counts": [1]},
    {"bins": "none"},
]


async def test_a_batch_of_events_and_metrics_is_stored_and_what_is_broken_is_kept_as_dead_letters(
    database: Database,
) -> None:
    connection, random = await database.connect(), Random(16)
    at = datetime.now(UTC)
    good = [measured(random, at).line() for _ in range(5)]
    events = [
        line.replace(METRIC.encode(), b"order_placed") for line in (measured(random, at).line() for _ in range(5))
    ]
    data = {"name": "n", "metric_type": "counter", "count": 1, "sum": 1.0, "min": 1.0, "max": 1.0, "last": 1.0}
    broken = []
    for bad in BAD:
        line = msgspec.json.decode(measured(random, at).line())
        broken.append(msgspec.json.encode(line | {"data": data | bad}))
    batch = [line for three in zip(good, events, broken[:5], strict=True) for line in three] + broken[5:]
    sink = TimescaleSink(database.dsn)
    receipt = await sink.write(batch)
    assert [one.index for one in receipt.rejected] == [batch.index(line) for line in broken]
    assert await connection.fetchval("SELECT count(*) FROM analytics_metrics") == 5
    assert await connection.fetchval("SELECT count(*) FROM analytics_events") == 5
    assert await connection.fetchval("SELECT count(*) FROM analytics_dead_letters") == len(broken)
    again = await sink.write(batch)
    assert (again.duplicates, sorted(again.duplicate_at or ())) == (10, sorted(map(batch.index, good + events)))
    await sink.aclose()
