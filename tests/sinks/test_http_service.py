"""The sink that sends to an ingestion service, against the service itself."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from asgi_analytics import AnalyticsClient, AnalyticsWorker, events
from asgi_analytics.errors import TransientError
from asgi_analytics.sinks.http import HttpSink
from asgi_analytics.web.ingestion import create_ingestion_app
from tests.kit.databases import Database, free_port
from tests.kit.proxy import Proxy
from tests.kit.scripts import SOURCE
from tests.web.ingestion.service import Process, TellingSink, encode, event

# -- against the service itself


@pytest.fixture
async def service(database: Database) -> AsyncIterator[Process]:
    with Process(database.dsn, ANALYTICS_TOKENS="old,t0ken") as process:
        yield process


async def tracked(client: AnalyticsClient, number: int) -> None:
    for _ in range(number):
        assert client.track(events.TaskCreated(task_id=uuid4(), user_id="me", command="build"))


async def count(database: Database) -> int:
    connection = await database.connect()
    number: int = await connection.fetchval("SELECT count(*) FROM analytics_events")
    return number


async def test_from_track_to_the_table(service: Process, database: Database) -> None:
    client = AnalyticsClient.from_url(service.url, service="shop", token="t0ken")
    await tracked(client, 500)
    assert await client.aclose(30)
    stats = client.stats()
    assert (stats.stored, stats.duplicates, stats.rejected.total()) == (500, 0, 0)
    assert await count(database) == 500


async def test_the_interpreters_exit_brings_events_to_the_service(service: Process, database: Database) -> None:
    url = service.url.replace("127.0.0.1", "localhost")  # a name, which is looked up without an executor
    code = (
        "from asgi_analytics import AnalyticsClient, events\n"
        f"client = AnalyticsClient.from_url('{url}', service='s', token='old')\n"
        "for i in range(50): client.track(events.ProjectCreated(project_id='7f8c1f44-3a57-4a0e-8a58-9e43b1d5a6c0',\n"
        "                                                       user_id=i, name='x'))\n"
    )
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=SOURCE
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert await count(database) == 50


async def test_an_event_that_the_service_refuses_is_counted_with_its_reason(service: Process) -> None:
    client = AnalyticsClient(service="shop")
    old = json.loads(encode(event(timestamp="2020-01-01T00:00:00Z")))
    await tracked(client, 2)
    client._queue.items.append(encode(old))
    async with AnalyticsWorker(client, HttpSink(service.url, token="t0ken")):
        assert await client.aflush(30)
    assert client.stats().rejected == {"older than 90 days": 1}
    assert client.stats().stored == 2
    await client.aclose()


async def test_a_wrong_token_loses_nothing(service: Process, database: Database, caplog: Any) -> None:
    client = AnalyticsClient(service="shop")
    await tracked(client, 5)
    async with AnalyticsWorker(client, HttpSink(service.url, token="wr0ng")) as worker:
        assert not await client.aflush(0.5)
        assert "401" in str(client.stats().last_error)
        await worker.aclose(0)
    assert client.stats().queued == 5
    async with AnalyticsWorker(client, HttpSink(service.url, token="t0ken")):
        assert await client.aflush(30)
    assert await count(database) == 5
    assert "wr0ng" not in caplog.text + service.log
    await client.aclose()


async def test_a_network_that_breaks_stores_each_event_once(
    service: Process, database: Database, make_proxy: Callable[..., Proxy]
) -> None:
    wire = make_proxy("127.0.0.1", service.port)
    client = AnalyticsClient(service="shop", flush_interval=0.05, batch_size=20)
    async with AnalyticsWorker(client, HttpSink(f"http://127.0.0.1:{wire.port}", token="t0ken")):
        await tracked(client, 100)
        assert await client.aflush(30)
        wire.lose_answer(b'"received":')
        await tracked(client, 100)
        assert await client.aflush(30)
        assert client.stats().duplicates == 100
        wire.refuse()
        wire.cut()
        await tracked(client, 100)
        assert not await client.aflush(0.3)
        wire.accept()
        assert await client.aflush(30)
        wire.stall()
        await tracked(client, 100)
        assert not await client.aflush(0.3)
        wire.resume()
        assert await client.aflush(30)
    stats = client.stats()
    assert (stats.stored + stats.duplicates, stats.rejected.total(), stats.abandoned) == (400, 0, 0)
    assert stats.retries > 0
    assert await count(database) == 400
    await client.aclose()


async def test_a_connection_is_kept(service: Process, make_proxy: Callable[..., Proxy]) -> None:
    wire = make_proxy("127.0.0.1", service.port)
    sink = HttpSink(f"http://127.0.0.1:{wire.port}", token="t0ken")
    for _ in range(5):
        assert (await sink.write([encode(event())])).rejected == []
    assert wire.connections == 1
    await sink.aclose()


async def test_the_limits_of_the_service_reject_one_event_only() -> None:
    keeper = TellingSink()
    app = create_ingestion_app(sink=keeper, max_body_bytes=20_000, max_events=10)
    sink = HttpSink("http://service", make_client=lambda: httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app)))
    batch = [encode(event()) for _ in range(100)]
    batch[50] = encode(event(data={"task_id": str(uuid4()), "command": "x" * 30_000}))
    receipt = await sink.write(batch)
    assert [(one.index, one.reason) for one in receipt.rejected] == [(50, "too large for the ingestion service")]
    assert len(keeper.events) == 99
    assert all(len(write) <= 10 for write in keeper.writes)


async def test_a_service_that_is_away_is_said_with_the_reason() -> None:
    sink = HttpSink(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(TransientError, match=r"the ingestion service cannot be reached: .*Connect call failed"):
        await sink.write([b'{"n":0}'])
    await sink.aclose()
