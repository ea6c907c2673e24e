"""The database goes away under a constant rate of events, in every way that networks and servers have."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import asyncpg
import pytest

from asgi_analytics.database import pool
from asgi_analytics.sinks import timescale
from tests.conftest import SERVERS
from tests.faults.balance import assert_balanced, assert_stored
from tests.faults.conftest import StartApplication, assert_nobody_has_to_act
from tests.kit.databases import PASSWORD, Cluster, Database
from tests.kit.fakes import eventually
from tests.kit.proxy import Proxy

OUR_SESSIONS = "FROM pg_stat_activity WHERE application_name = 'asgi-analytics' AND datname = current_database()"


async def away(
    start_application: StartApplication, proxy: Proxy, database: Database, *, seconds: float, queue_size: int
) -> tuple[int, int]:
    """Take the database away from an application that says 500 events a second; returns what it said, and what not."""
    application = start_application(proxy.dsn, queue_size=queue_size)
    client = application.client
    async with application.busy(500):
        await eventually(lambda: client.stats().stored, 20)
        proxy.refuse()
        proxy.cut()
        await eventually(lambda: client.stats().retries, 20)
        await asyncio.sleep(seconds)
        assert "no server answers at" in str(client.stats().last_error)
        proxy.accept()
        settled = client.stats().stored + client.stats().duplicates
        await eventually(lambda: client.stats().stored + client.stats().duplicates > settled, 60)
    await application.assert_stored_in(database, 60)
    assert client.stats().accepted == len(application.accepted)
    assert client.stats().dropped.total() == client.stats().dropped["queue_full"] == application.refused
    return len(application.accepted), application.refused


@pytest.mark.usefixtures("impatient")
async def test_an_outage_that_fits_into_the_queue_costs_nothing(
    start_application: StartApplication, proxy: Proxy, database: Database
) -> None:
    accepted, refused = await away(start_application, proxy, database, seconds=2, queue_size=10_000)
    assert accepted >= 1_000
    assert refused == 0


@pytest.mark.usefixtures("impatient")
async def test_an_outage_that_does_not_fit_costs_the_newest_and_counts_them(
    start_application: StartApplication, proxy: Proxy, database: Database
) -> None:
    _, refused = await away(start_application, proxy, database, seconds=1.5, queue_size=400)
    assert refused >= 200


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("queue_size", [10_000, 50_000])
async def test_an_outage_of_a_minute_costs_what_the_queue_cannot_hold(
    start_application: StartApplication, proxy: Proxy, database: Database, queue_size: int
) -> None:
    accepted, refused = await away(start_application, proxy, database, seconds=60, queue_size=queue_size)
    assert accepted + refused >= 30_000
    assert (refused == 0) == (queue_size == 50_000)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_a_server_that_is_restarted_under_load_costs_nothing(
    start_application: StartApplication, private_database: Database, mode: str
) -> None:
    cluster = private_database.cluster
    assert isinstance(cluster, Cluster)
    # A crash forgets what was answered but not flushed to the disk, unless the server is set up to keep its word.
    await asyncio.to_thread(cluster.stop)
    cluster.configure({"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"})
    await asyncio.to_thread(cluster.start)
    application = start_application(private_database.dsn)
    client = application.client
    async with application.busy(500):
        for _ in range(2):
            await application.stores_more(30)
            await asyncio.to_thread(cluster.stop, mode)
            await eventually(lambda: client.stats().last_error, 30)
            await asyncio.to_thread(cluster.start)
    assert await client.aflush(60)
    assert client.stats().retries >= 2
    await assert_stored(client, private_database, application.accepted)
    assert application.refused == 0


async def terminated(
    start_application: StartApplication, database: Database, *, times: int, every: float
) -> tuple[int, int]:
    """Terminate the sessions of an application that says 500 events a second, again and again."""
    application = start_application(database.dsn, queue_size=100_000)
    client = application.client
    administrator = await database.connect()
    killed = 0
    async with application.busy(500):
        for _ in range(times):
            await asyncio.sleep(every)
            killed += await administrator.fetchval(f"SELECT count(pg_terminate_backend(pid)) {OUR_SESSIONS}")
            assert_balanced(client.stats())
    await application.assert_stored_in(database, 60)
    assert application.refused == 0
    return killed, len(application.accepted)


@pytest.mark.usefixtures("impatient")
async def test_sessions_that_are_terminated_again_and_again_cost_nothing(
    start_application: StartApplication, database: Database
) -> None:
    killed, _ = await terminated(start_application, database, times=12, every=0.1)
    assert killed >= 6


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_sessions_that_are_terminated_every_two_seconds_for_a_minute_cost_nothing(
    start_application: StartApplication, database: Database
) -> None:
    killed, accepted = await terminated(start_application, database, times=30, every=2.0)
    assert killed >= 25
    assert accepted >= 29_000


@pytest.mark.usefixtures("impatient")
async def test_a_wire_that_stalls_under_load_is_given_up_and_tried_again(
    start_application: StartApplication, proxy: Proxy, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timescale, "WRITE_TIMEOUT", 0.2)
    monkeypatch.setattr(pool, "CONNECT_TIMEOUT", 0.3)
    application = start_application(proxy.dsn)
    client = application.client
    async with application.busy(500):
        await eventually(lambda: client.stats().stored)
        proxy.stall()
        await eventually(lambda: client.stats().retries >= 2, 20)
        assert "in time" in str(client.stats().last_error)
        assert not await client.aflush(0.1)
        # What stood on the wire arrives now, beside what is sent anew: the server may see a batch twice.
        monkeypatch.setattr(timescale, "WRITE_TIMEOUT", 10.0)
        monkeypatch.setattr(pool, "CONNECT_TIMEOUT", 10.0)
        proxy.resume()
        await eventually(lambda: client.stats().last_error is None, 30)
    await application.assert_stored_in(database, 30)
    assert application.refused == 0


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("flavour", SERVERS.available)
async def test_a_server_with_no_connection_left_is_waited_for(
    start_application: StartApplication,
    make_cluster: Callable[..., Cluster],
    flavour: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cluster = make_cluster(flavour, {"max_connections": "8", "superuser_reserved_connections": "2"})
    database = Database(cluster, cluster.template())
    administrator = await database.connect()
    await administrator.execute(
        f"CREATE ROLE writer LOGIN PASSWORD '{PASSWORD}'; GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO writer"
    )
    dsn = cluster.dsn(database.name, "writer")
    crowd = [await asyncpg.connect(dsn) for _ in range(5)]
    with pytest.raises(asyncpg.TooManyConnectionsError):
        await asyncpg.connect(dsn)
    application = start_application(dsn)
    client = application.client
    async with application.busy(500):
        await eventually(lambda: client.stats().retries >= 3)
        assert "53300" in str(client.stats().last_error)
        await crowd.pop().close()
        await eventually(lambda: client.stats().stored)
    await application.assert_stored_in(database)
    assert application.refused == 0
    assert_nobody_has_to_act(caplog)
    await client.aclose(5)
    for connection in crowd:
        await connection.close()
    await database.close()
