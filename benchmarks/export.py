"""How fast an export reaches Parquet files, what its column costs at ingest, and how long an event is under way.

A backfill of events with 250 bytes of data each goes to a folder, by a process of its own, whose memory is looked at
after each 100,000. Then batches are stored by the sink with the column and its index, with the
column alone, and without either, in turn. Last, events come at a steady rate while the export runs once a second, and
each file is asked how long ago its youngest event was committed.

Run: python benchmarks/export.py [--events 500000] [--rate 1000] [--seconds 90] [--only copy|ingest|delay]
Needs: pyarrow, and a TimescaleDB that the tests would find, else the embedded PostgreSQL
Goals: at least 50,000 events a second to Parquet; memory that does not grow with what there is to copy; at most 3 %
more CPU of the server at ingest; at most 60 s from commit to file at 1,000 events a second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import psutil

sys.path.insert(0, str(Path(__file__).parent.parent))

from asgi_analytics import TimescaleSink
from asgi_analytics.exports.exporter import Exporter
from asgi_analytics.exports.setup import init_export, remove_export, want_backfill
from benchmarks.goals import at_least, at_most
from benchmarks.storing import SETTINGS, make_lines
from tests.kit.servers import Servers

ROUNDS = 5
BATCH = 1_000
STEP = 100_000
"""Memory is looked at after so many events."""
RUN = """
import asyncio, json, sys, time
import psutil
from asgi_analytics.exports import warehouse_from_url
from asgi_analytics.exports.exporter import Exporter

class Watched:
    def __init__(self, warehouse):
        self.warehouse, self.events, self.memory = warehouse, 0, []
    def __getattr__(self, name):
        return getattr(self.warehouse, name)
    def load(self, batch, token):
        self.warehouse.load(batch, token)
        self.events += len(batch)
        if self.events // STEP > len(self.memory):
            self.memory.append(psutil.Process().memory_info().rss / 2**20)

watched = Watched(warehouse_from_url(sys.argv[3]))
began, cpu = time.perf_counter(), time.process_time()
ran = asyncio.run(Exporter(sys.argv[1], sys.argv[2], warehouse=watched).run())
seconds = time.perf_counter() - began
print(json.dumps([ran.events, seconds, time.process_time() - cpu, watched.memory]))
"""
INDEX = "CREATE INDEX analytics_events_export_xid_idx ON analytics_events (export_xid)"
DROP = "ALTER TABLE analytics_events ALTER COLUMN export_xid DROP DEFAULT"
SET = "ALTER TABLE analytics_events ALTER COLUMN export_xid SET DEFAULT (pg_current_xact_id()::text::bigint + 0)"


async def copy(dsn: str, events: int, folder: Path) -> None:
    """Copy what is there, by a process of its own."""
    sink = TimescaleSink(dsn)
    started = datetime.now(UTC)
    for start in range(0, events, STEP):
        lines = make_lines(min(STEP, events - start), started)
        for first in range(0, len(lines), BATCH):
            await sink.write(lines[first : first + BATCH])
    await sink.aclose()
    await init_export(dsn, "copy", folder.as_uri())
    await want_backfill(dsn, "copy")
    script = RUN.replace("STEP", str(STEP))
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", script, dsn, "copy", folder.as_uri()],
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    number, seconds, cpu, memory = json.loads(done.stdout)
    await remove_export(dsn, "copy")
    connection = await asyncpg.connect(dsn)
    await connection.execute("TRUNCATE analytics_events")
    await connection.close()
    print("| events | events a second | µs of CPU an event |\n|---|---|---|")
    print(f"| {number} | {number / seconds:.0f} | {1e6 * cpu / number:.1f} |")
    print(f"\nMiB of memory after each {STEP:,} events: {', '.join(f'{one:.0f}' for one in memory)}\n")
    at_least("events a second to Parquet files, thousands", number / seconds / 1000, 50)
    at_most(f"memory after {events:,} events against that after {STEP:,}, ratio", memory[-1] / memory[0], 1.1)


async def ingest(dsn: str, events: int) -> None:
    """Store batches with the column and without, in turn; compare the CPU of the server's process."""
    connection = await asyncpg.connect(dsn)
    used: dict[str, list[float]] = {"without": [], "column": [], "column and index": []}
    for _ in range(ROUNDS):
        for way, times in used.items():
            await connection.execute(DROP if way == "without" else SET)
            await connection.execute("DROP INDEX IF EXISTS analytics_events_export_xid_idx")
            if way == "column and index":
                await connection.execute(INDEX)
            sink = TimescaleSink(dsn)
            lines = make_lines(events, datetime.now(UTC))
            await sink.write(lines[:BATCH])
            pid = await connection.fetchval(
                "SELECT pid FROM pg_stat_activity WHERE application_name = 'asgi-analytics' ORDER BY backend_start DESC"
                " LIMIT 1"
            )
            before = sum(psutil.Process(pid).cpu_times()[:2])
            for start in range(BATCH, events, BATCH):
                await sink.write(lines[start : start + BATCH])
            times.append(1e6 * (sum(psutil.Process(pid).cpu_times()[:2]) - before) / (events - BATCH))
            await sink.aclose()
            await connection.execute("TRUNCATE analytics_events")
    await connection.execute(SET)
    await connection.close()
    print("\n| stored | µs of the server's CPU an event |\n|---|---|")
    for way, times in used.items():
        print(f"| {way} | {statistics.median(times):.2f} |")
    base = statistics.median(used["without"])
    print()
    at_most("cost of the column at ingest, %", 100 * (statistics.median(used["column"]) / base - 1), 3)
    at_most("cost of column and index at ingest, %", 100 * (statistics.median(used["column and index"]) / base - 1), 10)


async def delay(dsn: str, rate: int, seconds: float, folder: Path) -> None:
    """Store at a steady rate, export each second, and measure from commit to file."""
    await init_export(dsn, "steady", folder.as_uri())
    connection = await asyncpg.connect(dsn)
    exporter = Exporter(dsn, "steady")
    committed: dict[str, float] = {}
    running = asyncio.create_task(exporter.run_every(1.0))
    began = time.time()
    sink = TimescaleSink(dsn)
    number = 0
    while time.time() - began < seconds:
        lines = make_lines(rate // 10, datetime.now(UTC))
        await sink.write(lines)
        committed[json.loads(lines[-1])["event_id"]] = time.time()
        number += len(lines)
        await asyncio.sleep(max(0.0, began + number / rate - time.time()))
    exporter.stop()
    await running
    await Exporter(dsn, "steady").run()
    waits: list[float] = []
    from pyarrow import parquet

    files: list[Any] = sorted(folder.rglob("*.parquet"))
    for path in files:
        ids = parquet.read_table(path, columns=["event_id"], partitioning=None)["event_id"].to_pylist()
        waits += [path.stat().st_mtime - committed[one] for one in ids if one in committed]
    await connection.close()
    await sink.aclose()
    waits.sort()
    print(f"\n{number} events in {len(files)} files; from commit to file p50 {waits[len(waits) // 2]:.2f} s")
    at_most(f"longest delay from commit to file at {rate:,} events a second, every second, s", waits[-1], 60)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=500_000)
    parser.add_argument("--rate", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=90)
    parser.add_argument("--only", choices=("copy", "ingest", "delay"))
    options = parser.parse_args()
    servers = Servers()
    try:
        flavour = "timescaledb" if "timescaledb" in servers.available else "postgresql"
        server = servers.private(flavour, SETTINGS)
        dsn = server.dsn(server.template())
        print(f"{server.version}\n")
        with tempfile.TemporaryDirectory() as folder:
            if options.only in (None, "copy"):
                asyncio.run(copy(dsn, options.events, Path(folder) / "copy"))
            if options.only in (None, "ingest"):
                asyncio.run(ingest(dsn, max(options.events // 20, 5 * BATCH)))
            if options.only in (None, "delay"):
                asyncio.run(delay(dsn, options.rate, options.seconds, Path(folder) / "steady"))
        server.end()
    finally:
        servers.close()


if __name__ == "__main__":
    main()
