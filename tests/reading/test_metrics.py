"""The questions about metrics, against the values that were recorded."""

from __future__ import annotations

import math
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
import pytest

from asgi_analytics import TimescaleSink
from asgi_analytics.admin.dashboard import set_dashboard_metric, update_realtime_metric
from asgi_analytics.admin.roles import make_roles
from asgi_analytics.errors import ConfigError, InvalidQuery, OperatorError
from asgi_analytics.reading import AnalyticsReader
from asgi_analytics.reading.metrics import MetricAggregate, MetricStats, PeriodType
from asgi_analytics.sinks.sqlite import SqliteSink
from tests.kit.databases import Database
from tests.kit.measurements import Measured, is_close, measured
from tests.schema.test_metric_aggregates import period_of


async def test_stats_aggregates_and_rows(database: Database, reader: AnalyticsReader) -> None:
    random, now = Random(12), datetime.now(UTC)
    known = [measured(random, now - timedelta(days=60) * random.random()) for _ in range(800)]
    known += [measured(random, now - timedelta(hours=3) * random.random()) for _ in range(50)]
    sink = (SqliteSink if database.flavour == "sqlite" else TimescaleSink)(database.dsn)
    await sink.write([one.line() for one in known])

    def chosen(start: datetime, end: datetime, **wanted: Any) -> list[Measured]:
        return [
            one
            for one in known
            if start <= one.at < end
            and one.name.startswith(wanted.get("name_prefix", ""))
            and one.name == wanted.get("name", one.name)
            and one.service == wanted.get("service", one.service)
            and wanted.get("tags", {}).items() <= one.tags.items()
        ]

    filters: list[dict[str, Any]] = [
        {},
        {"name": "timer.a"},
        {"name_prefix": "histogram."},
        {"tags": {"route": "/a", "status": 500}},
        {"service": "forge", "name": "counter.b"},
        {"tags": {"status": "500"}},
        {"name_prefix": "none"},
    ]
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    for _ in range(2):  # before and after the upkeep
        for wanted in filters:
            start, end = now - timedelta(days=20 * random.random(), seconds=1), now
            mine = chosen(start, end, **wanted)
            rows = await reader.query_metrics(start=start, end=end, **wanted)
            assert [(r.timestamp, r.name, r.tags, r.count) for r in rows] == [
                (one.at, one.name, one.tags, len(one.values)) for one in sorted(mine, key=lambda one: one.at)
            ]
            assert all(
                r.value == pytest.approx({"counter": r.sum, "gauge": r.last}.get(r.metric_type, r.sum / r.count))
                for r in rows
            )
            values = [value for one in mine for value in one.values]
            stats = await reader.metric_stats(start=start, end=end, **wanted)
            if values:
                assert stats.count == len(values)
                assert (stats.min, stats.max) == (min(values), max(values))
                assert [stats.sum, stats.avg] == pytest.approx([sum(values), sum(values) / len(values)], abs=1e-6)
            else:
                assert stats == MetricStats(0, None, None, None, None)
        await check_aggregates(reader, known, today - timedelta(days=55), now)
        await sink.upkeep()
    await sink.aclose()
    with pytest.raises(InvalidQuery, match="needs the rows of metrics, which are kept from"):
        await reader.query_metrics(start=now - timedelta(days=50))
    with pytest.raises(InvalidQuery, match="a part of an hour"):
        await reader.metric_stats(start=min(one.at for one in known) + timedelta(microseconds=1))
    with pytest.raises(InvalidQuery, match="together with name"):
        await reader.metric_stats(name="a", name_prefix="a")
    with pytest.raises(InvalidQuery, match="tags"):
        await reader.metric_stats(tags={"a": [1]})  # type: ignore[dict-item]


async def check_aggregates(reader: AnalyticsReader, known: list[Measured], start: datetime, now: datetime) -> None:
    """Compare the periods of some time zones, and some ways to merge tags, with the values."""
    cases: list[tuple[PeriodType, str, list[str] | None, str]] = [
        ("monthly", "UTC", None, "timer.a"),
        ("weekly", "Europe/Berlin", ["route"], "timer.b"),
        ("daily", "UTC", ["status", "none"], "counter.a"),
        ("daily", "America/New_York", [], "gauge.a"),
        ("hourly", "UTC", [], "counter.b"),
    ]
    for period_type, zone, group_by, name in cases:
        wanted: dict[tuple[Any, ...], list[float]] = defaultdict(list)
        for one in known:
            if one.name == name and one.at >= start:
                tags = {k: v for k, v in one.tags.items() if group_by is None or k in group_by}
                local = one.at.astimezone(ZoneInfo(zone))
                begins = period_of(local.replace(tzinfo=UTC), period_type).replace(tzinfo=ZoneInfo(zone))
                begins = max(begins.astimezone(UTC), start)
                if period_type == "hourly":
                    begins = one.at.replace(minute=0, second=0, microsecond=0)
                wanted[begins, tuple(sorted(tags.items()))] += one.values
        found: list[MetricAggregate] = await reader.query_metric_aggregates(
            name=name, period_type=period_type, group_by=group_by, start=start, timezone=zone
        )
        got = {(max(a.period_start.astimezone(UTC), start), tuple(sorted(a.tags.items()))): a for a in found}
        assert len(got) == len(found)
        assert got.keys() == wanted.keys()
        assert [a.period_start for a in found] == sorted(a.period_start for a in found)
        for key, a in got.items():
            values = wanted[key]
            assert (a.count, a.min, a.max) == (len(values), min(values), max(values))
            assert [a.sum, a.avg] == pytest.approx([sum(values), sum(values) / len(values)], abs=1e-6)
            if a.metric_type == "counter":
                assert a.p50 is a.p90 is a.p99 is None
                seconds = 3600 if period_type == "hourly" else 86400
                if key[0] + timedelta(seconds=seconds) < now:
                    assert a.rate_per_second is not None
                    assert math.isclose(a.rate_per_second, sum(values) / seconds, abs_tol=1e-12)
            else:
                assert a.rate_per_second is None
                for found_one, q in ((a.p50, 0.5), (a.p90, 0.9), (a.p99, 0.99)):
                    assert is_close(found_one, values, q)


@pytest.mark.on_servers("test_sqlite.py reads what stands in a file")
async def test_numbers_of_dashboards_and_of_the_moment(database: Database, reader: AnalyticsReader) -> None:
    connection = await database.connect()
    writer, other = f"writer_{database.name}", f"login_{database.name}_w"
    await make_roles(database.dsn, writer=writer, reader=f"reader_{database.name}")
    await connection.execute(f'CREATE ROLE "{other}" LOGIN PASSWORD \'pass\' IN ROLE "{writer}"')
    url = database.cluster.dsn(database.name, other, "pass")
    for value in (10, 10, 25, 0, 5):
        await set_dashboard_metric(url, "sales", "orders", value)
        [number] = await reader.get_dashboard_metrics(widget_id="sales")
    assert (number.value, number.previous_value, number.change_percent) == (5.0, 0.0, None)
    async with asyncpg.create_pool(url, min_size=1, max_size=1) as pool:
        await set_dashboard_metric(pool, "sales", "orders", -15)
        await update_realtime_metric(pool, "gone", 1, ttl=1e-6)
    [number] = await reader.get_dashboard_metrics(widget_id="sales")
    assert (number.value, number.previous_value, number.change_percent) == (-15.0, 5.0, -400.0)
    await connection.execute(
        "INSERT INTO analytics_events (id, timestamp, event_type, service, user_id, data)"
        " SELECT gen_random_uuid(), now() - n * INTERVAL '25 hours', 'api_request', 'shop', gen_random_uuid(),"
        " '{\"duration_ms\": 10}' FROM generate_series(1, 10) AS n"
    )
    overview = {n.metric_key: n for n in await reader.get_dashboard_metrics(widget_id="overview")}
    assert (overview["events"].value, overview["events"].previous_value) == (6.0, 4.0)
    assert (overview["active_users"].value, overview["api_requests"].change_percent) == (6.0, 50.0)
    assert (overview["avg_request_duration_ms"].value, overview["errors"].change_percent) == (10.0, None)

    await update_realtime_metric(url, "queue\x00", {"length": [1, "\x00"]}, window="day", ttl=60)
    await update_realtime_metric(url, "queue\x00", {"length": [2]}, window="hour", ttl=60)
    [moment] = await reader.get_realtime_metrics()
    assert (moment.metric_key, moment.metric_value, moment.time_window) == ("queue\ufffd", {"length": [2]}, "hour")
    assert moment.expires_at - moment.calculated_at == timedelta(seconds=60)
    sink = TimescaleSink(url)
    await sink.upkeep()
    await sink.aclose()
    assert await connection.fetchval("SELECT count(*) FROM analytics_metrics_realtime") == 1
    numbers: list[dict[str, Any]] = [
        {"value": math.nan}, {"value": "1"}, {"value": 1e301}, {"widget_id": ""}, {"metric_key": "k" * 256},
    ]  # fmt: skip
    number_of_widget: dict[str, Any] = {"widget_id": "a", "metric_key": "b", "value": 1.0}
    for wrong in numbers:
        with pytest.raises(ConfigError):
            await set_dashboard_metric(url, **(number_of_widget | wrong))
    moments: list[dict[str, Any]] = [
        {"window": "year"}, {"ttl": 0}, {"ttl": True}, {"value": object()}, {"value": "x" * 70_000}, {"key": ""},
    ]  # fmt: skip
    number_of_moment: dict[str, Any] = {"key": "a", "value": 1}
    for wrong in moments:
        with pytest.raises(ConfigError):
            await update_realtime_metric(url, **(number_of_moment | wrong))
    with pytest.raises(ConfigError, match="asyncpg pool"):
        await set_dashboard_metric(None, "a", "b", 1)
    await connection.execute(f'REVOKE "{writer}" FROM "{other}"')
    with pytest.raises(OperatorError):
        await set_dashboard_metric(url, "a", "b", 1)
    await connection.execute(f'DROP OWNED BY "{other}"; DROP ROLE "{other}"')
