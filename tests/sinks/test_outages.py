"""Small outages of the network; `tests/faults` has those under load. Afterwards everything is there, once."""

from __future__ import annotations

import time
from uuid import UUID

from tests.kit.fakes import eventually
from tests.kit.proxy import Proxy
from tests.sinks.conftest import Connect, Rows, say

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
    assert "no server answers at" in str(client.stats().last_error)
    assert not await client.aflush(0.01)
    proxy.accept()
    assert await client.aflush(20)
    assert len(await rows()) == 10
    assert client.stats().last_error is None


async def test_a_request_that_was_lost_is_sent_again(connect: Connect, proxy: Proxy, rows: Rows) -> None:
    client = connect(proxy.dsn)
    proxy.lose_request(b"nobody's business")
    say(client, 10)
    assert await client.aflush(20)
    stats = client.stats()
    assert (stats.stored, stats.duplicates, stats.retries) == (10, 0, 0)
    assert len(await rows()) == 10


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
