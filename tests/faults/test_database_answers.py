"""The database has done what it was asked, and its answer is lost: nobody can know, and nothing is there twice."""

from __future__ import annotations

import asyncio

import pytest

from tests.faults.balance import assert_stored
from tests.faults.conftest import StartApplication
from tests.kit.databases import Database
from tests.kit.fakes import eventually
from tests.kit.proxy import Proxy
from tests.sinks.conftest import Rows
from tests.sinks.contract import ids, line

pytestmark = pytest.mark.usefixtures("impatient")
ACTIVE = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND application_name = 'asgi-analytics' AND state = 'active'"
)
WAITING = f"{ACTIVE} AND wait_event_type = 'Lock'"


def bad() -> bytes:
    return line().replace(b'"timestamp":"20', b'"timestamp":"47')


async def test_an_answer_that_is_lost_stores_nothing_twice(
    start_application: StartApplication, proxy: Proxy, database: Database
) -> None:
    application = start_application(proxy.dsn)
    client = application.client
    proxy.lose_answer(b"INSERT 0")  # the statement is its own transaction: this tag comes after the commit
    application.say(10)
    assert await client.aflush(20)
    assert proxy.lost == 1
    stats = client.stats()
    assert (stats.stored, stats.duplicates, stats.accepted) == (0, 10, 10)
    await assert_stored(client, database, application.accepted)


async def test_answers_that_are_lost_again_and_again_under_load_store_nothing_twice(
    start_application: StartApplication, proxy: Proxy, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The other statement, that looks for duplicates, answers with another tag.
    monkeypatch.setattr("asgi_analytics.sinks.timescale.CAREFUL_SECONDS", 0.0)
    application = start_application(proxy.dsn)
    client = application.client
    async with application.busy(500):
        for number in range(1, 11):
            proxy.lose_answer(b"INSERT 0")
            await eventually(lambda number=number: proxy.lost == number, 20)  # type: ignore[misc]
            batches = client.stats().batches
            await eventually(lambda batches=batches: client.stats().batches > batches, 20)  # type: ignore[misc]
    assert await client.aflush(20)
    assert client.stats().duplicates >= 10
    await assert_stored(client, database, application.accepted)
    assert application.refused == 0


async def test_an_answer_to_a_commit_that_is_lost_while_poison_is_sought_stores_nothing_twice(
    start_application: StartApplication, proxy: Proxy, database: Database, rows: Rows
) -> None:
    application = start_application(proxy.dsn, flush_interval=60.0)
    client = application.client
    poison = [bad(), bad()]
    application.say(3)
    for one in poison:
        assert client._queue.put(one, len(one))
    application.say(2)
    proxy.lose_answer(b"COMMIT")
    assert await client.aflush(20)
    assert proxy.lost == 1
    stats = client.stats()
    assert (stats.duplicates, stats.stored, stats.rejected.total(), stats.accepted) == (5, 0, 2, 7)
    await assert_stored(client, database, application.accepted)
    assert [row["id"] for row in await rows("analytics_dead_letters")] == ids(poison)


async def test_a_wire_that_is_cut_while_the_server_is_at_it_leaves_two_writers_and_each_event_once(
    start_application: StartApplication, proxy: Proxy, database: Database
) -> None:
    """The server does not notice: it goes on and commits, while the batch comes again on another connection."""
    administrator = await database.connect()
    await administrator.execute(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NEW; END';"
        "CREATE TRIGGER wait BEFORE INSERT ON analytics_events FOR EACH ROW EXECUTE FUNCTION wait();"
        "SELECT pg_advisory_lock(1)"
    )
    application = start_application(proxy.dsn, flush_interval=60.0)
    client = application.client
    application.say(20)
    flushing = asyncio.create_task(client.aflush(60))
    for writers in (1, 2):
        while await administrator.fetchval(WAITING) < writers:
            await asyncio.sleep(0.005)
        if writers == 1:
            proxy.cut()
    await administrator.execute("SELECT pg_advisory_unlock(1)")
    assert await flushing
    while await administrator.fetchval(ACTIVE):  # the one that nobody listens to any more
        await asyncio.sleep(0.005)
    assert client.stats().duplicates + client.stats().stored == 20
    await assert_stored(client, database, application.accepted)
