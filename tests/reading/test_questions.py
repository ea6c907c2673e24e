"""Every question answers what an independent computation does, in whatever state the aggregates are, in every zone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from random import Random
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest

from asgi_analytics.events import EnrichedEvent
from asgi_analytics.reading import QUESTIONS, AnalyticsReader
from tests.kit.databases import Database
from tests.kit.states import keep_fresh, refresh
from tests.reading import expected
from tests.reading.expected import Asked
from tests.reading.happened import ABOUT_WHAT_IS_KEPT, Event, insert, random_events

DAY = timedelta(days=1)
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe")
OTHER_DEFAULT = ("get_slowest_endpoints", "query_paths")
"""Whose range is not the last 30 days unless it is given."""
WITHOUT_RANGE = ("get_overview_stats", "get_pipeline_health")
ALONE = (
    "get_pipeline_health",
    "get_session",
    "query_funnel",
    "query_funnel_conversions",
    "query_metrics",
    "metric_stats",
    "query_metric_aggregates",
    *ABOUT_WHAT_IS_KEPT,
)
"""Whose tests are elsewhere."""
RAW = (
    "list_error_groups", "get_error_group", "list_slow_queries", "list_repeated_queries", "query_events",
    "query_sessions", "get_session_summary", "get_session_series", "get_session_breakdown", "query_paths",
    "query_trends",
)  # fmt: skip
"""Which know the environment."""
APPROXIMATE = ("p50_duration_ms", "p95_duration_ms", "p99_duration_ms")

VARIANTS: dict[str, list[dict[str, Any]]] = {
    "get_endpoint_latency": [{}, {"bucket": "day"}, {"bucket": "all"}],
    "get_latency_series": [
        {},
        {"bucket": "hour", "endpoint": "/orders"},
        {"bucket": "week", "method": "GET"},
        {"bucket": "month", "endpoint": "/orders", "method": "POST"},
        {"bucket": "all"},
    ],
    "get_slowest_endpoints": [{}, {"min_requests": 1, "limit": 3}],
    "get_apdex": [{}, {"threshold_ms": 3}],
    "get_api_consumers": [{}, {"limit": 4}],
    "get_error_group": [{"fingerprint": "f1"}],
    "list_slow_queries": [{}, {"endpoint": "/orders"}],
    "query_events": [{}, {"limit": 7}],
    "get_user_activity": [{"user_id": UUID(int=3)}],
    "get_feature_usage": [{}, {"feature_name": "task_failed"}, {"feature_name": "order_placed"}],
    "top_features": [{}, {"limit": 3}],
    "query_aggregations": [
        {},
        {"aggregation_type": "weekly", "event_category": "system"},
        {"aggregation_type": "hourly", "event_type": "api_request"},
        {"event_category": "interaction"},
    ],
    "query_trends": [
        {"series": ["task_created", "order_placed"]},
        {"series": ["task_failed"], "math": "unique_users", "interval": "week", "compare": True},
        {"series": ["api_request"], "math": "p95", "property": "data.duration_ms", "breakdown": "data.endpoint"},
    ],
}


def plain(value: Any) -> Any:
    """Return an answer as tuples and lists, with what only some of the fields show left out."""
    if isinstance(value, EnrichedEvent):
        return value.event_id
    if isinstance(value, msgspec.Struct):
        return tuple(plain(getattr(value, field)) for field in value.__struct_fields__ if field != "next")
    return [plain(one) for one in value] if isinstance(value, list) else value


def assert_same(found: Any, wanted: Any, where: Any, exact: bool = True) -> None:
    if isinstance(wanted, date) and not isinstance(wanted, datetime):
        assert found.date() == wanted, where
        assert found.time() <= time(1), where  # local midnight, or what the clocks are set forward to
    elif isinstance(wanted, list | tuple):
        assert len(found) == len(wanted), (where, found, wanted)
        for mine, theirs in zip(found, wanted, strict=True):
            assert_same(mine, theirs, where, exact)
    elif isinstance(wanted, float) and found is not None:
        assert math.isclose(found, wanted, rel_tol=1e-9 if exact else 0.0197, abs_tol=1e-12), (where, found, wanted)
    else:
        assert found == wanted, (where, found, wanted)
        assert type(found) is type(wanted) or isinstance(found, datetime | type(wanted)), (where, found, wanted)


def ranges(random: Random, now: datetime, zone: ZoneInfo) -> Iterator[tuple[dict[str, Any], datetime, datetime]]:
    """Yield ranges as they are asked, and what they mean."""

    def midnight(day: date) -> datetime:
        return datetime.combine(day, time.min, zone).astimezone(UTC)

    today = now.astimezone(zone).date()
    yield {}, midnight(today - 30 * DAY), midnight(today + DAY)
    first = today - random.randrange(3, 40) * DAY
    last = first + random.randrange(1, 12) * DAY
    yield {"start": first, "end": last}, midnight(first), midnight(last + DAY)
    start = now - random.random() * 40 * DAY
    end = start + random.random() * 9 * DAY
    yield {"start": start, "end": end}, start, end
    yield {"start": first, "end": now + 3 * DAY}, midnight(first), now + 3 * DAY


async def compare(
    reader: AnalyticsReader, name: str, events: list[Event], arguments: dict[str, Any], asked: Asked
) -> None:
    where = (name, arguments)
    compute: Any = getattr(expected, name)
    own = {key: value for key, value in arguments.items() if key in compute.__annotations__}
    if name == "get_error_group" and not any(
        e.data["fingerprint"] == "f1" for e in asked.within(events, "application_error")
    ):
        return
    answer = await getattr(reader, name)(**arguments)
    wanted = compute(events, asked, **own)
    if name == "get_apdex":
        assert {(row.endpoint, row.method) for row in answer} == set(wanted), where
        for row in answer:
            least, most = wanted[row.endpoint, row.method]
            assert least - 1e-12 <= row.apdex <= most + 1e-12, (where, row)
        assert [row.apdex for row in answer] == sorted(row.apdex for row in answer)
        return
    found = plain(answer)
    exact = arguments.get("bucket", "hour") == "hour"
    if name == "get_slowest_endpoints":
        slowness = [row.p99_duration_ms or 0 for row in answer]
        assert slowness == sorted(slowness, reverse=True), where
        limit = arguments.get("limit", 10)
        every = {row[1:4]: row for row in compute(events, asked, min_requests=own.get("min_requests", 20), limit=999)}
        assert len(found) == min(limit, len(every))
        found, wanted, exact = [*found], [every[row[1:4]] for row in found], False
    percentiles = slice(6, 9)
    if name == "list_slow_queries":
        percentiles, exact = slice(7, 8), False
    if name == "get_latency_series":
        percentiles, exact = slice(3, 6), False
    if not exact:  # all but the percentiles still is
        for mine, theirs in zip(found, wanted, strict=True):
            before, after = slice(0, percentiles.start), slice(percentiles.stop, None)
            assert_same((mine[before], mine[after]), (theirs[before], theirs[after]), where)
    assert_same(found, wanted, where, exact)


async def compare_all(reader: AnalyticsReader, events: list[Event], random: Random) -> None:
    for name in QUESTIONS:
        if name in ALONE:
            continue
        for variant in VARIANTS.get(name, [{}]):
            key = random.choice(ZONES)
            zone = ZoneInfo(key)
            service = random.choice([None, None, "shop", "nobody"])
            environment = random.choice([None, "staging"]) if name in RAW else None
            filters = {"timezone": key} | ({} if service is None else {"service": service})
            filters |= {} if environment is None else {"environment": environment}
            now = datetime.now(UTC)
            if name in WITHOUT_RANGE:
                asked = Asked(now, now, zone, now, service)
                await compare(reader, name, events, variant | filters, asked)
                continue
            for arguments, start, end in random.sample(list(ranges(random, now, zone)), 2):
                if name in OTHER_DEFAULT and not arguments:
                    continue
                asked = Asked(start, end, zone, now, service, environment)
                await compare(reader, name, events, variant | filters | arguments, asked)


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 6))])
async def test_every_question_equals_an_independent_computation(
    database: Database, reader: AnalyticsReader, seed: int
) -> None:
    random = Random(seed)
    connection = await database.connect()
    now = datetime.now(UTC)
    first = random_events(random, 1500, now - 45 * DAY, now - timedelta(seconds=1))
    await insert(connection, first)
    await compare_all(reader, first, random)  # all of it live

    await refresh(connection)
    await compare_all(reader, first, random)  # all but the newest bucket computed before

    late = random_events(random, 300, now - 45 * DAY, now)
    await insert(connection, late)
    await keep_fresh(connection, database)
    await compare_all(reader, first + late, random)


def test_every_question_is_a_method_and_has_an_independent_computation() -> None:
    for name, question in QUESTIONS.items():
        assert getattr(AnalyticsReader, name) is question.function, f"add {name} = … to AnalyticsReader"
        assert name in ALONE or hasattr(expected, name), f"compute {name} in tests/reading/expected.py"
