"""A server that was restarted between two writes costs neither an error nor an attempt."""

from __future__ import annotations

import asyncio

import asyncpg
import httpx2
import pytest

from asgi_analytics import TimescaleSink
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
