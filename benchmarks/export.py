"""How fast an export reaches Parquet files, what its column costs at ingest, and how long an event is under way.

A backfill of events with 250 bytes of data each goes to a folder, by a process of its own, whose peak of memory is
looked at for half of them and for all. Then batches are stored by the sink with the column and its index, with the
column alone, and without either, in turn. Last, events come at a steady rate while the export runs once a second, and
each file is asked how long ago its youngest event was committed.

Run: python benchmarks/export.py [--events 200000] [--rate 1000] [--seconds 20]
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
RUN = """
import asyncio, resource, sys, time
from asgi_analytics.exports.exporter import Exporter
began, cpu = time.perf_counter(), time.process_time()
ran = asyncio.run(Exporter(sys.argv[1], sys.argv[2]).run())
seconds = time.perf_counter() - began
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(ran.events, seconds, time.process_time() - cpu, peak)
"""
INDEX = "CREATE INDEX analytics_events_export_xid_idx ON analytics_events (export_xid)"
DROP = "ALTER TABLE analytics_events ALTER COLUMN export_xid DROP DEFAULT"
SET = "ALTER TABLE analytics_events ALTER COLUMN export_xid SET DEFAULT (pg_current_xact_id()::text::bigint + 0)"


async def copy(dsn: str, events: int, folder: Path) -> None:
    """Copy what is there, half of it first."""
    connection = await asyncpg.connect(dsn)
    sink = TimescaleSink(dsn)
    lines = make_lines(events, datetime.now(UTC))
    peaks = []
    print("| events | events a second | µs of CPU an event | peak of memory, MiB |\n|---|---|---|---|")
    for part in (lines[: events // 4], lines[events // 4 :]):
        for start in range(0, len(part), BATCH):
            await sink.write(part[start : start + BATCH])
        name = f"copy{len(peaks)}"
        await init_export(dsn, name, (folder / name).as_uri())
        await want_backfill(dsn, name)
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", RUN, dsn, name], capture_output=True, text=True, check=True
        )
        number, seconds, cpu, peak = map(float, done.stdout.split())
        peaks.append(peak)
        print(f"| {number:.0f} | {number / seconds:.0f} | {1e6 * cpu / number:.1f} | {peak:.0f} |")
        await remove_export(dsn, name)
    await connection.execute("TRUNCATE analytics_events")
    await connection.close()
    await sink.aclose()
    print()
    at_least("events a second to Parquet files, thousands", number / seconds / 1000, 50)
    at_most("peak of memory at four times the events, ratio", peaks[1] / peaks[0], 1.2)


async def ingest(dsn: str, events: int) -> None:
    """Store batches with the column and without, in turn; compare the CPU of the server's process."""
    connection = await asyncpg.connect(dsn)
    used: dict[str, list[float]] = {"without": [], "column": [], "column and index": []}
    for _ in range(ROUNDS):
        for way, times in used.items():
            await connection.execute(DROP if way == "without" else SET)
            await connection.execute("DROP INDEX IF EXISTS analytics_events_export_xid_idx")
            if way == "column and index":
                await connection.execute(
                    "CREATE INDEX analytics_events_export_xid_idx ON analytics_events (export_xid)"
                )
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
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--rate", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    servers = Servers()
    try:
        flavour = "timescaledb" if "timescaledb" in servers.available else "postgresql"
        server = servers.private(flavour, SETTINGS)
        dsn = server.dsn(server.template())
        print(f"{server.version}\n")
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(copy(dsn, options.events, Path(folder) / "copy"))
            asyncio.run(ingest(dsn, max(options.events // 20, 5 * BATCH)))
            asyncio.run(delay(dsn, options.rate, options.seconds, Path(folder) / "steady"))
        server.end()
    finally:
        servers.close()


if __name__ == "__main__":
    main()
