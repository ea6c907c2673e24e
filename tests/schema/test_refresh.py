"""What is refreshed, what is not, and that nothing is ever lost by it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import asyncpg
import pytest

from asgi_analytics.admin.refresh import refresh
from asgi_analytics.errors import ConfigError
from tests.kit.databases import Database
from tests.schema.expected import assert_same, expected
from tests.schema.happenings import (
    DAY,
    HOUR,
    all_rows,
    happened,
    insert,
    keep_fresh,
    midnight,
    now,
    pending,
    rows,
    some_events,
    tasks,
)

FIRST_EIGHT = {
    "analytics_user_days",
    "analytics_task_stats_daily",
    "analytics_api_latency_hourly",
    "analytics_latency_histogram",
    "analytics_integration_health_daily",
    "analytics_auth_events_daily",
    "analytics_cocoon_activity_daily",
    "analytics_errors_hourly",
}
"""The aggregates of the seven views, and the histogram beside them; there may be more."""


async def created_on(connection: asyncpg.Connection, day: datetime) -> int:
    found = await connection.fetchval("SELECT created FROM analytics_task_stats_daily WHERE day = $1", day)
    return int(found or 0)


@pytest.mark.parametrize("days_ago", [4, *(pytest.param(days, marks=pytest.mark.long) for days in (2, 20, 88))])
async def test_a_late_event_reaches_its_aggregate_by_itself(database: Database, days_ago: int) -> None:
    random = Random(1)
    connection = await database.connect()
    noon = midnight(days_ago) + 12 * HOUR
    await insert(connection, tasks(random, *(now() - n * DAY for n in range(89)), noon))
    await keep_fresh(connection, database)
    before = await created_on(connection, midnight(days_ago))
    await insert(connection, tasks(random, noon, noon))
    assert await created_on(connection, midnight(days_ago)) == before  # it is computed, and not live
    assert await connection.fetchval("SELECT count(*) FROM analytics_pending()") > 0
    await keep_fresh(connection, database)
    assert await created_on(connection, midnight(days_ago)) == before + 2


async def test_changed_and_deleted_events_change_their_aggregate(database: Database) -> None:
    random = Random(2)
    connection = await database.connect()
    hours = [midnight(10) + n * HOUR for n in range(0, 24, 4)]
    kinds = ("api_request", "api_request", "task_created", "application_error")
    events = [happened(random, at, kind, error_message="x") for at, kind in zip(hours, kinds, strict=False)]
    await insert(connection, events)
    await refresh(connection)
    await connection.execute("DELETE FROM analytics_events WHERE id = $1", events[0].id)
    moved = "UPDATE analytics_events SET timestamp = timestamp + INTERVAL '2 hours' WHERE id = $1"
    await connection.execute(moved, events[1].id)
    await connection.execute("UPDATE analytics_events SET event_type = 'x' WHERE id = $1", events[2].id)
    await connection.execute(moved, events[3].id)
    await refresh(connection)
    left = [events[n]._replace(timestamp=events[n].timestamp + 2 * HOUR) for n in (1, 3)]
    assert_same(await all_rows(connection), expected([*left, events[2]._replace(event_type="x")]))


async def test_a_refresh_does_all_that_is_pending_and_says_what(database: Database) -> None:
    random = Random(3)
    connection = await database.connect()
    await insert(connection, some_events(random, 300, midnight(30), now()))
    began = now()
    to_do = await connection.fetch("SELECT * FROM analytics_pending()")
    done = await refresh(connection)
    assert [(one.view, one.start, one.end) for one in done] == [tuple(window) for window in to_do]
    assert all(one.duration_ms > 0 for one in done)
    assert await pending(connection, began) == []
    assert [one for one in await refresh(connection) if one.end is None or one.end <= began - HOUR] == []


async def test_a_refresh_of_a_range_leaves_the_rest_pending(database: Database) -> None:
    random = Random(4)
    connection = await database.connect()
    days = range(2, 42)
    await insert(connection, tasks(random, *(midnight(n) for n in days)))
    await refresh(connection)
    await insert(connection, tasks(random, *(midnight(n) + 13 * HOUR for n in days)))
    done = await refresh(connection, midnight(20), midnight(10))
    assert done
    assert all(one.start and one.end and midnight(20) <= one.start < one.end <= midnight(10) for one in done)
    for n in days:
        assert await created_on(connection, midnight(n)) == (2 if 10 < n <= 20 else 1), n

    await refresh(connection, until=midnight(30) - timedelta(minutes=1))  # days that are touched are taken whole
    assert [n for n in days if await created_on(connection, midnight(n)) == 2] == [*range(11, 21), *range(31, 42)]
    await refresh(connection, since=midnight(5) + 13 * HOUR)
    assert [n for n in days if await created_on(connection, midnight(n)) == 1] == [*range(6, 11), *range(21, 31)]


async def test_a_range_may_be_refreshed_before_what_is_older(database: Database) -> None:
    random = Random(11)
    connection = await database.connect()
    events = some_events(random, 300, midnight(60), now())
    await insert(connection, events)
    for since, until in ((20, 10), (50, 40), (60, 30), (45, 0), (61, -1)):
        await refresh(connection, midnight(since), midnight(until))
        if database.flavour == "postgresql":  # TimescaleDB computes nothing live that is older than what it refreshed
            assert_same(await all_rows(connection), expected(events))
    assert_same(await all_rows(connection), expected(events))


async def test_a_range_that_is_none_is_refused(database: Database) -> None:
    connection = await database.connect()
    with pytest.raises(ConfigError, match="swap them"):
        await refresh(connection, now(), now() - DAY)
    with pytest.raises(ConfigError, match="no time zone"):
        await refresh(connection, datetime(2026, 1, 1))
    async with connection.transaction():
        with pytest.raises(ConfigError, match="inside a transaction"):
            await refresh(connection)
    assert await refresh(connection, now() + DAY, now() + 2 * DAY) == []
    assert await refresh(connection, datetime(1, 1, 1, tzinfo=UTC), datetime(2, 1, 1, tzinfo=UTC)) == []


async def test_an_event_of_the_year_2099_does_not_end_real_time(database: Database) -> None:
    random = Random(8)
    connection = await database.connect()
    far = [happened(random, datetime(2099, 12, 31, 23, 59, tzinfo=UTC), "task_created", user=1)]
    events = far + some_events(random, 200, midnight(5), now())
    await insert(connection, events)
    for freshen in (refresh, lambda connection: keep_fresh(connection, database)):
        await freshen(connection)
        await refresh(connection, until=datetime(2100, 1, 1, tzinfo=UTC))
        new = some_events(random, 20, now() - timedelta(seconds=1), now())
        new += some_events(random, 20, now() + HOUR, now() + 3 * DAY)
        await insert(connection, new)
        events += new
        assert_same(await all_rows(connection), expected(events))
    assert (await rows(connection, "analytics_task_stats_daily"))[-1]["day"] == datetime(2099, 12, 31, tzinfo=UTC)


async def test_an_event_that_is_committed_late_is_not_missed(database: Database) -> None:
    random = Random(9)
    connection, writer = await database.connect(), await database.connect()
    day = midnight(9)
    await insert(connection, tasks(random, day))
    transaction = writer.transaction()
    await transaction.start()
    await insert(writer, tasks(random, day))
    await asyncio.wait_for(refresh(connection), 60)
    assert await created_on(connection, day) == 1
    await transaction.commit()
    await keep_fresh(connection, database)
    assert await created_on(connection, day) == 2


async def test_refreshes_at_once_and_writers_do_not_disturb_each_other(database: Database) -> None:
    random = Random(10)
    connections = [await database.connect() for _ in range(5)]
    events = some_events(random, 400, midnight(60), now())
    await insert(connections[0], events)
    written = list(events)

    async def write(connection: asyncpg.Connection) -> None:
        for _ in range(30):
            batch = some_events(random, 20, midnight(60), now())
            written.extend(batch)
            await insert(connection, batch)

    async def freshen(connection: asyncpg.Connection) -> Any:
        return await refresh(connection)

    await asyncio.wait_for(asyncio.gather(*map(write, connections[:2]), *map(freshen, connections[2:])), timeout=100)
    await refresh(connections[0])
    assert_same(await all_rows(connections[0]), expected(written))


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_only_one_process_does_the_upkeep(database: Database) -> None:
    one, other = await database.connect(), await database.connect()
    transaction = one.transaction()
    await transaction.start()
    assert await one.fetchval("SELECT analytics_upkeep()") is True
    assert await other.fetchval("SELECT analytics_upkeep()") is False
    await transaction.commit()
    assert await other.fetchval("SELECT analytics_upkeep()") is True


@pytest.mark.parametrize("database", ["timescaledb"], indirect=True)
async def test_policies_refresh_every_hour_the_last_three_days(database: Database) -> None:
    connection = await database.connect()
    found = await connection.fetch(
        "SELECT v.view_name, j.schedule_interval, j.config FROM timescaledb_information.continuous_aggregates v"
        " JOIN timescaledb_information.jobs j ON j.hypertable_name = v.view_name"
        " WHERE j.proc_name = 'policy_refresh_continuous_aggregate' AND NOT v.materialized_only"
    )
    aggregates = await connection.fetch("SELECT view_name FROM timescaledb_information.continuous_aggregates")
    by_their_own_job = {"analytics_session_parts_filled"}  # together with the sessions
    assert {name for name, _, _ in found} == {name for (name,) in aggregates} - by_their_own_job >= FIRST_EIGHT
    for name, interval, config in found:
        assert interval == timedelta(hours=1), name
        assert '"start_offset": "3 days"' in config
    jobs = "SELECT schedule_interval FROM timescaledb_information.jobs WHERE proc_name = $1"
    assert await connection.fetchval(jobs, "policy_retention") is None  # rows are dropped by category
    assert await connection.fetchval(jobs, "analytics_drop_all_old") == timedelta(hours=1)


@pytest.mark.parametrize("database", ["timescaledb"], indirect=True)
async def test_an_aggregate_is_indexed_by_its_bucket_and_by_what_is_looked_for(
    database: Database,
) -> None:
    """By default TimescaleDB makes an index per grouping column, which each refresh has to write."""
    connection = await database.connect()
    found = await connection.fetch(
        "SELECT v.view_name, split_part(i.indexdef, ' USING ', 2) AS index"
        " FROM timescaledb_information.continuous_aggregates AS v JOIN pg_indexes AS i"
        " ON i.tablename = v.materialization_hypertable_name AND i.schemaname = v.materialization_hypertable_schema"
    )
    names = {name for name, _ in found}
    assert names >= FIRST_EIGHT
    by_bucket = {(name, f"btree ({column} DESC)") for name in names for column in ("day", "hour", "quarter", "bucket")}
    others = {tuple(row) for row in found} - by_bucket
    assert {name for name, _ in by_bucket & {tuple(row) for row in found}} == names
    assert others == {
        ("analytics_consumer_days", "btree (user_id, day)"),
        ("analytics_session_parts_filled", "hash (key)"),
        ("analytics_type_quarters", "btree (event_type, quarter)"),
        ("analytics_user_days", "btree (user_id, day)"),
        ("analytics_user_quarters", "btree (user_id, quarter)"),
        ("analytics_user_types_daily", "btree (event_type, day)"),
    }
