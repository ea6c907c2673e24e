"""How fast the worker's way to the table is, measured against the server's own limit.

One connection, the migrated table with its indexes (and aggregates), batches of 100 and of 1,000 events of about
250 bytes of JSON data. Interleaved in one run: the TimescaleSink; the fastest way asyncpg offers, which cannot be
repeated safely (copy_records_to_table); the simple idempotent way (executemany ON CONFLICT); and the limit: a COPY by
the server from a file of its own.

Run: python benchmarks/storing.py [--events 40000]
Needs: a TimescaleDB that the tests would find, else the embedded PostgreSQL
Goals: at least 0.60 of the limit at 1,000 a batch; worker CPU at most 0.7 µs an event; no stretch of the interpreter
lock over 5 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg

sys.path.insert(0, str(Path(__file__).parent.parent))

from asgi_analytics import AnalyticsClient, AnalyticsWorker, Event, TimescaleSink
from asgi_analytics.encoding.encoder import EventEncoder
from asgi_analytics.worker.worker import WRITE_BYTES, WRITE_EVENTS
from benchmarks.goals import at_least, at_most
from tests.kit.databases import query
from tests.kit.servers import Servers

COLUMNS = ["id", "timestamp", "event_type", "service", "user_id", "session_id", "data", "context"]
# Durable, as a real server is: what the tests switch off for speed is on.
SETTINGS = {
    "fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "shared_buffers": "512MB",
    "max_wal_size": "4GB", "autovacuum": "on",
}  # fmt: skip


class PageViewed(Event):
    """An event of about 245 bytes of data."""

    user_id: Any
    page: str
    referrer: str
    campaign: str
    duration_ms: float
    scrolled: int


def make_lines(number: int, started: datetime) -> list[bytes]:
    at = iter(range(number))
    encoder = EventEncoder(
        service="shop",
        environment="production",
        hostname="web-1",
        clock=lambda: started + timedelta(milliseconds=next(at)),
    )
    return [
        encoder.encode(
            PageViewed(
                user_id=uuid4(),
                page=f"/products/{i % 997}",
                referrer="https://search.example.com/",
                campaign="autumn" if i % 3 else "none",
                duration_ms=i % 1000 / 7,
                scrolled=i % 101,
            )
        )
        for i in range(number)
    ]


def rows_of(lines: list[bytes]) -> list[tuple[Any, ...]]:
    rows = []
    for line in lines:
        event = json.loads(line)
        rows.append((
            event["event_id"], datetime.fromisoformat(event["timestamp"]), event["event_type"], event["service"],
            event["user_id"], event["session_id"], json.dumps(event["data"]), json.dumps(event["context"]),
        ))  # fmt: skip
    return rows


class Stretches:
    """Measures the longest time, in seconds, that another thread had to wait for the interpreter lock.

    What it waited for a processor meanwhile, which Linux counts for each thread, is no part of that: the server works
    on the same two. ``late`` is the longest time with it.
    """

    def __init__(self) -> None:
        self.longest = self.late = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        counted = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")

        def queued() -> float:
            return int(counted.read_text().split()[1]) / 1e9 if counted.exists() else 0.0

        while not self._stop.is_set():
            queued_before, began = queued(), time.perf_counter()
            time.sleep(0.0005)
            late = time.perf_counter() - began - 0.0005
            self.late = max(self.late, late)
            self.longest = max(self.longest, late - (queued() - queued_before))

    def __enter__(self) -> Stretches:
        sys.setswitchinterval(0.0005)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        sys.setswitchinterval(0.005)


async def measure(dsn: str, batch_size: int, events: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Return events a second and client CPU in µs an event, medians, for each way of writing."""
    connection = await asyncpg.connect(dsn)
    sink = TimescaleSink(dsn)
    insert = (
        f"INSERT INTO analytics_events ({', '.join(COLUMNS)}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) "
        "ON CONFLICT DO NOTHING"
    )

    async def ours(lines: list[bytes]) -> None:
        receipt = await sink.write(lines)
        assert receipt.duplicates == 0
        assert not receipt.rejected

    async def executemany(lines: list[bytes]) -> None:
        await connection.executemany(insert, rows_of(lines))

    async def copy_records(lines: list[bytes]) -> None:
        await connection.copy_records_to_table("analytics_events", records=rows_of(lines), columns=COLUMNS)

    async def server_copy(path: str) -> None:
        await connection.execute(f"COPY analytics_events ({', '.join(COLUMNS)}) FROM '{path}'")

    ways: dict[str, Callable[[Any], Awaitable[None]]] = {
        "TimescaleSink": ours,
        "executemany ON CONFLICT": executemany,
        "copy_records_to_table (not repeatable)": copy_records,
        "the server's COPY of a file (the limit)": server_copy,
    }
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        for _ in range(rounds):
            for name, write in ways.items():
                await connection.execute("TRUNCATE analytics_events")
                lines = make_lines(events, datetime.now(UTC) - timedelta(hours=1))
                batches: list[Any] = [lines[i : i + batch_size] for i in range(0, events, batch_size)]
                if write is server_copy:
                    batches = [to_file(Path(folder) / str(i), batch) for i, batch in enumerate(batches)]
                began, cpu_began = time.perf_counter(), time.process_time()
                for batch in batches:
                    await write(batch)
                speeds[name].append(events / (time.perf_counter() - began))
                cpu[name].append((time.process_time() - cpu_began) / events * 1e6)
                assert await connection.fetchval("SELECT count(*) FROM analytics_events") == events
    await sink.aclose()
    await connection.close()
    return {name: (statistics.median(speeds[name]), statistics.median(cpu[name])) for name in ways}


def to_file(path: Path, lines: list[bytes]) -> str:
    def field(value: Any) -> str:
        return "\\N" if value is None else str(value).replace("\\", "\\\\")

    path.write_text("".join("\t".join(map(field, row)) + "\n" for row in rows_of(lines)))
    path.chmod(0o644)
    return str(path)


class Paged(Event):
    """Makes an event of some 275 bytes: the envelope, and one short field."""

    n: int


def short_lines(number: int, started: datetime) -> list[bytes]:
    at = iter(range(number))
    encoder = EventEncoder(
        service="s", environment=None, hostname="w1", clock=lambda: started + timedelta(milliseconds=next(at))
    )
    return [encoder.encode(Paged(n=i)) for i in range(number)]


async def worker_cpu(dsn: str, lines: list[bytes]) -> float:
    """Return the worker's CPU in µs an event, from the full queue to the settled batch, its whole loop included."""
    client = AnalyticsClient(service="shop", queue_size=len(lines), queue_bytes=1 << 30)
    first, *others = lines
    client._queue.put(first, len(first))
    async with AnalyticsWorker(client, TimescaleSink(dsn)):
        assert await client.aflush(60)  # to connect is none of it
        for line in others:
            client._queue.put(line, len(line))
        began = time.thread_time()
        assert await client.aflush(60)
        used = time.thread_time() - began
    assert client.stats().stored == len(lines)
    return used / len(lines) * 1e6


async def longest_stretch(dsn: str) -> Stretches:
    sink = TimescaleSink(dsn)
    lines = make_lines(WRITE_EVENTS * 10, datetime.now(UTC) - timedelta(hours=2))
    number = min(WRITE_EVENTS, WRITE_BYTES // len(lines[0]))  # as the worker takes them
    with Stretches() as stretches:
        for i in range(0, len(lines), number):
            await sink.write(lines[i : i + number])
    await sink.aclose()
    return stretches


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    # Buffers of half a megabyte are given back to the system after each write, and cost as much again, until something
    # larger was freed once: in an application of some size something was.
    bytes(2 << 20)
    servers = Servers()
    try:
        flavour = servers.available[-1]
        cluster = servers.private(flavour, SETTINGS)
        dsn = cluster.dsn(cluster.template())
        print(f"CPython {sys.version.split()[0]}, asyncpg {version('asyncpg')}, {cluster.version}")
        print(f"one write takes at most {WRITE_EVENTS} events or {WRITE_BYTES // 1024} KiB\n")
        print("| way | events a batch | thousand events/s | of the limit | client CPU µs/event |")
        print("|---|---|---|---|---|")
        for batch_size in (100, 1_000):
            figures = asyncio.run(measure(dsn, batch_size, options.events, options.rounds))
            limit = figures["the server's COPY of a file (the limit)"][0]
            for name, (speed, cpu) in figures.items():
                print(f"| {name} | {batch_size} | {speed / 1000:.0f} | {speed / limit:.2f} | {cpu:.2f} |", flush=True)
        print(f"\nlines of {len(make_lines(1, datetime.now(UTC))[0])} bytes; client CPU is that of the whole process")
        at_least("storing at 1,000 a batch, of the server's COPY", figures["TimescaleSink"][0] / limit, 0.6)
        query(dsn, "TRUNCATE analytics_events")
        for make in (make_lines, short_lines):
            figures_of_worker = []
            for _ in range(options.rounds):
                query(dsn, "TRUNCATE analytics_events")
                lines = make(options.events, datetime.now(UTC) - timedelta(hours=1))
                figures_of_worker.append(asyncio.run(worker_cpu(dsn, lines)))
            cpu = statistics.median(figures_of_worker)
            print(
                f"worker CPU from the queue to the settled batch, lines of {len(lines[0])} bytes: {cpu:.2f} µs an event"
            )
        at_most("worker CPU, µs an event of 250 bytes or some more", cpu, 0.7)
        query(dsn, "TRUNCATE analytics_events")
        stretches = [asyncio.run(longest_stretch(dsn)) for _ in range(options.rounds)]
        waits = ", ".join(f"{one.longest * 1000:.1f}" for one in stretches)
        late = ", ".join(f"{one.late * 1000:.1f}" for one in stretches)
        print(f"longest waits of another thread for the interpreter: {waits} ms; for a processor, too: {late} ms")
        longest = max(one.longest for one in stretches) * 1000
        at_most("ms that another thread waits for the interpreter at most", longest, 5)
    finally:
        servers.close()


if __name__ == "__main__":
    main()
