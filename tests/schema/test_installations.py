"""The steps in other schemas, twice in one database, on a database that holds events, and with few rights."""

from __future__ import annotations

from random import Random

import asyncpg
import pytest

from asgi_analytics.admin.refresh import refresh, refresh_views
from asgi_analytics.migrate.runner import migrate
from tests.kit.databases import PASSWORD, Database
from tests.schema.expected import assert_same, expected
from tests.schema.happenings import DAY, all_rows, insert, keep_fresh, lose, midnight, now, some_events

ODD = 'we"ird; Schema'
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
    stranger = await empty_database.connect()  # whose search_path has nothing of ours
    events = some_events(random, 300, midnight(70), now())
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
    assert await odd.fetchval("SELECT count(*) FROM analytics_pending()") == 0
    assert await odd.fetchval("SELECT analytics_latency_quantile(0.5, '-infinity', 'infinity')") > 0
    assert await stranger.fetchval("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") < 1


async def test_installations_in_one_database_do_not_know_each_other(
    empty_database: Database, odd: asyncpg.Connection
) -> None:
    random = Random(2)
    await migrate(empty_database.dsn, schema="second")
    second = await empty_database.connect(server_settings={"search_path": search_path("second")})
    mine, theirs = (some_events(random, 100, midnight(70), now()) for _ in range(2))
    await insert(odd, mine)
    await insert(second, theirs)
    await refresh(odd)
    assert await odd.fetchval("SELECT count(*) FROM analytics_pending()") == 0
    assert await second.fetchval("SELECT count(*) FROM analytics_pending()") > 0
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
        assert await connection.fetchval("SELECT min(timestamp) FROM analytics_events") > now() - 92 * DAY
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
    """Whoever owns the schema installs, refreshes and keeps; whoever may insert events does nothing but that."""
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
