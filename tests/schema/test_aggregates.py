"""The views say the same as an independent computation, in whatever state their aggregates are.

Both flavours are compared with one computation of the same events, and so with each other.
"""

from __future__ import annotations

from datetime import timedelta
from random import Random
from typing import Any

import pytest

from asgi_analytics.admin.refresh import refresh
from tests.kit.databases import Database
from tests.schema.expected import VIEWS, assert_same, expected
from tests.schema.happenings import (
    DAY,
    HOUR,
    all_rows,
    happened,
    insert,
    keep_fresh,
    midnight,
    now,
    rows,
    some_events,
    views,
)

COLUMNS = """
analytics_daily_active_users: day, active_users, weekly_active_users, monthly_active_users, total_events
analytics_task_stats_daily: day, created, started, completed, failed, cancelled, avg_duration_ms, p95_duration_ms
analytics_api_latency_hourly: hour, service, endpoint, method, request_count, avg_duration_ms, p50_duration_ms, \
p95_duration_ms, p99_duration_ms, error_4xx_count, error_5xx_count
analytics_integration_health_daily: day, provider, connections, disconnections, uses, errors, unique_users
analytics_auth_events_daily: day, login_attempts, successful_logins, failed_logins, code_verifications, \
token_refreshes, unique_users_authenticated
analytics_cocoon_activity_daily: day, registrations, connections, disconnections, claims, \
avg_session_duration_seconds, unique_cocoons
analytics_errors_hourly: hour, service, error_type, fingerprint, error_count, affected_users, sample_error_message
"""
UNCLEAR: tuple[Any, ...] = (None, 1, "no", {})
TEXTS = ("service", "endpoint", "method", "provider", "error_type", "fingerprint", "sample_error_message")


async def test_the_views_have_the_promised_columns(database: Database) -> None:
    connection = await database.connect()
    for line in COLUMNS.strip().splitlines():
        view, columns = line.split(": ")
        found = await connection.fetch(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
            " WHERE attrelid = $1::text::regclass AND attnum > 0 ORDER BY attnum",
            view,
        )
        assert ", ".join(name for name, _ in found) == columns
        for name, kind in found:
            if name in ("day", "hour"):
                assert kind == "timestamp with time zone"
            elif name.startswith(("avg_", "p50_", "p95_", "p99_")):
                assert kind == "double precision"
            else:
                assert kind == ("text" if name in TEXTS else "bigint")


async def test_every_view_has_an_independent_computation(database: Database) -> None:
    assert await views(await database.connect()) == sorted(VIEWS)


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 5))])
async def test_views_equal_an_independent_computation(database: Database, seed: int) -> None:
    random = Random(seed)
    connection = await database.connect()
    first = some_events(random, 1500, now() - 86 * DAY, now() - timedelta(minutes=1))
    await insert(connection, first)
    assert_same(await all_rows(connection), expected(first))  # all of it live

    await refresh(connection)
    assert_same(await all_rows(connection), expected(first))  # all but the newest bucket computed before

    late = some_events(random, 300, now() - 86 * DAY, now())
    crowd = some_events(random, 300, midnight(40) - 2 * HOUR, midnight(40) + 2 * HOUR)
    await insert(connection, late + crowd)
    await keep_fresh(connection, database)
    assert_same(await all_rows(connection), expected(first + late + crowd))

    await refresh(connection)
    assert_same(await all_rows(connection), expected(first + late + crowd))
    assert await refresh(connection) == []


@pytest.mark.parametrize(
    "timezone",
    [
        "America/New_York",
        *(pytest.param(zone, marks=pytest.mark.long) for zone in ("Asia/Kolkata", "UTC", "Pacific/Kiritimati")),
    ],
)
async def test_days_and_hours_are_utc_in_every_session(database: Database, timezone: str) -> None:
    random = Random(4)
    writer = await database.connect()
    connection = await database.connect(server_settings={"timezone": timezone})
    # Around a change of the clocks in New York, if it is in reach, and at the first and last microsecond of days.
    events = some_events(random, 400, now() - 85 * DAY, now() - timedelta(minutes=1))
    for days_ago in (0, 1, 2, 30, 31, 60):
        for offset in (timedelta(0), timedelta(microseconds=-1)):
            for event_type in ("task_created", "api_request", "application_error"):
                event = happened(random, midnight(days_ago) + offset, event_type, user=days_ago)
                events.append(event._replace(data={"error_message": "x"}))
    await insert(writer, events)
    assert_same(await all_rows(connection), expected(events))
    await refresh(connection)
    await keep_fresh(connection, database)
    assert_same(await all_rows(connection), expected(events))
    assert_same(await all_rows(writer), expected(events))


async def test_a_user_counts_for_seven_and_thirty_days_and_no_longer(database: Database) -> None:
    random = Random(5)
    connection = await database.connect()
    known = [happened(random, midnight(50), "page_viewed", user=1)]
    unknown = [happened(random, midnight(days) + 12 * HOUR, "page_viewed") for days in range(50, 10, -1)]
    again = [happened(random, midnight(46) + 23 * HOUR, "page_viewed", user=1) for _ in range(3)]
    await insert(connection, known + unknown)
    for events, last in ((known + unknown, 50), (known + unknown + again, 46)):
        await insert(connection, again if last == 46 else unknown)
        await refresh(connection)
        found = {row["day"]: row for row in await rows(connection, "analytics_daily_active_users")}
        assert found[midnight(last)]["active_users"] == 1
        assert found[midnight(last - 1)]["active_users"] == 0
        assert found[midnight(last - 6)]["weekly_active_users"] == 1
        assert found[midnight(last - 7)]["weekly_active_users"] == 0
        assert found[midnight(last - 29)]["monthly_active_users"] == 1
        assert found[midnight(last - 30)]["monthly_active_users"] == 0
        assert_same(
            {"analytics_daily_active_users": list(found.values())},
            {"analytics_daily_active_users": expected(events)["analytics_daily_active_users"]},
        )


@pytest.mark.parametrize(
    "data",
    [
        "null", "[]", '"text"', "3", "{}",
        '{"success": "perhaps", "duration_ms": "soon", "status_code": {}, "duration_seconds": [], "provider": {}}',
        '{"duration_ms": 1e400, "duration_seconds": 1e400, "status_code": 1e400}',
        '{"duration_ms": 1e-400, "duration_seconds": 1e-400, "status_code": 1e-400}',
        '{"duration_ms": -1e300, "duration_seconds": -1, "status_code": -404, "success": null}',
        '{"success": {"success": true}, "duration_ms": true, "error_message": {"a": "b"}, "cocoon_id": 7}',
    ],
)  # fmt: skip
async def test_no_data_that_somebody_writes_by_hand_stops_an_aggregate(database: Database, data: str) -> None:
    random = Random(7)
    connection = await database.connect()
    events = some_events(random, 200, now() - 5 * DAY, now())
    await insert(connection, events)
    await connection.execute(
        "INSERT INTO analytics_events (id, timestamp, event_type, service, data)"
        " SELECT md5($1 || at || event_type)::uuid, at, event_type, 'shop', $1::jsonb"
        " FROM unnest($2::text[]) AS event_type, unnest($3::timestamptz[]) AS at",
        data,
        sorted({event.event_type for event in events} | {"page_view", "page_engaged"}),
        [now() - 2 * DAY, now()],
    )
    await refresh(connection)
    for view in VIEWS:
        assert await rows(connection, view) or view == "analytics_page_visitors_daily"  # of pages that have a name
    quantile = await connection.fetchval("SELECT analytics_latency_quantile(0.99, $1, $2)", now() - 9 * DAY, now())
    assert quantile is not None


async def test_success_is_the_json_boolean(database: Database) -> None:
    random = Random(8)
    connection = await database.connect()
    at = now() - 30 * DAY
    logins = [happened(random, at, "auth_login_attempt", user=i, success=s) for i, s in enumerate([True, True, False])]
    unclear = [happened(random, at, "auth_login_attempt", user=9, success=value) for value in UNCLEAR]
    codes = [happened(random, at, "auth_code_verified", user=8, success=False)]
    await insert(connection, [*logins, *unclear, *codes])
    await refresh(connection)
    [row] = await rows(connection, "analytics_auth_events_daily")
    assert list(row.values())[1:] == [7, 2, 1, 1, 0, 2]
