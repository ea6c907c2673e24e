"""Other sessions lock what the worker writes to: it waits, or is told to give way, and writes again."""

from __future__ import annotations

import asyncio
import contextlib

import asyncpg
import pytest

from asgi_analytics import AnalyticsClient, AnalyticsWorker, TimescaleSink
from tests.faults.balance import assert_stored, ids_in
from tests.faults.conftest import Application, StartApplication, assert_nobody_has_to_act
from tests.kit.databases import Database
from tests.kit.fakes import eventually

pytestmark = pytest.mark.usefixtures("impatient")

WAITS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'asgi-analytics'"
    " AND wait_event_type = 'Lock'"
)


async def test_a_table_that_is_locked_again_and_again_is_waited_for(
    start_application: StartApplication, database: Database
) -> None:
    application = start_application(database.dsn)
    client = application.client
    administrator, watcher = await database.connect(), await database.connect()
    async with application.busy(500):
        for _ in range(5):
            async with administrator.transaction():
                await administrator.execute("LOCK TABLE analytics_events IN ACCESS EXCLUSIVE MODE")
                while not await watcher.fetchval(WAITS):
                    await asyncio.sleep(0.005)
            await application.stores_more()
    assert await client.aflush(20)
    assert client.stats().retries == 0
    await assert_stored(client, database, application.accepted)
    assert application.refused == 0


async def test_a_lock_timeout_is_transient(
    start_application: StartApplication, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    administrator = await database.connect()
    await administrator.execute(f"ALTER DATABASE \"{database.name}\" SET lock_timeout = '50ms'")
    application = start_application(database.dsn)
    client = application.client
    async with application.busy(500):
        await eventually(lambda: client.stats().stored)
        async with administrator.transaction():
            await administrator.execute("LOCK TABLE analytics_events IN ACCESS EXCLUSIVE MODE")
            await eventually(lambda: client.stats().retries >= 3)
            assert "55P03" in str(client.stats().last_error)
        await eventually(lambda: client.stats().last_error is None)
    await application.assert_stored_in(database)
    assert application.refused == 0
    assert_nobody_has_to_act(caplog)


async def test_a_statement_timeout_is_transient(start_application: StartApplication, database: Database) -> None:
    administrator = await database.connect()
    await administrator.execute(f"ALTER DATABASE \"{database.name}\" SET statement_timeout = '50ms'")
    application = start_application(database.dsn)
    client = application.client
    async with application.busy(500):
        await eventually(lambda: client.stats().retries or client.stats().stored)
        async with administrator.transaction():
            await administrator.execute("LOCK TABLE analytics_events IN ACCESS EXCLUSIVE MODE")
            await eventually(lambda: client.stats().retries >= 3)
            assert "57014" in str(client.stats().last_error)
        await administrator.execute(f'ALTER DATABASE "{database.name}" RESET statement_timeout')
        await administrator.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'asgi-analytics'"
        )
        await eventually(lambda: client.stats().last_error is None)
    await application.assert_stored_in(database)


async def test_a_write_that_is_chosen_to_end_a_deadlock_is_made_again(
    start_application: StartApplication, database: Database
) -> None:
    """A trigger takes two locks in one order, another session in the other; the write looks for deadlocks first."""
    administrator, watcher = await database.connect(), await database.connect()
    await administrator.execute(
        "CREATE TABLE one (); CREATE TABLE two ();"
        "CREATE FUNCTION lock_both() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN LOCK TABLE one; LOCK TABLE two; RETURN NEW; END';"
        "CREATE TRIGGER lock_both BEFORE INSERT ON analytics_events FOR EACH ROW EXECUTE FUNCTION lock_both();"
        f"ALTER DATABASE \"{database.name}\" SET deadlock_timeout = '50ms'"
    )
    await administrator.execute("SET deadlock_timeout = '1min'")
    application = start_application(database.dsn)
    client = application.client
    async with application.busy(200):
        for number in range(1, 4):
            async with administrator.transaction():
                await administrator.execute("LOCK TABLE two")
                while not await watcher.fetchval(WAITS):  # the worker has the first and wants the second
                    await asyncio.sleep(0.005)
                await administrator.execute("LOCK TABLE one")  # given as soon as the worker's write has been ended
            await eventually(lambda number=number: client.stats().retries >= number)  # type: ignore[misc]
            await application.stores_more()
    await application.assert_stored_in(database)
    assert application.refused == 0


async def test_two_workers_with_the_same_events_in_opposite_order_store_each_once(database: Database) -> None:
    """As when a balancer gives one batch to two ingestion processes, or an answer was lost on the way to another."""
    first, second = AnalyticsClient(service="shop"), AnalyticsClient(service="shop")
    application = Application(first)
    application.say(3_000)
    lines = list(first._queue.items)
    for line in reversed(lines):
        assert isinstance(line, bytes)
        assert second._queue.put(line, len(line))
    async with (
        AnalyticsWorker(first, TimescaleSink(database.dsn)),
        AnalyticsWorker(second, TimescaleSink(database.dsn)),
    ):
        assert await first.aflush(60)
        assert await second.aflush(60)
    await assert_stored(first, database, application.accepted)
    await assert_stored(second, database, application.accepted)
    assert first.stats().stored + second.stats().stored == 3_000
    assert first.stats().duplicates + second.stats().duplicates == 3_000


async def test_a_migration_that_locks_the_table_and_gives_up_costs_nothing(
    start_application: StartApplication, database: Database
) -> None:
    """A change of the table waits behind the writes, and the writes behind it, until its lock timeout."""
    administrator, reader = await database.connect(), await database.connect()
    await administrator.execute("SET lock_timeout = '300ms'")
    application = start_application(database.dsn)
    client = application.client
    async with application.busy(500):
        await eventually(lambda: client.stats().stored)
        async with reader.transaction():
            await reader.execute("SELECT count(*) FROM analytics_events")  # holds the table against any change
            with contextlib.suppress(asyncpg.LockNotAvailableError):
                await administrator.execute("ALTER TABLE analytics_events ADD COLUMN note text")
                raise AssertionError("the change did not wait for the reader")
    assert await client.aflush(20)
    assert (len(await ids_in(database)), client.stats().retries) == (len(application.accepted), 0)
    await assert_stored(client, database, application.accepted)
