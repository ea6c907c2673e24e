"""The service as a process: it ends in peace, is killed, is one of two, loses its database, meets slow senders."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import psutil
import pytest

from asgi_analytics import AnalyticsClient, AnalyticsWorker, events
from asgi_analytics.sinks.http import HttpSink
from tests.kit.databases import Database
from tests.kit.proxy import Proxy
from tests.web.ingestion.service import Process, event


async def count(database: Database) -> int:
    connection = await database.connect()
    number: int = await connection.fetchval("SELECT count(*) FROM analytics_events")
    return number


async def until(condition: Callable[[], Any], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_after_what_it_took(database: Database, proxy: Proxy, number: signal.Signals) -> None:
    with Process(proxy.dsn) as process:
        async with process.client() as http, process.client() as idle:
            await idle.get("/health")
            assert (await http.get("/ready")).status_code == 200
            proxy.stall()
            batch = [event() for _ in range(10)]
            sending = asyncio.create_task(http.post("/events/batch", json=batch))
            late = httpx2.AsyncClient(base_url=process.url, timeout=5)
            await asyncio.sleep(0.3)
            ended = asyncio.create_task(process.end(number))
            await asyncio.sleep(0.3)
            with pytest.raises(httpx2.TransportError):  # it accepts nobody any more
                await late.get("/health")
            await late.aclose()
            assert not ended.done()
            proxy.resume()
            assert (await sending).json() == {"received": 10, "duplicates": 0, "rejected": []}
            assert await ended == 0
        assert "Traceback" not in process.log
    assert await count(database) == 10


async def test_a_sender_that_does_not_finish_does_not_keep_it_from_ending(database: Database) -> None:
    with Process(database.dsn, "--graceful-timeout", "1") as process:
        reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
        writer.write(b"POST /events/batch HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
        writer.write(b"Content-Length: 100\r\n\r\n[")
        await writer.drain()
        await asyncio.sleep(0.2)
        assert await process.end() == 0
        writer.close()
        assert reader.at_eof() or await reader.read() is not None


class HoldsAnswers(Proxy):
    """Lets requests through, and answers about what was written only while ``passing`` is set.

    Other answers pass: a connection may still be cleaned up for the next use when the service has answered.
    """

    def __init__(self, database: Database) -> None:
        self.passing = threading.Event()
        self.passing.set()
        super().__init__(database.cluster.host, database.cluster.port, database.dsn)

    def _is_lost(self, chunk: bytes, matches: list[bytes]) -> bool:
        if matches is self._lose_answer and (b"INSERT 0" in chunk or b"COMMIT" in chunk):
            self.passing.wait(30)
        return super()._is_lost(chunk, matches)


async def test_killed_between_the_commit_and_the_answer_nothing_is_twice(database: Database) -> None:
    wire = HoldsAnswers(database)
    batch = [event() for _ in range(20)]
    with Process(wire.dsn) as process:
        async with process.client() as http:
            await http.post("/events/batch", json=[event()])
            wire.passing.clear()
            sending = asyncio.create_task(http.post("/events/batch", json=batch))
            async with asyncio.timeout(20):
                while await count(database) < 21:
                    await asyncio.sleep(0.02)
            process.process.kill()
            with pytest.raises(httpx2.TransportError):
                await sending
    wire.passing.set()
    wire.close()
    with Process(database.dsn) as process:
        async with process.client() as http:
            answer = await http.post("/events/batch", json=batch)
            assert answer.json() == {"received": 20, "duplicates": 20, "rejected": []}
    assert await count(database) == 21


async def test_a_worker_whose_service_is_killed_loses_nothing(database: Database) -> None:
    client = AnalyticsClient(service="shop", flush_interval=0.02, batch_size=10)
    first, second = Process(database.dsn), Process(database.dsn)
    sink = HttpSink(first.url)
    with first, second:
        async with AnalyticsWorker(client, sink):
            for i in range(600):
                assert client.track(events.ProjectCreated(project_id=_PROJECT, user_id=i, name="x"))
                if i == 300:
                    first.process.kill()
                if i == 400:  # a balancer leads to the other one now
                    sink._url = HttpSink(second.url)._url
                await asyncio.sleep(0.002)
            assert await client.aflush(30)
    stats = client.stats()
    assert stats.stored + stats.duplicates == 600
    assert await count(database) == 600
    await client.aclose()


async def test_two_services_given_the_same_batches_store_them_once(database: Database) -> None:
    batches = [[event() for _ in range(30)] for _ in range(10)]
    with Process(database.dsn) as first, Process(database.dsn) as second:
        async with first.client() as one, second.client() as other:
            order = list(range(10))
            answers = await asyncio.gather(
                *(one.post("/events/batch", json=batches[i]) for i in order),
                *(other.post("/events/batch", json=batches[i][::-1]) for i in reversed(order)),
            )
    bodies = [answer.json() for answer in answers]
    assert all(body["received"] == 30 and body["rejected"] == [] for body in bodies)
    assert sum(body["duplicates"] for body in bodies) == 300
    assert await count(database) == 300


async def test_the_database_away_under_load_loses_nothing_and_grows_nothing(database: Database, proxy: Proxy) -> None:
    with Process(proxy.dsn) as process:
        clients = [AnalyticsClient(service=f"s{i}", flush_interval=0.05, batch_size=50) for i in range(4)]
        async with contextlib.AsyncExitStack() as stack:
            for client in clients:
                await stack.enter_async_context(AnalyticsWorker(client, HttpSink(process.url)))
            for step in range(150):
                if step == 50:
                    proxy.refuse()
                    proxy.cut()
                if step == 100:
                    proxy.accept()
                for client in clients:
                    for _ in range(5):
                        assert client.track(events.ProjectCreated(project_id=_PROJECT, user_id=step, name="x"))
                await asyncio.sleep(0.01)
            assert all(await asyncio.gather(*(client.aflush(60) for client in clients)))
        for client in clients:
            stats = client.stats()
            assert stats.stored + stats.duplicates == 750
            assert (stats.rejected.total(), stats.abandoned, stats.dropped.total()) == (0, 0, 0)
            await client.aclose()
        async with process.client() as http:
            assert (await http.get("/ready")).status_code == 200
    assert await count(database) == 3000


async def test_slow_senders_and_a_thousand_connections_stop_nobody(database: Database) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    writers: list[asyncio.StreamWriter] = []
    with Process(database.dsn, "--body-timeout", "2") as process:
        try:
            starts = [
                b"",
                b"POST /events/batch HT",
                b"POST /events/batch HTTP/1.1\r\nHost: x\r\n"
                b"Content-Type: application/json\r\nContent-Length: 9\r\n\r\n[",
            ]
            slow: list[asyncio.StreamReader] = []
            for i in range(1000):
                reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
                writer.write(starts[i % 3])
                writers.append(writer)
                if i % 3 == 2:
                    slow.append(reader)
            async with process.client() as http:
                answers = await asyncio.gather(*(http.post("/events/batch", json=[event()]) for _ in range(20)))
                assert [answer.json()["received"] for answer in answers] == [1] * 20
            told = await asyncio.gather(*(asyncio.wait_for(reader.read(), 30) for reader in slow))
            assert all(answer.startswith(b"HTTP/1.1 408") for answer in told)
        finally:
            for writer in writers:
                writer.close()
        assert await process.end() == 0
    assert await count(database) == 20


_POST = b"POST /events/batch HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("beginning", "more"),
    [
        (b"GET /", b"a"),
        (b"GET /health HTTP/1.1\r\nHost: x\r\n", b"A: b\r\n"),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nA: ", b"b"),
        (_POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n[\r\n1;a=", b"b"),
        (_POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n", b"A: b\r\n"),
    ],
    ids=["target", "headers", "one header", "chunk extension", "trailers"],
)
async def test_what_is_no_body_is_bounded(database: Database, beginning: bytes, more: bytes) -> None:
    with Process(database.dsn) as process:
        _, writer = await asyncio.open_connection("127.0.0.1", process.port)
        writer.write(beginning)

        async def pour() -> None:
            for _ in range(32 << 20 >> 16):  # what both ends of the wire buffer is some megabytes
                writer.write((more * 65_536)[:65_536])
                await asyncio.wait_for(writer.drain(), 10)

        with pytest.raises(ConnectionError):
            await pour()
        writer.close()
        async with process.client() as http:
            assert (await http.post("/events/batch", json=[event()])).json()["received"] == 1
        assert await process.end() == 0


async def test_a_body_in_small_chunks_is_taken_with_much_that_is_no_body_in_all(database: Database) -> None:
    with Process(database.dsn) as process:
        async with process.client() as http:
            body = json.dumps([event() for _ in range(3_000)]).encode()
            pieces = (body[at : at + 50] for at in range(0, len(body), 50))

            async def stream() -> AsyncIterator[bytes]:
                for piece in pieces:
                    yield piece

            answer = await http.post("/events/batch", content=stream(), headers={"Content-Type": "application/json"})
            assert answer.json()["received"] == 3_000
        assert await process.end() == 0


async def test_headers_that_never_end_are_not_waited_for(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    from asgi_analytics.web import server
    from asgi_analytics.web.ingestion import create_ingestion_app

    handlers = {number: signal.getsignal(number) for number in server.SIGNALS}
    monkeypatch.setattr(server, "HEADER_TIMEOUT", 0.3)
    running = server.Server(create_ingestion_app(database_url=database.dsn), graceful_timeout=5)
    try:
        with server.listen("127.0.0.1", 0) as listener:
            serving = asyncio.create_task(running.serve(sockets=[listener]))
            await until(lambda: running.started)
            port = listener.getsockname()[1]
            health = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
            for first, beginning in ((b"", b""), (b"", b"GET /hea"), (health, b"GET /hea")):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                if first:
                    writer.write(first)
                    await reader.readuntil(b"}")
                writer.write(beginning)
                assert await asyncio.wait_for(reader.read(), 20) == b""
                writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(health)
            await reader.readuntil(b"}")
            await asyncio.sleep(0.6)  # idle between two requests is no slowness
            writer.write(health)
            await reader.readuntil(b"}")
            writer.close()
            running.should_exit = True
            await serving
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


async def test_a_body_too_large_is_told_while_it_is_still_being_sent(database: Database) -> None:
    with Process(database.dsn, "--max-body", "100KiB") as process:
        async with process.client() as http:
            for content in (b" " * 5_000_000, _pieces(5_000_000)):
                answer = await http.post("/events/batch", content=content, headers={"Content-Type": "application/json"})
                assert answer.status_code == 413
            assert (await http.post("/events/batch", json=[event()])).json()["received"] == 1


async def _pieces(size: int) -> Any:
    for _ in range(0, size, 50_000):
        yield b" " * 50_000


async def test_memory_stays_flat_over_many_batches(database: Database) -> None:
    body = json.dumps([5] * 10).encode()  # what is refused goes the same way, without a database to wait for
    with Process(database.dsn) as process:
        memory = psutil.Process(process.process.pid).memory_info
        async with process.client() as http:
            http.headers["content-type"] = "application/json"

            async def send(number: int) -> None:
                for _ in range(number):
                    await http.post("/events/batch", content=body)

            await asyncio.gather(*(send(50) for _ in range(4)))
            before = memory().rss
            await asyncio.gather(*(send(250) for _ in range(4)))
            assert memory().rss - before < 8 * 1024 * 1024


_PROJECT: Any = "7f8c1f44-3a57-4a0e-8a58-9e43b1d5a6c0"


STOPPED_WHILE_STARTING = """
import signal
from asgi_analytics.web.server import Server, listen

async def app(scope, receive, send):
    await receive()
    signal.raise_signal(signal.SIGTERM)
    await send({"type": "lifespan.startup.complete"})
    print((await receive())["type"])
    await send({"type": "lifespan.shutdown.complete"})

with listen("127.0.0.1", 0) as listener:
    Server(app, graceful_timeout=1).run(sockets=[listener])
"""


def test_a_signal_while_it_starts_ends_the_lifespan_too() -> None:
    done = subprocess.run([sys.executable, "-c", STOPPED_WHILE_STARTING], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "lifespan.shutdown\n", "")
