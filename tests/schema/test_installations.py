"""The steps in other schemas, twice in one database, on a database that holds events, and with few rights."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import asyncpg
import pytest

from asgi_analytics.admin.refresh import refresh, refresh_views
from asgi_analytics.admin.roles import make_roles
from asgi_analytics.migrate.files import shipped_folder
from asgi_analytics.migrate.ledger import UnreleasedSchema, create_sql
from asgi_analytics.migrate.runner import dry_run, migrate, status
from tests.kit.databases import PASSWORD, Database
from tests.schema.expected import assert_same, expected
from tests.schema.happenings import (
    DAY,
    Happened,
    all_rows,
    happened,
    in_order,
    insert,
    keep_fresh,
    lose,
    midnight,
    now,
    pending,
    rows,
    some_events,
)
from tests.schema.measures import hour_of

EVENTS = (
    "CREATE TABLE analytics_events (id uuid, timestamp timestamptz, event_type text, service text, user_id uuid,"
    " session_id text, data jsonb, context jsonb, PRIMARY KEY (timestamp, id))"
)
ODD = 'we"ird; Schema'
OLDEST = "SELECT min(timestamp) FROM analytics_events WHERE event_type = 'api_request'"
STATE = (
    "SELECT * FROM (SELECT c.relname::text, c.relkind::text, pg_get_viewdef(c.oid) FROM pg_class c"
    " WHERE relnamespace = current_schema()::regnamespace) t ORDER BY 1, 2"
)


def search_path(schema: str) -> str:
    return '"' + schema.replace('"', '""') + '", public'


@pytest.fixture
async def odd(empty_database: Database) -> asyncpg.Connection:
    """Give a connection to an installation in a schema of an odd name."""
    await migrate(empty_database.dsn, schema=ODD)
    return await empty_database.connect(server_settings={"search_path": search_path(ODD)})


async def test_all_of_it_works_in_a_schema_of_an_odd_name(empty_database: Database, odd: asyncpg.Connection) -> None:
    random = Random(1)
    stranger = await empty_database.connect()  # its search_path does not contain the schema
    began = now()
    events = some_events(random, 300, midnight(70), began)
    await insert(odd, events)
    done = await refresh_views(empty_database.dsn, schema=ODD)
    assert done.refreshed
    late = some_events(random, 30, midnight(70), now())
    await insert(odd, late)
    if empty_database.flavour == "postgresql":
        quoted = search_path(ODD).removesuffix(", public")
        assert await stranger.fetchval(f"SELECT {quoted}.analytics_upkeep()")
    else:
        await keep_fresh(stranger, empty_database)
    assert_same(await all_rows(odd), expected(events + late))
    assert await pending(odd, began) == []
    assert await odd.fetchval("SELECT analytics_latency_quantile(0.5, '-infinity', 'infinity')") > 0
    assert await stranger.fetchval("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") < 1


@pytest.mark.long
async def test_installations_in_one_database_do_not_know_each_other(
    empty_database: Database, odd: asyncpg.Connection
) -> None:
    random = Random(2)
    await migrate(empty_database.dsn, schema="second")
    second = await empty_database.connect(server_settings={"search_path": search_path("second")})
    began = now()
    mine, theirs = (some_events(random, 100, midnight(70), began) for _ in range(2))
    await insert(odd, mine)
    await insert(second, theirs)
    await refresh(odd)
    assert await pending(odd, began) == []
    assert await pending(second, began) != []
    await lose(odd, empty_database, midnight(30))
    await keep_fresh(second, empty_database)
    await refresh(odd)
    assert_same(await all_rows(odd), expected(mine))
    assert_same(await all_rows(second), expected(theirs))


async def test_post_computes_the_events_that_were_there_before(empty_database: Database) -> None:
    random = Random(3)
    await migrate(empty_database.dsn, phase="pre")
    connection = await empty_database.connect()
    # Also such as are older than any retention, and will be dropped at once: their aggregates are kept.
    events = some_events(random, 600, midnight(400), now())
    await insert(connection, events)
    await migrate(empty_database.dsn, phase="post")
    assert_same(await all_rows(connection), expected(events))
    for _ in range(2):
        await keep_fresh(connection, empty_database)
        await refresh(connection)
        assert await connection.fetchval(OLDEST) > now() - 92 * DAY
        assert_same(await all_rows(connection), expected(events))


async def test_nothing_is_left_to_do_after_the_first_run(empty_database: Database) -> None:
    first = await migrate(empty_database.dsn)
    connection = await empty_database.connect()
    state = await connection.fetch(STATE)
    second = await migrate(empty_database.dsn)
    assert (len(second.applied), second.pending) == (0, ())
    assert first.applied
    assert await connection.fetch(STATE) == state


async def test_no_superuser_is_needed(empty_database: Database) -> None:
    """The owner of the schema installs, refreshes and keeps; the writer inserts events and does nothing else."""
    random = Random(5)
    admin = await empty_database.connect()
    owner, writer = f"owner_{empty_database.name}", f"writer_{empty_database.name}"
    for role in (owner, writer):
        await admin.execute(f"CREATE ROLE \"{role}\" LOGIN PASSWORD '{PASSWORD}'")
    try:
        if empty_database.flavour == "timescaledb":
            await admin.execute("CREATE EXTENSION timescaledb")
        await admin.execute(f'CREATE SCHEMA events AUTHORIZATION "{owner}"')
        owner_dsn = empty_database.cluster.dsn(empty_database.name, user=owner)
        report = await migrate(owner_dsn, schema="events")
        assert report.flavour == empty_database.flavour
        connection = await asyncpg.connect(owner_dsn, server_settings={"search_path": "events, public"})
        await connection.execute(
            f'GRANT USAGE ON SCHEMA events TO "{writer}";'
            f'GRANT INSERT ON analytics_events, analytics_dead_letters TO "{writer}";'
            f'GRANT SELECT (timestamp, id) ON analytics_events TO "{writer}";'
            f'GRANT EXECUTE ON FUNCTION analytics_upkeep() TO "{writer}";'
        )
        application = await asyncpg.connect(
            empty_database.cluster.dsn(empty_database.name, user=writer),
            server_settings={"search_path": "events, public"},
        )
        events = some_events(random, 200, midnight(60), now())
        await insert(application, events)
        assert await application.fetchval("SELECT analytics_upkeep()")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await application.fetch("SELECT * FROM analytics_task_stats_daily")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await application.execute("DELETE FROM analytics_events")
        await refresh(connection)
        await keep_fresh(connection, empty_database)
        assert_same(await all_rows(connection), expected(events))
        for one in (connection, application):
            await one.close()
    finally:
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename IN ($1, $2)", owner, writer
        )
        for role in (owner, writer):
            await admin.execute(f'REASSIGN OWNED BY "{role}" TO CURRENT_USER')
            await admin.execute(f'DROP OWNED BY "{role}"')
            await admin.execute(f'DROP ROLE "{role}"')


@pytest.mark.parametrize("empty_database", ["postgresql"], indirect=True)
async def test_a_writer_cannot_make_the_owner_do_anything(empty_database: Database) -> None:
    """The functions that run with the owner's rights do not take a writer's temporary table for one of ours."""
    await migrate(empty_database.dsn)
    connection = await empty_database.connect()
    await connection.execute("CREATE TEMPORARY TABLE analytics_changes (hour timestamptz NOT NULL)")
    await connection.execute("CREATE TEMPORARY TABLE analytics_fills (LIKE public.analytics_fills)")
    await insert(connection, some_events(Random(6), 10, midnight(5), midnight(2)))
    assert await connection.fetchval("SELECT count(*) FROM pg_temp.analytics_changes") == 0
    assert await connection.fetchval("SELECT count(*) FROM public.analytics_changes") > 0
    assert await connection.fetchval("SELECT analytics_upkeep()")
    assert await connection.fetchval("SELECT count(*) FROM public.analytics_changes") == 0


LATER = """\
-- Count page views by hour and service

-- timescaledb

CREATE MATERIALIZED VIEW analytics_pages_hourly
WITH (timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false) AS
SELECT time_bucket('1 hour', timestamp) AS hour, service, count(*) AS views
FROM analytics_events
WHERE event_type = 'page_viewed'
GROUP BY hour, service
WITH NO DATA;

SELECT analytics_keep_fresh('analytics_pages_hourly');

-- postgresql

CREATE FUNCTION analytics_pages_hourly_live(since timestamptz, until timestamptz) RETURNS TABLE (
    hour timestamptz,
    service text,
    views bigint
)
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
    SELECT analytics_bucket('1 hour', timestamp) AS hour, service, count(*) AS views
    FROM analytics_events
    WHERE timestamp >= since AND timestamp < until AND event_type = 'page_viewed'
    GROUP BY hour, service;
    END;

SELECT analytics_make_filled('analytics_pages_hourly', '1 hour');
"""


def pages(events: list[Happened]) -> list[dict[str, Any]]:
    seen = Counter((hour_of(event), event.service) for event in events if event.event_type == "page_viewed")
    return in_order([{"hour": hour, "service": service, "views": n} for (hour, service), n in seen.items()])


@pytest.mark.long
async def test_a_later_aggregate_needs_its_own_file_and_nothing_else(database: Database, tmp_path: Path) -> None:
    random = Random(7)
    connection = await database.connect()
    began = now()
    events = some_events(random, 1500, midnight(85), began)
    events += [happened(random, midnight(days) + DAY / 2, "page_viewed") for days in (60, 30)]
    await insert(connection, events)
    await refresh(connection)
    shutil.copytree(str(shipped_folder()), tmp_path / "steps")
    (tmp_path / "steps" / "900_post_pages.sql").write_text(LATER)
    report = await migrate(database.dsn, folder=tmp_path / "steps")
    assert [step.name for step in report.applied] == ["900_post_pages.sql"]

    assert await pending(connection, began) == [], "its history is not filled"
    assert await rows(connection, "analytics_pages_hourly") == pages(events)
    await lose(connection, database, midnight(40))
    late = [happened(random, midnight(days), "page_viewed") for days in (60, 30)]
    await keep_fresh(connection, database)
    await insert(connection, late)
    await keep_fresh(connection, database)
    assert await rows(connection, "analytics_pages_hourly") == pages(events + late[1:])
    assert_same(await all_rows(connection), expected(events + late[1:]))


@pytest.mark.parametrize(
    "first", [pytest.param("001_pre_events_hypertable.sql", marks=pytest.mark.long), "002_pre_events_partitioned.sql"]
)
async def test_a_schema_from_before_the_first_release_is_told_how_to_move(empty_database: Database, first: str) -> None:
    """The steps were written anew for the first release; the events of an older schema are copied."""
    random = Random(8)
    connection = await empty_database.connect(server_settings={"search_path": "old"})
    await connection.execute("CREATE SCHEMA old")
    await connection.execute(create_sql("postgresql"))
    await connection.execute(
        "INSERT INTO analytics_migrations (version, name, phase, checksum, duration_ms, library_version)"
        " VALUES (1, $1, 'pre', 'x', 1, '0.1.0')",
        first,
    )
    await connection.execute(EVENTS)
    events = some_events(random, 300, midnight(200), now())
    await insert(connection, events)
    for run in (migrate, status, dry_run, refresh_views, make_roles):
        with pytest.raises(
            UnreleasedSchema, match=r"^the schema old was made by an unreleased .* and drop the old"
        ) as e:
            await run(empty_database.dsn, schema="old")
        assert "\n" not in str(e.value)

    await migrate(empty_database.dsn, schema="new", phase="pre")
    await connection.execute("INSERT INTO new.analytics_events SELECT * FROM old.analytics_events")
    await migrate(empty_database.dsn, schema="new", phase="post")
    moved = await empty_database.connect(server_settings={"search_path": "new, public"})
    assert_same(await all_rows(moved), expected(events))
    await keep_fresh(moved, empty_database)
    assert_same(await all_rows(moved), expected(events))


@pytest.mark.long
async def test_the_script_of_a_dry_run_fills_the_history(empty_database: Database) -> None:
    random = Random(9)
    await migrate(empty_database.dsn, phase="pre")
    connection = await empty_database.connect()
    events = some_events(random, 300, midnight(200), now())
    await insert(connection, events)
    script = (await dry_run(empty_database.dsn)).sql
    assert script is not None
    await asyncio.to_thread(
        subprocess.run,
        [empty_database.psql, "-X", "-q", "-o", "/dev/null", "-v", "ON_ERROR_STOP=1", "-d", empty_database.dsn],
        input=script,
        text=True,
        check=True,
    )
    assert (await status(empty_database.dsn)).pending == ()
    await keep_fresh(connection, empty_database)
    assert await connection.fetchval(OLDEST) > now() - 92 * DAY
    assert_same(await all_rows(connection), expected(events))
