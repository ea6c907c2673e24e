"""Of days whose raw rows are gone, aggregates still answer, and what they do not know is refused, never guessed."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from asgi_analytics.errors import InvalidQuery
from asgi_analytics.reading import AnalyticsReader
from tests.kit.databases import Database
from tests.kit.states import lose, refresh
from tests.reading.expected import Asked, get_overview_stats, get_task_stats_daily, get_task_stats_overview
from tests.reading.happened import Event, insert, random_events
from tests.reading.test_questions import assert_same, compare, plain
from tests.schema.happenings import midnight

DAY = timedelta(days=1)
LOST = 20
"""Days ago up to which the raw rows are dropped."""


async def fill_and_lose(database: Database) -> list[Event]:
    now = datetime.now(UTC)
    events = random_events(Random(3), 1100, now - 40 * DAY, now - timedelta(seconds=1))
    # Some lie around the day that questions begin with, whatever the time of day is.
    events += random_events(Random(4), 100, midnight(37), midnight(34))
    connection = await database.connect()
    await insert(connection, events)
    await refresh(connection)
    await lose(connection, database, midnight(LOST))
    await refresh(connection)
    return events


async def test_what_is_asked_in_utc_is_still_exact(database: Database, reader: AnalyticsReader) -> None:
    events = await fill_and_lose(database)
    now = datetime.now(UTC)
    start = midnight(35)
    asked = Asked(start, midnight(-1), UTC, now)
    for name in (
        "get_daily_active_users", "get_weekly_active_users", "get_monthly_active_users", "get_task_stats_daily",
        "get_task_stats_overview", "get_endpoint_latency", "get_latency_series", "get_integration_health",
        "get_auth_stats", "get_cocoon_activity", "get_error_summary", "list_repeated_queries", "query_aggregations",
        "get_api_consumers", "get_apdex",
    ):  # fmt: skip
        await compare(reader, name, events, {"start": start.date()}, asked)
    assert_same(plain(await reader.get_overview_stats()), get_overview_stats(events, asked), "overview")


async def test_quarter_hours_answer_for_every_zone_and_service(database: Database, reader: AnalyticsReader) -> None:
    events = await fill_and_lose(database)
    now = datetime.now(UTC)
    zone = ZoneInfo("Asia/Kathmandu")
    start = datetime.combine(midnight(35).date(), datetime.min.time(), zone).astimezone(UTC)
    asked = Asked(start, now + 2 * DAY, zone, now, "shop")
    arguments = {"start": midnight(35).date(), "end": now + 2 * DAY, "timezone": "Asia/Kathmandu", "service": "shop"}
    for name in ("get_daily_active_users", "get_weekly_active_users", "get_task_stats_overview"):
        await compare(reader, name, events, arguments, asked)


NEEDS_RAW_ROWS: list[tuple[str, dict[str, Any]]] = [
    ("get_task_stats_daily", {"timezone": "Europe/Berlin"}),
    ("get_task_stats_daily", {"service": "shop"}),
    ("get_auth_stats", {"timezone": "America/New_York"}),
    ("get_endpoint_latency", {"timezone": "Asia/Kolkata"}),
    ("get_latency_series", {"timezone": "Asia/Kolkata"}),
    ("get_error_summary", {"timezone": "Asia/Kathmandu"}),
    ("query_aggregations", {"aggregation_type": "hourly", "event_type": "api_request"}),
    ("get_daily_active_users", {"start": midnight(35) + timedelta(hours=10, minutes=7)}),
    ("get_task_stats_daily", {"start": midnight(35) + timedelta(hours=10, minutes=7)}),
    ("list_error_groups", {}),
    ("get_error_group", {"fingerprint": "f1"}),
    ("list_slow_queries", {"timezone": "Europe/Berlin"}),
    ("get_api_consumers", {"timezone": "Europe/Berlin"}),
]


async def test_what_only_raw_rows_know_is_refused(database: Database, reader: AnalyticsReader) -> None:
    await fill_and_lose(database)
    since = f"{midnight(LOST):%Y-%m-%dT%H:%MZ}"
    for name, arguments in NEEDS_RAW_ROWS:
        with pytest.raises(InvalidQuery, match=rf"^start: .* needs the raw rows, which are kept from {since} on$"):
            await getattr(reader, name)(**{"start": midnight(35).date(), **arguments})
        # From then on it is answered.
        assert await getattr(reader, name)(**{**arguments, "start": midnight(LOST - 1).date()}) is not None


async def test_a_late_row_does_not_bring_a_day_back(database: Database, reader: AnalyticsReader) -> None:
    await fill_and_lose(database)
    late = random_events(Random(1), 1, midnight(30), midnight(29))
    await insert(await database.connect(), late)
    with pytest.raises(InvalidQuery, match="needs the raw rows"):
        await reader.get_task_stats_daily(start=date.today() - 32 * DAY, service="shop")


async def test_totals_do_not_shrink(database: Database, reader: AnalyticsReader) -> None:
    events = await fill_and_lose(database)
    asked = Asked(midnight(40), midnight(-1), UTC, datetime.now(UTC))
    overview = await reader.get_overview_stats()
    assert overview.total_tasks == sum(e.event_type == "task_created" for e in events)
    assert_same(plain(overview), get_overview_stats(events, asked), "overview")
    assert (await reader.get_overview_stats(service="shop")).total_users == len(
        {e.user_id for e in events if e.user_id and e.service == "shop"}
    )


async def test_a_database_that_never_had_older_rows_answers_every_range(
    database: Database, reader: AnalyticsReader
) -> None:
    now = datetime.now(UTC)
    events = random_events(Random(5), 200, now - 3 * DAY, now)
    await insert(await database.connect(), events)
    start = midnight(400).date()
    asked = Asked(midnight(400), midnight(-1), UTC, now, "shop")
    found = await reader.get_task_stats_daily(start=start, service="shop")
    assert_same(plain(found), get_task_stats_daily(events, asked), "tasks")
    whole = await reader.get_task_stats_overview(start=start, timezone="Asia/Kolkata", service="shop")
    assert_same(plain(whole), get_task_stats_overview(events, asked), "tasks")
    assert await reader.list_error_groups(start=start) is not None
