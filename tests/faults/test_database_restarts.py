"""A server that was restarted between two writes costs neither an error nor an attempt."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import httpx2
import pytest

from asgi_analytics import AnalyticsClient, AnalyticsWorker, TimescaleSink
from asgi_analytics.sinks.http import HttpSink
from asgi_analytics.web.ingestion import create_ingestion_app
from tests.kit.databases import Cluster, Database
from tests.kit.proxy import Proxy
from tests.sinks.conftest import Connect, Rows, connect, discreet_log, impatient, rows, say
from tests.sinks.contract import line
from tests.web.ingestion.service import event

__all__ = ["connect", "discreet_log", "impatient", "rows"]


def cluster_of(database: Database) -> Cluster:
    assert isinstance(database.cluster, Cluster)
    return database.cluster


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_the_first_batch_after_a_restart_is_answered_with_200(private_database: Database, mode: str) -> None:
    connection = await private_database.connect()
    await connection.execute(f'ALTER DATABASE "{private_database.name}" SET synchronous_commit = on')
    app = create_ingestion_app(database_url=private_database.dsn)
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://service") as client:
        for _ in range(3):
            answers = await asyncio.gather(*(client.post("/events/batch", json=[event()]) for _ in range(4)))
            assert [answer.status_code for answer in answers] == [200] * 4
            cluster_of(private_database).restart(mode)  # blocks the loop: nothing tells the service meanwhile
        assert (await client.get("/ready")).status_code == 200
    await app.state.ingestion.aclose()
    connection = await private_database.connect()
    assert await connection.fetchval("SELECT count(*) FROM analytics_events") == 12


@pytest.mark.parametrize("private_database", ["postgresql"], indirect=True)
async def test_the_worker_needs_no_second_attempt_after_a_restart(private_database: Database, connect: Connect) -> None:
    client = connect(private_database.dsn)
    for number in range(1, 4):
        say(client, 5)
        assert await client.aflush(20)
        assert (client.stats().stored, client.stats().retries) == (5 * number, 0)
        await asyncio.to_thread(cluster_of(private_database).restart)


@pytest.mark.parametrize("private_database", ["postgresql"], indirect=True)
async def test_a_pool_of_the_applications_own_costs_no_attempt_either(private_database: Database) -> None:
    async with asyncpg.create_pool(private_database.dsn, min_size=2, max_size=2) as pool:
        sink = TimescaleSink(pool)
        await sink.write([line()])
        cluster_of(private_database).restart()
        await sink.write([line()])
        assert await pool.fetchval("SELECT count(*) FROM analytics_events") == 2


async def test_connections_that_ended_all_at_once_cost_no_attempt(database: Database, rows: Rows) -> None:
    sink = TimescaleSink(database.dsn)
    pool = await sink._connections._open()
    for connection in [await pool.acquire() for _ in range(2)]:  # as two writes at once leave them
        await pool.release(connection)
    await database.end_connections()
    await sink.write([line()])
    assert len(await rows()) == 1
    await sink.aclose()


@pytest.mark.parametrize("given", [False, True])
async def test_a_connection_that_ends_while_it_is_given_back_costs_no_attempt(
    database: Database, rows: Rows, monkeypatch: pytest.MonkeyPatch, given: bool
) -> None:
    """What asyncpg then says depends on which of the two comes first in the loop: here it is always the end."""

    async def end_first(pool: Any, connection: Any, **options: Any) -> None:
        holder = connection._holder
        holder._con.terminate()
        await holder.release(None)  # as the task does that was begun before the end

    pool = await asyncpg.create_pool(database.dsn, min_size=0, max_size=1) if given else None
    sink = TimescaleSink(pool or database.dsn)
    await sink.write([line()])
    with monkeypatch.context() as patched:
        patched.setattr(asyncpg.Pool, "release", end_first)
        for connection in sink._connections._kept:
            connection._con._protocol.abort()  # it has ended, and is given back at the next write
        await sink.write([line()])
    assert len(await rows()) == 2
    await sink.aclose()
    if pool is not None:
        await pool.close()


async def test_a_connection_that_was_cut_while_nothing_was_written_costs_no_attempt(
    database: Database, proxy: Proxy, rows: Rows
) -> None:
    sink = TimescaleSink(proxy.dsn)
    await asyncio.gather(*(sink.write([line()]) for _ in range(4)))
    for number in range(5, 8):
        proxy.cut()
        await sink.write([line()])
        assert len(await rows()) == number
    await sink.upkeep()
    await sink.aclose()


@pytest.mark.parametrize("private_database", ["postgresql"], indirect=True)
async def test_metrics_over_restarts_add_up_to_what_was_recorded(private_database: Database, connect: Connect) -> None:
    connection = await private_database.connect()
    await connection.execute(f'ALTER DATABASE "{private_database.name}" SET synchronous_commit = on')
    client = connect(private_database.dsn)
    for number in range(1, 4):
        for value in range(100):
            client.metrics.counter("orders", number, shop=value % 3)
            client.metrics.histogram("size", value)
        if number == 2:
            await asyncio.to_thread(cluster_of(private_database).restart, "immediate")
        assert await client.aflush(20)
    connection = await private_database.connect()
    found = await connection.fetch(
        "SELECT name, sum(count), sum(sum) FROM analytics_metrics GROUP BY name ORDER BY name"
    )
    assert [tuple(row) for row in found] == [("orders", 300, 600), ("size", 300, 3 * 4950)]


@pytest.mark.parametrize("private_database", ["postgresql"], indirect=True)
async def test_metrics_over_http_are_stored_once_whatever_the_database_does(private_database: Database) -> None:
    connection = await private_database.connect()
    await connection.execute(f'ALTER DATABASE "{private_database.name}" SET synchronous_commit = on')
    app = create_ingestion_app(database_url=private_database.dsn)
    transport = httpx2.ASGITransport(app=app)
    sink = HttpSink("http://service", make_client=lambda: httpx2.AsyncClient(transport=transport))
    client = AnalyticsClient(service="shop")
    async with AnalyticsWorker(client, sink):
        for number in range(3):
            for value in range(50):
                client.metrics.timing("duration", value)
            say(client, 1)
            if number == 1:
                await asyncio.to_thread(cluster_of(private_database).restart, "immediate")
            assert await client.aflush(20)
    await app.state.ingestion.aclose()
    connection = await private_database.connect()
    assert await connection.fetchval("SELECT count(*) FROM analytics_events") == 3
    found = await connection.fetchrow("SELECT sum(count), sum(sum), max(max) FROM analytics_metrics")
    assert tuple(found or ()) == (150, 3 * 1225, 49)
