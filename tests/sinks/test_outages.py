"""Outages of the network and the server; afterwards everything is there, once."""

from __future__ import annotations

import asyncio
import time
from uuid import UUID

import pytest

from asgi_analytics.sinks import timescale
from tests.databases import Cluster, Database
from tests.fakes import eventually
from tests.proxy import Proxy
from tests.sinks.conftest import Connect, Rows, say
from tests.sinks.contract import line

ID = UUID("0198c1a2-0000-7000-8000-000000000001")


async def test_a_connection_that_is_cut_between_two_writes_costs_nothing(
    connect: Connect, proxy: Proxy, rows: Rows
) -> None:
    client = connect(proxy.dsn)
    for _ in range(3):
        say(client, 10)
        assert await client.aflush(20)
        proxy.cut()
    say(client)
    assert await client.aflush(20)
    assert len(await rows()) == client.stats().stored == 31


async def test_a_server_that_is_away_at_the_start_costs_nothing(connect: Connect, proxy: Proxy, rows: Rows) -> None:
    proxy.refuse()
    client = connect(proxy.dsn)
    say(client, 10)
    await eventually(lambda: client.stats().retries >= 2)
    assert "cannot be reached" in str(client.stats().last_error)
    assert not await client.aflush(0.01)
    proxy.accept()
    assert await client.aflush(20)
    assert len(await rows()) == 10
    assert client.stats().last_error is None


async def test_a_server_that_goes_and_comes_back_costs_nothing(connect: Connect, proxy: Proxy, rows: Rows) -> None:
    client = connect(proxy.dsn)
    say(client, 10)
    assert await client.aflush(20)
    proxy.refuse()
    proxy.cut()
    say(client, 10)
    await eventually(lambda: client.stats().retries >= 2)
    proxy.accept()
    assert await client.aflush(20)
    assert len(await rows()) == client.stats().stored == 20


async def test_an_answer_that_was_lost_stores_nothing_twice(connect: Connect, proxy: Proxy, rows: Rows) -> None:
    client = connect(proxy.dsn)
    proxy.lose_answer(b"INSERT 0")
    say(client, 10)
    assert await client.aflush(20)
    assert proxy.lost == 1
    stats = client.stats()
    assert (stats.stored, stats.duplicates, stats.accepted) == (0, 10, 10)
    assert len(await rows()) == 10


async def test_an_answer_that_was_lost_while_poison_is_sought_stores_nothing_twice(
    connect: Connect, proxy: Proxy, rows: Rows
) -> None:
    client = connect(proxy.dsn)
    proxy.lose_answer(b"COMMIT")
    bad = line().replace(b'"service":"shop"', b'"service":null')
    client._queue.put(bad, len(bad))
    say(client, 5)
    assert await client.aflush(20)
    assert proxy.lost == 1
    stats = client.stats()
    assert (stats.duplicates, stats.stored, stats.rejected.total(), stats.accepted) == (5, 0, 1, 6)
    assert (len(await rows()), len(await rows("analytics_dead_letters"))) == (5, 1)


async def test_a_request_that_was_lost_is_sent_again(connect: Connect, proxy: Proxy, rows: Rows) -> None:
    client = connect(proxy.dsn)
    proxy.lose_request(b"nobody's business")
    say(client, 10)
    assert await client.aflush(20)
    stats = client.stats()
    assert (stats.stored, stats.duplicates, stats.retries) == (10, 0, 1)
    assert len(await rows()) == 10


async def test_a_session_that_an_administrator_ends_costs_nothing(
    connect: Connect, database: Database, rows: Rows
) -> None:
    client = connect(database.dsn)
    say(client)
    assert await client.aflush(20)
    administrator = await database.connect()
    killed = await administrator.fetchval(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        "WHERE application_name = 'asgi-analytics' AND datname = current_database()"
    )
    assert killed == 1
    say(client)
    assert await client.aflush(20)
    assert len(await rows()) == 2


async def test_a_server_that_restarts_costs_nothing(
    connect: Connect, private_database: Database, impatient: None
) -> None:
    client = connect(private_database.dsn)
    say(client, 10)
    assert await client.aflush(20)
    cluster = private_database.cluster
    assert isinstance(cluster, Cluster)
    await asyncio.to_thread(cluster.stop)
    say(client, 10)
    await eventually(lambda: client.stats().retries >= 1)
    await asyncio.to_thread(cluster.start)
    assert await client.aflush(30)
    connection = await private_database.connect()
    assert await connection.fetchval("SELECT count(*) FROM analytics_events") == 20
    assert client.stats().accepted == 20


async def test_a_network_that_stalls_is_given_up_and_tried_again(
    connect: Connect, proxy: Proxy, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timescale, "WRITE_TIMEOUT", 0.2)
    monkeypatch.setattr(timescale, "CONNECT_TIMEOUT", 0.3)
    client = connect(proxy.dsn)
    say(client)
    assert await client.aflush(20)
    proxy.stall()
    say(client, 10)
    await eventually(lambda: client.stats().retries >= 1, 20)
    assert client.stats().last_error == "the database did not answer in time"
    begun = time.monotonic()
    assert not await client.aflush(0.1)
    assert time.monotonic() - begun < 2
    proxy.cut()
    proxy.resume()
    assert await client.aflush(30)
    assert len(await rows()) == client.stats().stored + client.stats().duplicates == 11


async def test_a_close_while_the_network_stalls_keeps_its_time(connect: Connect, proxy: Proxy) -> None:
    client = connect(proxy.dsn)
    say(client)
    assert await client.aflush(20)
    proxy.stall()
    say(client, 10)
    await eventually(lambda: client.stats().in_flight)
    begun = time.monotonic()
    assert not await client.aclose(0.2)
    assert time.monotonic() - begun < 3
    assert client.stats().abandoned == 10
    proxy.cut()
    proxy.resume()
