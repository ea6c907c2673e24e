"""How cost grows: with the rate of events, the rows that are there, the chunks, and the processes that write.

Each table is one run against one server, interleaved where it compares. The rate is offered by one thread; the table
says what of it arrived, what the process's CPU was, and how old the oldest event became. Rows and chunks are filled by
the server; then the same 20,000 events are stored in batches of 1,000. Processes write 20,000 events each at once.

Run:   python benchmarks/scale.py [--rows 1,3,10] [--chunks 1,30,100,400]
Needs: a TimescaleDB that the tests would find, else the embedded PostgreSQL, where a chunk is a partition
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import asyncpg

sys.path.insert(0, str(Path(__file__).parent.parent))

from asgi_analytics import AnalyticsClient, TimescaleSink, events
from benchmarks.storing import SETTINGS, make_lines
from tests.kit.databases import query
from tests.kit.servers import Servers

EVENTS = 20_000
FILL = """
INSERT INTO analytics_events (id, timestamp, event_type, service, data)
SELECT gen_random_uuid(), now() - make_interval(secs => $1::float8 * random()), 'cocoon_connected', 'shop',
    jsonb_build_object('cocoon_id', gen_random_uuid())
FROM generate_series(1, $2::int)
"""


def rates(dsn: str) -> None:
    print("\n| events/s offered, for 5 s | tracked/s | dropped | stored 1 s later | CPU, % of a core | oldest s |")
    print("|---|---|---|---|---|---|")
    for rate in (1_000, 10_000, 100_000):
        client = AnalyticsClient.from_url(dsn, service="shop", flush_interval=1.0)
        cpu, began = time.process_time(), time.perf_counter()
        tracked, oldest = 0, 0.0
        while (passed := time.perf_counter() - began) < 5:
            for _ in range(max(0, min(int(passed * rate) - tracked, rate // 100))):
                client.track(events.TaskCreated(task_id=uuid4(), user_id=uuid4(), command="build"))
                tracked += 1
            if tracked % (rate // 10) < rate // 100:
                oldest = max(oldest, client.stats().oldest_seconds)
            time.sleep(0.001)
        used = (time.process_time() - cpu) / (time.perf_counter() - began)
        time.sleep(1)
        stats = client.stats()
        client.close()
        print(
            f"| {rate:,} | {tracked / 5:,.0f} | {stats.dropped.total()} | {stats.stored:,} | {used * 100:.0f} "
            f"| {oldest:.2f} |",
            flush=True,
        )


async def store(dsn: str) -> float:
    """Return the events a second of one connection, in batches of 1,000."""
    sink = TimescaleSink(dsn)
    lines = make_lines(EVENTS, datetime.now(UTC) - timedelta(minutes=30))
    await sink.write(lines[:1])
    began = time.perf_counter()
    for start in range(0, EVENTS, 1_000):
        await sink.write(lines[start : start + 1_000])
    seconds = time.perf_counter() - began
    await sink.aclose()
    return EVENTS / seconds


async def fill(dsn: str, rows: int, days: float) -> None:
    connection = await asyncpg.connect(dsn, command_timeout=3600)
    for start in range(0, rows, 500_000):
        await connection.execute(FILL, days * 86_400, min(500_000, rows - start))
    await connection.execute("VACUUM ANALYZE analytics_events")
    await connection.close()


def rows_and_chunks(servers: Servers, flavour: str, rows: list[int], chunks: list[int]) -> None:
    print("\n| rows, million | chunks | thousand events/s |")
    print("|---|---|---|")
    for million, days in [*((number, 1) for number in rows), *((1, number) for number in chunks)]:
        cluster = servers.private(flavour, SETTINGS)
        dsn = cluster.dsn(cluster.template())
        if flavour == "postgresql" and days > 60:
            continue  # its partitions are as many as the retention has days
        asyncio.run(fill(dsn, million * 1_000_000, days - 0.05))
        speed = statistics.median(asyncio.run(store(dsn)) for _ in range(3))
        found = query(dsn, "SELECT count(*) FROM pg_inherits WHERE inhparent = 'analytics_events'::regclass")
        print(f"| {million} | {found} | {speed / 1000:.0f} |", flush=True)
        cluster.end()


def processes(dsn: str) -> None:
    print("\n| processes | thousand events/s together |")
    print("|---|---|")
    for number in (1, 2, 4, 8):
        query(dsn, "TRUNCATE analytics_events")
        began = [subprocess.Popen([sys.executable, __file__, "--store", dsn], stdout=subprocess.PIPE, text=True)]
        began += [
            subprocess.Popen([sys.executable, __file__, "--store", dsn], stdout=subprocess.PIPE, text=True)
            for _ in range(number - 1)
        ]
        speeds = [float(process.communicate()[0]) for process in began]
        print(f"| {number} | {sum(speeds) / 1000:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", default="1,3,10", help="millions")
    parser.add_argument("--chunks", default="1,30,100,400", help="days, of a million rows")
    parser.add_argument("--store", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.store:
        print(asyncio.run(store(options.store)))
        return
    servers = Servers()
    try:
        flavour = servers.available[-1]
        cluster = servers.private(flavour, SETTINGS)
        dsn = cluster.dsn(cluster.template())
        print(cluster.version)
        rates(dsn)
        processes(dsn)
        cluster.end()
        rows_and_chunks(
            servers, flavour, [int(one) for one in options.rows.split(",")], [int(x) for x in options.chunks.split(",")]
        )
    finally:
        servers.close()


if __name__ == "__main__":
    main()
