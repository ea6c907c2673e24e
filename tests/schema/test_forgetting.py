"""What the aggregates forget with their events, and what they keep: a DELETE is a change, to drop old events is not."""

from __future__ import annotations

from datetime import timedelta
from random import Random
from uuid import UUID

import pytest

from asgi_analytics.admin.refresh import refresh
from tests.kit.databases import Database
from tests.schema.expected import assert_same, expected
from tests.schema.happenings import (
    HOUR,
    all_rows,
    compress,
    insert,
    keep_all,
    keep_fresh,
    lose,
    midnight,
    now,
    some_events,
    tasks,
)

plain = pytest.mark.parametrize("database", ["postgresql"], indirect=True)


async def test_a_user_who_is_deleted_day_by_day_leaves_no_trace_in_any_view(database: Database) -> None:
    """As the page on how to delete a user's data says; most days are in the columnstore."""
    random = Random(12)
    connection = await database.connect()
    events = some_events(random, 400, midnight(30), now())
    await insert(connection, events)
    await refresh(connection)
    await compress(connection, database)
    user = max((event.user_id for event in events if event.user_id), key=lambda one: one.int)
    left = [event for event in events if event.user_id != user]
    assert len(left) < len(events)
    delete = "DELETE FROM analytics_events WHERE user_id = $1 AND timestamp >= $2 AND timestamp < $3"
    for day in range(30, -1, -1):
        await connection.execute(delete, user, midnight(day), midnight(day - 1))
    await refresh(connection)
    assert_same(await all_rows(connection), expected(left))
    for relation in (
        "analytics_events",
        "analytics_user_days",
        "analytics_user_quarters",
        "analytics_user_types_daily",
        "analytics_session_parts_filled",
        "analytics_sessions_filled",
        "analytics_sessions",
    ):
        assert not await connection.fetchval(f"SELECT count(*) FROM {relation} WHERE user_id = $1", user)


@pytest.mark.parametrize("days_ago", [4, *(pytest.param(days, marks=pytest.mark.long) for days in (2, 20, 89))])
@pytest.mark.parametrize("freshen", ["refresh", "by itself"])
async def test_a_day_with_one_person_only_is_empty_when_that_person_is_erased(
    database: Database, days_ago: int, freshen: str
) -> None:
    random = Random(13)
    connection = await database.connect()
    erased = tasks(random, midnight(days_ago), midnight(days_ago) + 23 * HOUR)
    others = some_events(random, 100, midnight(days_ago - 1), midnight(days_ago - 1) + HOUR)
    others += some_events(random, 100, midnight(89), midnight(days_ago)) if days_ago < 89 else []
    others = [event for event in others if event.user_id != UUID(int=2)]
    await insert(connection, erased + others)
    await refresh(connection)
    assert_same(await all_rows(connection), expected(erased + others))
    await compress(connection, database)

    await connection.execute("DELETE FROM analytics_events WHERE user_id = $1", UUID(int=2))
    behind = {row["view_name"] for row in await connection.fetch("SELECT view_name FROM analytics_pending()")}
    assert {"analytics_user_days", "analytics_task_stats_daily"} <= behind
    if freshen == "refresh":
        assert "analytics_user_days" in {one.view for one in await refresh(connection)}
    else:
        await keep_fresh(connection, database)
    assert_same(await all_rows(connection), expected(others))
    assert not await connection.fetchval("SELECT count(*) FROM analytics_user_days WHERE user_id = $1", UUID(int=2))
    assert await refresh(connection) == []

    late = tasks(random, midnight(days_ago) + HOUR)
    await insert(connection, late)
    await refresh(connection)
    assert_same(await all_rows(connection), expected(others + late))


async def test_nothing_is_lost_when_raw_events_are_dropped(database: Database) -> None:
    random = Random(5)
    connection = await database.connect()
    events = some_events(random, 1000, midnight(85), now())
    await insert(connection, events)
    await refresh(connection)
    before = await all_rows(connection)
    assert_same(before, expected(events))

    await lose(connection, database, midnight(30))
    assert await connection.fetchval("SELECT min(timestamp) FROM analytics_events") >= midnight(30)
    await keep_fresh(connection, database)
    await refresh(connection)
    await refresh(connection, midnight(89), now())
    await refresh(connection, until=midnight(20))
    assert_same(await all_rows(connection), before)

    # One that comes late into a day that was dropped is not taken for all that there was.
    await insert(connection, tasks(random, midnight(40) + HOUR, midnight(20) + HOUR))
    await keep_fresh(connection, database)
    await refresh(connection, midnight(89), now())
    after = await all_rows(connection)
    stats, stats_before = after["analytics_task_stats_daily"], before["analytics_task_stats_daily"]
    changed = {row["day"]: row["created"] for row in stats if row not in stats_before}
    assert list(changed) == [midnight(20)]
    assert [row for row in after["analytics_errors_hourly"] if row not in before["analytics_errors_hourly"]] == []


async def test_what_changed_before_its_day_was_dropped_does_not_empty_the_day(database: Database) -> None:
    random = Random(14)
    connection = await database.connect()
    events = some_events(random, 300, midnight(60), midnight(10))
    await insert(connection, events)
    await refresh(connection)
    before = await all_rows(connection)
    await insert(connection, tasks(random, midnight(40) + HOUR))
    await connection.execute("DELETE FROM analytics_events WHERE id = $1", events[0].id)
    await lose(connection, database, midnight(5))
    for _ in range(2):
        await keep_fresh(connection, database)
        await refresh(connection)
        assert_same(await all_rows(connection), before)


@plain
async def test_a_partition_that_was_truncated_keeps_its_aggregates(database: Database) -> None:
    random = Random(15)
    connection = await database.connect()
    events = tasks(random, midnight(40), midnight(20))
    await insert(connection, events)
    await refresh(connection)
    await connection.execute(f"TRUNCATE analytics_events_{midnight(40):%Y%m%d}")
    await keep_fresh(connection, database)
    await insert(connection, tasks(random, midnight(40) + HOUR))
    await keep_fresh(connection, database)
    assert_same(await all_rows(connection), expected(events))


@plain
async def test_events_that_were_never_filled_are_counted_before_they_are_dropped(database: Database) -> None:
    """As after a pause in which no worker ran, and the retention passed."""
    random = Random(16)
    connection = await database.connect()
    events = some_events(random, 200, midnight(80), now())
    await insert(connection, events)
    await keep_all(connection, timedelta(days=30))
    await keep_fresh(connection, database)
    assert await connection.fetchval("SELECT min(timestamp) FROM analytics_events") >= midnight(30)
    assert_same(await all_rows(connection), expected(events))


async def test_retention_drops_events_and_keeps_their_aggregates(database: Database) -> None:
    random = Random(7)
    connection = await database.connect()
    events = some_events(random, 1000, midnight(88), now()) + tasks(random, midnight(60) + HOUR, midnight(59) + HOUR)
    await insert(connection, events)
    await refresh(connection)
    before = await all_rows(connection)
    # Thirty days pass. The last moment that is kept is in the middle of a day, at whatever time this runs.
    await keep_all(connection, now() - midnight(60) - timedelta(hours=12))
    for _ in range(2):
        await keep_fresh(connection, database)
        oldest = await connection.fetchval("SELECT min(timestamp) FROM analytics_events")
        assert midnight(60) <= oldest < midnight(58)
        assert_same(await all_rows(connection), before)
        await refresh(connection)
        await refresh(connection, midnight(88), now())
        assert_same(await all_rows(connection), before)
    # What is older than the retention is not counted. The first day of the retention is still there as a whole.
    late = tasks(random, midnight(60) + HOUR, midnight(60) + 23 * HOUR)
    await insert(connection, [*tasks(random, midnight(75)), *late])
    await refresh(connection)
    await keep_fresh(connection, database)
    assert_same(await all_rows(connection), expected(events + late))
