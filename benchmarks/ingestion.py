"""How fast events come through HTTP into the table: the ingestion service against the worker's own writes.

One process of the service, the migrated table with its indexes, batches of 100 and of 1,000 events of about 250 bytes
of JSON data. Interleaved in one run: the worker's direct way (one TimescaleSink on one connection); the service, sent
to over several connections; the same through one HttpSink, which packs and waits for each answer; and a service that
answers the same, written the simple way: a pydantic model, a look for duplicates, and executemany.

Run: python benchmarks/ingestion.py [--events 20000] [--rounds 3] [--connections 4] [--million]
Needs: pip install 'asgi-analytics[server,http]' pydantic psutil; a TimescaleDB that the tests would find, else the
embedded PostgreSQL
Goals: at 1,000 a batch at least 0.7 of the direct way, and at least 3 times the simple service; memory stays flat over
a million events (--million)
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import asyncpg
import psutil

sys.path.insert(0, str(Path(__file__).parent.parent))

from asgi_analytics import TimescaleSink
from asgi_analytics.sinks.http import HttpSink
from benchmarks.goals import at_least, at_most
from benchmarks.storing import SETTINGS, make_lines
from tests.kit.databases import query
from tests.kit.servers import Servers

HEAD = b"POST /events/batch HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
SIMPLE = '''
import datetime, json, os, typing, uuid
import asyncpg, pydantic, uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

class Event(pydantic.BaseModel):
    event_id: uuid.UUID
    event_type: str
    timestamp: pydantic.AwareDatetime
    service: str
    user_id: uuid.UUID | None = None
    session_id: str | None = None
    data: dict[str, typing.Any]
    context: dict[str, typing.Any] | None = None

pool = None
INSERT = """INSERT INTO analytics_events (id, timestamp, event_type, service, user_id, session_id, data, context)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING"""
KNOWN = """SELECT count(*) FROM analytics_events
           JOIN unnest($1::uuid[], $2::timestamptz[]) AS sent (id, timestamp) USING (timestamp, id)"""

async def batch(request):
    global pool
    if pool is None:
        pool = await asyncpg.create_pool(os.environ["DATABASE_URL"])
    rows, rejected = [], []
    for index, one in enumerate(await request.json()):
        try:
            e = Event.model_validate(one)
        except pydantic.ValidationError as error:
            rejected.append({"index": index, "reason": str(error)})
        else:
            rows.append((e.event_id, e.timestamp, e.event_type, e.service, e.user_id, e.session_id,
                         json.dumps(e.data), json.dumps(e.context)))
    async with pool.acquire() as connection, connection.transaction():
        duplicates = await connection.fetchval(KNOWN, [row[0] for row in rows], [row[1] for row in rows])
        await connection.executemany(INSERT, rows)
    return JSONResponse({"received": len(rows), "duplicates": duplicates, "rejected": rejected})

app = Starlette(routes=[Route("/events/batch", batch, methods=["POST"])])
config = uvicorn.Config(app, port=0, log_level="info", access_log=False)
uvicorn.Server(config).run()
'''


class Service:
    """A service in a process of its own."""

    def __init__(self, dsn: str, *arguments: str) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the process runs
        environ = {**os.environ, "DATABASE_URL": dsn}
        self.process = subprocess.Popen(
            [sys.executable, *arguments], env=environ, stdout=self._log, stderr=self._log, stdin=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 30
        while True:
            self._log.seek(0)
            if found := re.search(rb"http://127\.0\.0\.1:(\d+)", log := self._log.read()):
                self.port = int(found[1])
                break
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.end()
                raise RuntimeError(log.decode())
            time.sleep(0.05)

    def cpu(self) -> float:
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def memory(self) -> float:
        """Return the resident memory in MiB."""
        return float(psutil.Process(self.process.pid).memory_info().rss) / 1024 / 1024

    def end(self) -> None:
        self.process.terminate()
        self.process.wait()


@contextlib.contextmanager
def services(dsn: str) -> Iterator[dict[str, Service]]:
    with contextlib.ExitStack() as stack:
        started = {}
        for name, arguments in (
            ("ours", ("-m", "asgi_analytics.cli.ingest", "--port", "0")),
            ("simple", ("-c", SIMPLE)),
        ):
            started[name] = service = Service(dsn, *arguments)
            stack.callback(service.end)
        yield started


async def send(port: int, batches: list[bytes], connections: int) -> None:
    """Post bodies over several connections, each waiting for its answers, with as little work as can be."""
    waiting = iter(batches)

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for body in waiting:
            writer.writelines([HEAD % len(body), body])
            headers = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in headers[:20]:
                raise RuntimeError(headers.decode())
            length = re.search(rb"content-length: (\d+)", headers.lower())
            assert length is not None
            await reader.readexactly(int(length[1]))
        writer.close()

    await asyncio.gather(*(one() for _ in range(connections)))


async def measure(dsn: str, batch_size: int, events: int, rounds: int, connections: int) -> None:
    speeds: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}
    connection = await asyncpg.connect(dsn)
    sink = TimescaleSink(dsn)
    with services(dsn) as running:
        ours, simple = running["ours"], running["simple"]
        over_http = HttpSink(f"http://127.0.0.1:{ours.port}")

        async def write(lines: list[list[bytes]], to: TimescaleSink | HttpSink) -> None:
            for batch in lines:
                assert (await to.write(batch)).duplicates == 0

        ways = {
            "the worker's direct way": None,
            f"the service, {connections} connections": ours,
            "the service, one HttpSink": ours,
            f"pydantic and executemany, {connections} connections": simple,
        }
        for turn in range(rounds + 1):
            for name, service in ways.items():
                await connection.execute("TRUNCATE analytics_events")
                number = events if turn else batch_size * 4  # the first turn warms up
                lines = make_lines(number, datetime.now(UTC) - timedelta(hours=1))
                batches = [lines[i : i + batch_size] for i in range(0, number, batch_size)]
                bodies = [b"[" + b",".join(batch) + b"]" for batch in batches]
                cpu_began = service.cpu() if service else time.process_time()
                began = time.perf_counter()
                if service is None:
                    await write(batches, sink)
                elif "HttpSink" in name:
                    await write(batches, over_http)
                else:
                    await send(service.port, bodies, connections)
                seconds = time.perf_counter() - began
                used = (service.cpu() if service else time.process_time()) - cpu_began
                assert await connection.fetchval("SELECT count(*) FROM analytics_events") == number
                if turn:
                    speeds.setdefault(name, []).append(number / seconds)
                    cpu.setdefault(name, []).append(used / number * 1e6)
        await over_http.aclose()
        memory = {ours: ours.memory(), simple: simple.memory()}
    await sink.aclose()
    await connection.close()
    direct, *_, naive = (statistics.median(speeds[name]) for name in ways)
    for name, service in ways.items():
        speed = statistics.median(speeds[name])
        resident = f"{memory[service]:.0f}" if service else ""
        print(
            f"| {name} | {batch_size} | {speed / 1000:.1f} | {speed / direct:.2f} | {speed / naive:.1f} "
            f"| {statistics.median(cpu[name]):.1f} | {resident} |",
            flush=True,
        )
    if batch_size == 1_000:
        over = statistics.median(speeds[f"the service, {connections} connections"])
        at_least("HTTP into the database at 1,000 a batch, of the direct way", over / direct, 0.7)
        at_least("HTTP into the database at 1,000 a batch, × the simple service", over / naive, 3)


async def million(dsn: str, connections: int) -> None:
    """Print the service's memory as a million events go through it."""
    connection = await asyncpg.connect(dsn)
    with services(dsn) as running:
        service = running["ours"]
        print("\n| events | memory of the service, MiB |\n|---|---|")
        weights = []
        for done in range(0, 1_000_000, 100_000):
            for _ in range(5):
                lines = make_lines(20_000, datetime.now(UTC) - timedelta(hours=1))
                bodies = [b"[" + b",".join(lines[i : i + 1000]) + b"]" for i in range(0, 20_000, 1000)]
                await send(service.port, bodies, connections)
            weights.append(service.memory())
            print(f"| {done + 100_000:,} | {weights[-1]:.1f} |", flush=True)
            await connection.execute("TRUNCATE analytics_events")
        at_most("MiB that the service grows from 200,000 to a million events", max(0.0, weights[-1] - weights[1]), 5)
    await connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the ingestion service.")
    parser.add_argument("--events", type=int, default=20_000, help="in each measurement (default 20000)")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median is shown (default 3)")
    parser.add_argument("--connections", type=int, default=4, help="to the services (default 4)")
    parser.add_argument("--million", action="store_true", help="watch the memory over a million events too")
    options = parser.parse_args()
    servers = Servers()
    try:
        cluster = servers.private(servers.available[-1], SETTINGS)
        dsn = cluster.dsn(cluster.template())
        print(
            f"CPython {sys.version.split()[0]}, asyncpg {version('asyncpg')}, uvicorn {version('uvicorn')}, "
            f"pydantic {version('pydantic')}, {cluster.version}, {os.cpu_count()} cores for all of it\n"
        )
        print("| way | a batch | thousand events/s | of the direct way | times the simple | CPU µs/event | MiB |")
        print("|---|---|---|---|---|---|---|")
        for size in (100, 1_000):
            asyncio.run(measure(dsn, size, options.events, options.rounds, options.connections))
        if options.million:
            query(dsn, "TRUNCATE analytics_events")
            asyncio.run(million(dsn, options.connections))
    finally:
        servers.close()


if __name__ == "__main__":
    main()
