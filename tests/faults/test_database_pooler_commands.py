"""The commands behind PgBouncer: what needs a session of its own says so and changes nothing, everything else works."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest

from asgi_analytics.admin.refresh import refresh_views
from asgi_analytics.admin.roles import make_roles
from asgi_analytics.migrate import runner
from asgi_analytics.migrate.session import TransactionPooler
from tests.kit.databases import Database
from tests.kit.pgbouncer import PgBouncer

MakePgBouncer = Callable[..., PgBouncer]
OBJECTS = """
SELECT count(*) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relname LIKE 'analytics%' AND n.nspname NOT LIKE '\\_%'
"""
STATE = "SELECT current_setting('search_path') || current_setting('timezone') || current_setting('statement_timeout')"
LOCKS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"


async def idle_sessions(pooler: PgBouncer, query: str, number: int) -> list[Any]:
    """Return the answers of so many of the pooler's sessions, all of which are asked at once."""
    connections = [await asyncpg.connect(pooler.dsn, statement_cache_size=0) for _ in range(number)]
    for connection in connections:
        await connection.execute("BEGIN")
    answers = [await connection.fetchval(query) for connection in connections]
    for connection in connections:
        await connection.execute("COMMIT")
        await connection.close()
    return answers


@pytest.mark.parametrize(
    "settings", [{}, {"default_pool_size": "1"}, {"server_round_robin": "1"}], ids=["last", "only", "each in turn"]
)
@pytest.mark.parametrize("phase", ["all", "pre", "post"])
@pytest.mark.parametrize("empty_database", ["postgresql"], indirect=True)
async def test_a_migration_behind_a_transaction_pooler_changes_nothing_and_says_where_to_connect(
    empty_database: Database, make_pgbouncer: MakePgBouncer, settings: dict[str, str], phase: Any
) -> None:
    pooler = make_pgbouncer(empty_database, **settings)
    # Sessions that are idle, and clients that use them meanwhile.
    before = await idle_sessions(pooler, STATE, int(settings.get("default_pool_size", "3")))
    with pytest.raises(TransactionPooler, match="connect to the database itself") as caught:
        await runner.migrate(pooler.dsn, phase=phase, schema="stats")
    assert "\n" not in str(caught.value)
    connection = await empty_database.connect()
    assert await connection.fetchval("SELECT to_regnamespace('stats')") is None
    assert await connection.fetchval(OBJECTS) == 0
    assert await connection.fetchval(LOCKS) == 0
    assert await idle_sessions(pooler, STATE, len(before)) == before


async def test_a_busy_pooler_is_recognised_too(empty_database: Database, make_pgbouncer: MakePgBouncer) -> None:
    pooler = make_pgbouncer(empty_database, default_pool_size="5")
    pool = await asyncpg.create_pool(pooler.dsn, min_size=8, max_size=8, statement_cache_size=0)

    async def ask() -> None:
        while True:
            await pool.fetchval("SELECT pg_sleep(random() / 1000)")

    crowd = [asyncio.create_task(ask()) for _ in range(8)]
    try:
        for _ in range(10):
            with pytest.raises(TransactionPooler):
                await runner.migrate(pooler.dsn)
    finally:
        for one in crowd:
            one.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)
        pool.terminate()


async def test_a_pooler_in_session_mode_is_as_good_as_the_server(
    empty_database: Database, make_pgbouncer: MakePgBouncer
) -> None:
    pooler = make_pgbouncer(empty_database, pool_mode="session")
    report = await runner.migrate(pooler.dsn, schema="stats")
    assert report.applied
    assert not report.pending
    connection = await empty_database.connect()
    assert await connection.fetchval("SELECT to_regclass('stats.analytics_events') IS NOT NULL")
    assert await connection.fetchval("SELECT to_regclass('public.analytics_events') IS NULL")


async def test_a_connection_to_a_pooler_that_is_handed_in_is_refused(
    database: Database, make_pgbouncer: MakePgBouncer
) -> None:
    pooler = make_pgbouncer(database)
    connection = await asyncpg.connect(pooler.dsn, statement_cache_size=0)
    with pytest.raises(TransactionPooler, match="the connection is behind a transaction pooler"):
        await runner.migrate(connection)
    await connection.close()


async def test_a_connection_to_the_server_that_is_handed_in_is_taken(database: Database) -> None:
    assert not (await runner.migrate(await database.connect())).pending


async def test_a_refresh_behind_a_transaction_pooler_says_where_to_connect(
    database: Database, make_pgbouncer: MakePgBouncer
) -> None:
    pooler = make_pgbouncer(database)
    with pytest.raises(TransactionPooler, match="connect to the database itself"):
        await refresh_views(pooler.dsn)


@pytest.fixture
async def stats(empty_database: Database) -> Database:
    """Give a database with everything in the schema stats."""
    await runner.migrate(empty_database.dsn, schema="stats")
    return empty_database


async def test_status_and_dry_run_work_behind_a_transaction_pooler_and_leave_its_sessions_as_they_were(
    stats: Database, make_pgbouncer: MakePgBouncer
) -> None:
    pooler = make_pgbouncer(stats)
    before = await idle_sessions(pooler, STATE, 4)
    for _ in range(3):
        report = await runner.status(pooler.dsn, schema="stats")
        assert (report.schema, report.flavour, report.pending) == ("stats", stats.flavour, ())
        assert report.applied
        assert (await runner.status(f"{pooler.dsn}?schema=stats")).applied == report.applied
        assert (await runner.dry_run(pooler.dsn, schema="elsewhere")).pending
    assert await idle_sessions(pooler, STATE, 4) == before
    connection = await stats.connect()
    assert await connection.fetchval("SELECT to_regnamespace('elsewhere')") is None
    assert await connection.fetchval(LOCKS) == 0


async def test_roles_are_made_behind_a_transaction_pooler_in_the_schema_that_is_named(
    stats: Database, make_pgbouncer: MakePgBouncer
) -> None:
    pooler = make_pgbouncer(stats)
    before = await idle_sessions(pooler, STATE, 4)
    names = {purpose: f"{purpose}_{stats.name}" for purpose in ("writer", "reader")}
    connection = await stats.connect()
    try:
        for is_new in (True, False):
            report = await make_roles(pooler.dsn, schema="stats", writer=names["writer"], reader=names["reader"])
            assert [role.is_new for role in report.roles] == [is_new, is_new]
            assert (report.schema, report.warnings) == ("stats", ())
        right = "SELECT has_table_privilege($1, 'stats.analytics_events', $2)"
        assert await connection.fetchval(right, names["writer"], "INSERT")
        assert await connection.fetchval(right, names["reader"], "SELECT")
        assert not await connection.fetchval(right, names["writer"], "SELECT")
        assert await connection.fetchval(LOCKS) == 0
        assert await connection.fetchval("SELECT to_regclass('public.analytics_events') IS NULL")
        assert await idle_sessions(pooler, STATE, 4) == before
    finally:
        for name in names.values():
            await connection.execute(f'DROP OWNED BY "{name}"; DROP ROLE "{name}"')
