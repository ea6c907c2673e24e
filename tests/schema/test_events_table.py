"""The tables: what they refuse, what they store once, and the partitions of plain PostgreSQL."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from random import Random
from uuid import UUID

import asyncpg
import pytest

from tests.kit.databases import Database
from tests.schema.expected import assert_same, expected
from tests.schema.happenings import (
    DAY,
    HOUR,
    all_rows,
    happened,
    insert,
    keep_all,
    keep_fresh,
    midnight,
    now,
    some_events,
)

INSERT = (
    "INSERT INTO analytics_events (id, timestamp, event_type, service, data)"
    " VALUES ($1, $2::text::timestamptz, 'x', 's', '{}')"
)
plain = pytest.mark.parametrize("database", ["postgresql"], indirect=True)
timescaledb = pytest.mark.parametrize("database", ["timescaledb"], indirect=True)


COLUMNS = {
    "analytics_events": "id uuid, timestamp timestamp with time zone, event_type text, service text,"
    " user_id uuid null, session_id text null, data jsonb, context jsonb null, export_xid bigint null",
    "analytics_warehouse_sync_status": "sync_batch_id text, warehouse_type text, last_synced_event_id uuid null,"
    " last_synced_timestamp timestamp with time zone null, events_synced bigint, sync_duration_ms bigint null,"
    " sync_status text, error_details text null, created_at timestamp with time zone",
    "analytics_dead_letters": "id uuid, received_at timestamp with time zone, event_type text null,"
    " service text null, reason text, sqlstate text null, payload text",
    "analytics_user_traits": "user_id uuid, traits jsonb, role text null, registered_at timestamp with time zone null,"
    " updated_at timestamp with time zone, told_by jsonb",
    "analytics_funnels": "id uuid, name text, description text null, steps jsonb, conversion_window interval,"
    " created_at timestamp with time zone",
    "analytics_metrics": "id uuid, timestamp timestamp with time zone, name text, metric_type text,"
    " value double precision, unit text null, service text, tags jsonb, count bigint, sum double precision,"
    " min double precision, max double precision, last double precision, bins integer[] null, counts bigint[] null",
    "analytics_metrics_realtime": "metric_key text, metric_value jsonb, time_window text,"
    " calculated_at timestamp with time zone, expires_at timestamp with time zone",
    "analytics_retention": "category text, keep interval",
    "analytics_event_types": "event_type text, category text, dropped_before timestamp with time zone",
    "analytics_event_schemas": "event_type text, version integer, event_category text, schema_definition jsonb,"
    " required_fields text[], example_payload jsonb null, description text null, retention_days integer,"
    " is_active boolean, updated_at timestamp with time zone",
    "analytics_subject_requests": "id uuid, subject text, kind text, requested_at timestamp with time zone,"
    " due_at timestamp with time zone, completed_at timestamp with time zone null, rows jsonb",
}


async def test_the_tables_have_the_promised_columns(database: Database) -> None:
    connection = await database.connect()
    for table, wanted in COLUMNS.items():
        found = await connection.fetch(
            "SELECT attname || ' ' || format_type(atttypid, atttypmod) || CASE WHEN attnotnull THEN '' ELSE ' null' END"
            " FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 ORDER BY attnum",
            table,
        )
        assert ", ".join(text for (text,) in found) == wanted
    indexes = await connection.fetch("SELECT indexdef FROM pg_indexes WHERE tablename = 'analytics_events'")
    assert sorted(definition.partition("USING btree ")[2] for (definition,) in indexes) == [
        '("timestamp", id)',
        '(event_type, "timestamp")',
        '(service, "timestamp")',
        '(user_id, "timestamp") WHERE (user_id IS NOT NULL)',
    ]


@pytest.mark.parametrize(
    "moment",
    [
        "1999-12-31 23:59:59.999999Z", "2100-01-01 00:00:00Z", "2101-06-01Z", "4700-01-01Z", "4700-01-01 BC",
        "294276-01-01Z", "infinity", "-infinity",
    ],
)  # fmt: skip
async def test_times_that_no_event_has_are_refused(database: Database, moment: str) -> None:
    connection = await database.connect()
    with pytest.raises(asyncpg.PostgresError) as caught:
        await connection.execute(INSERT, UUID(int=1), moment)
    assert caught.value.sqlstate in ("23514", "22008"), caught.value  # what the sink takes for poison
    if "infinity" not in moment and not moment.startswith("294276"):  # beyond, TimescaleDB finds no chunk for it
        assert "analytics_events_timestamp_range" in str(caught.value)
    assert await connection.fetchval("SELECT count(*) FROM analytics_events") == 0


@pytest.mark.parametrize("moment", ["2000-01-01 00:00:00Z", "2099-12-31 23:59:59.999999Z"])
async def test_the_first_and_last_moment_are_stored(database: Database, moment: str) -> None:
    connection = await database.connect()
    await connection.execute(INSERT, UUID(int=1), moment)
    assert await connection.fetchval("SELECT count(*) FROM analytics_daily_active_users") == 1


async def test_an_event_is_stored_once(database: Database) -> None:
    random = Random(1)
    connection = await database.connect()
    events = some_events(random, 50, midnight(20), now())
    for _ in range(2):
        await insert(connection, events)
        await keep_fresh(connection, database)
    assert await connection.fetchval("SELECT count(*) FROM analytics_events") == 50
    assert_same(await all_rows(connection), expected(events))
    # Identity is the pair.
    await insert(connection, [events[0]._replace(timestamp=events[0].timestamp + HOUR)])
    assert await connection.fetchval("SELECT count(*) FROM analytics_events") == 51


async def test_a_dead_letter_is_kept_once(database: Database) -> None:
    connection = await database.connect()
    insert_one = (
        "INSERT INTO analytics_dead_letters (id, reason, payload) VALUES ($1, 'too deep', '{') ON CONFLICT DO NOTHING"
    )
    await connection.execute(insert_one, UUID(int=1))
    await connection.execute(insert_one, UUID(int=1))
    assert await connection.fetchval("SELECT count(*) FROM analytics_dead_letters WHERE received_at <= now()") == 1


@timescaledb
async def test_chunks_are_utc_days_and_become_columns(database: Database) -> None:
    random = Random(2)
    connection = await database.connect()
    events = some_events(random, 3000, midnight(20), now())
    await insert(connection, events)
    await keep_fresh(connection, database)
    chunks = await connection.fetch(
        "SELECT range_start, range_end, is_compressed FROM timescaledb_information.chunks"
        " WHERE hypertable_name = 'analytics_events'"
    )
    assert len(chunks) == len({event.timestamp.date() for event in events})
    for start, end, compressed in chunks:
        assert (start.time(), end - start) == (midnight(0).time(), DAY)
        assert compressed == (end < now() - 7 * DAY), start
    await insert(connection, events)  # into the columns as well
    late = [happened(random, midnight(15), "task_created", user=3)]
    await insert(connection, late)
    await keep_fresh(connection, database)
    assert_same(await all_rows(connection), expected(events + late))


async def partition_of(connection: asyncpg.Connection, at: datetime) -> str:
    found = await connection.fetchval("SELECT tableoid::regclass::text FROM analytics_events WHERE timestamp = $1", at)
    return str(found)


def partition_named(day: datetime) -> str:
    return f"analytics_events_{day:%Y%m%d}"


@plain
async def test_every_day_of_the_retention_and_a_week_ahead_have_a_partition(database: Database) -> None:
    random = Random(3)
    connection = await database.connect()
    days = [day for (day,) in await connection.fetch("SELECT day FROM analytics_partitions() ORDER BY day")]
    assert days == [midnight(0) + n * DAY for n in range(-90, 8)]
    for day in days:
        for at in (day, day + DAY - timedelta(microseconds=1)):
            await insert(connection, [happened(random, at, "x")])
            assert await partition_of(connection, at) == partition_named(day)


@plain
async def test_events_that_wait_in_the_default_partition_are_moved(database: Database) -> None:
    random = Random(4)
    connection = await database.connect()
    # As after a week without upkeep: the newest partitions are not made yet.
    for n in range(-7, 3):
        await connection.execute(f"DROP TABLE {partition_named(midnight(n))}")
    events = some_events(random, 300, midnight(12), now() + 7 * DAY)
    far = [happened(random, now() + 30 * DAY, "x"), happened(random, now() - 89 * DAY, "x")]
    await insert(connection, events + far)
    assert await connection.fetchval("SELECT count(*) FROM analytics_events_default") > 100
    assert await connection.fetchval("SELECT analytics_upkeep()")
    assert await connection.fetchval("SELECT count(*) FROM analytics_events_default") == 1
    assert await connection.fetchval("SELECT count(*) FROM analytics_events") == 302
    for event in events:
        assert await partition_of(connection, event.timestamp) == partition_named(event.timestamp)
    assert_same(await all_rows(connection), expected(events + far))
    shapes = [
        await connection.fetch(
            "SELECT split_part(indexdef, ' USING ', 2) FROM pg_indexes WHERE tablename = $1 ORDER BY 1",
            partition_named(day),
        )
        for day in (midnight(1), midnight(50))
    ]
    assert shapes[0] == shapes[1]
    assert len(shapes[0]) == 4
    await insert(connection, events)  # their key is still a key
    assert await connection.fetchval("SELECT count(*) FROM analytics_events") == 302


@plain
async def test_no_event_is_lost_or_refused_while_partitions_are_made(database: Database) -> None:
    random = Random(5)
    upkeep, *writers = [await database.connect() for _ in range(4)]
    for n in range(-7, 1):
        await upkeep.execute(f"DROP TABLE {partition_named(midnight(n))}")
    written = []
    done = asyncio.Event()

    async def write(connection: asyncpg.Connection) -> None:
        while not done.is_set():
            batch = some_events(random, 5, midnight(-1), midnight(-8))
            written.extend(batch)
            await insert(connection, batch)

    async def keep() -> None:
        await asyncio.sleep(0.2)
        while await upkeep.fetchval("SELECT count(*) FROM analytics_partitions()") < 98:
            assert await upkeep.fetchval("SELECT analytics_upkeep()")
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.2)
        done.set()

    await asyncio.wait_for(asyncio.gather(keep(), *map(write, writers)), 60)
    assert await upkeep.fetchval("SELECT count(*) FROM analytics_events_default") == 0
    assert await upkeep.fetchval("SELECT count(*) FROM analytics_events") == len(written)


@plain
async def test_old_partitions_are_dropped_and_what_is_as_old_in_the_default_one(database: Database) -> None:
    random = Random(6)
    connection = await database.connect()
    await keep_all(connection, timedelta(days=30))
    old = [happened(random, at, "x") for at in (midnight(31), midnight(89), midnight(200))]
    kept = [happened(random, at, "x") for at in (midnight(30), now() + 20 * DAY)]
    await insert(connection, old + kept)
    await keep_fresh(connection, database)
    left = await connection.fetch("SELECT id FROM analytics_events")
    assert {row["id"] for row in left} == {event.id for event in kept}
    days = [day for (day,) in await connection.fetch("SELECT day FROM analytics_partitions() ORDER BY day")]
    assert days[0] == midnight(30)


@plain
async def test_a_long_query_keeps_neither_upkeep_nor_writers_waiting(database: Database) -> None:
    random = Random(7)
    connection, reader, writer = [await database.connect() for _ in range(3)]
    await keep_all(connection, timedelta(days=30))
    transaction = reader.transaction()
    await transaction.start()
    await reader.fetch("SELECT count(*) FROM analytics_events")
    upkeep = asyncio.create_task(connection.fetchval("SELECT analytics_upkeep()"))
    await asyncio.sleep(0.1)
    await asyncio.wait_for(insert(writer, [happened(random, now(), "x")]), 30)
    assert await asyncio.wait_for(upkeep, 30) is True
    assert await connection.fetchval("SELECT count(*) FROM analytics_partitions()") == 98  # later
    await transaction.commit()
    await keep_fresh(connection, database)
    assert await connection.fetchval("SELECT count(*) FROM analytics_partitions()") == 38
