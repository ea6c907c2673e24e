"""What it costs to drop what is over, what writers notice of it, and what it costs to check events by the registry.

Fills the migrated table with events of 90 days, eight in ten of them of the category `system`, and on TimescaleDB turns
them into columns. Then the time of these is over, and they are dropped step by step as the worker does it, while a
writer beside it stores batches of 100 new events, one every 20 ms. How long its writes take is compared with those when
nothing is dropped. Then the time of all is over, and whole days are dropped. At last the ingestion service's validation
of batches of 100: of a type with a class, of one with a schema in the registry, and of an unknown one.

Run: python benchmarks/keeping.py [--events 5000000] [--database timescaledb|postgresql]
Needs: a TimescaleDB that the tests would find, and the embedded PostgreSQL; four gigabytes of disk or memory
Goals: no write beside it takes longer than 100 ms; at most 5 µs to check an event by the registry
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg

sys.path.insert(0, str(Path(__file__).parent.parent))

from asgi_analytics.admin.refresh import refresh_views
from asgi_analytics.migrate.runner import migrate
from asgi_analytics.sinks.base import StoredSchema
from asgi_analytics.sinks.timescale import TimescaleSink
from asgi_analytics.web.ingestion.registry import compiled
from asgi_analytics.web.ingestion.validation import Validator
from benchmarks.aggregates import FILL, SETTINGS
from benchmarks.goals import at_most
from tests.kit.servers import Servers

DAYS = 90
BATCH, PAUSE = 100, 0.02
SIZE = {
    "timescaledb": "SELECT hypertable_size('analytics_events')",
    "postgresql": "SELECT sum(pg_total_relation_size(relid))::bigint"
    " FROM pg_partition_tree('analytics_events') WHERE isleaf",
}
OVER = "SELECT count(*) FROM analytics_events WHERE timestamp < date_trunc('day', now()) - INTERVAL '5 days'"


def line(event_type: str = "task_created") -> bytes:
    data = {"task_id": str(uuid4()), "command": "build"}
    made = {
        "event_id": str(uuid4()), "event_type": event_type, "timestamp": datetime.now(UTC).isoformat(),
        "service": "shop", "user_id": str(uuid4()), "session_id": None, "data": data, "context": None,
    }  # fmt: skip
    return json.dumps(made).encode()


async def beside(dsn: str, work: Callable[[], Awaitable[int]]) -> tuple[int, float, list[float]]:
    """Write while something else works; return what that returned, its seconds, and the milliseconds of each write."""
    sink = TimescaleSink(dsn)
    await sink.write([line() for _ in range(BATCH)])  # connects, and makes the chunk of the day
    working = asyncio.ensure_future(work())
    began, took = time.perf_counter(), []
    while not working.done():
        batch = [line() for _ in range(BATCH)]
        start = time.perf_counter()
        await sink.write(batch)
        took.append((time.perf_counter() - start) * 1000)
        await asyncio.sleep(PAUSE)
    await sink.aclose()
    return working.result(), time.perf_counter() - began, took


async def measure(dsn: str, flavour: str, number: int) -> None:
    connection = await asyncpg.connect(dsn, timeout=30, command_timeout=3600)
    await connection.execute("UPDATE analytics_retention SET keep = '3650 days'")
    start = await connection.fetchval("SELECT date_trunc('day', now()) - make_interval(days => $1)", DAYS)
    step = 120_000
    for first in range(0, number, step):
        await connection.execute(FILL, start, DAYS * 86400 / number, first, min(first + step, number), True)
    await refresh_views(dsn)
    if flavour == "timescaledb":
        await connection.execute(
            "SELECT compress_chunk(c) FROM show_chunks('analytics_events', older_than => now()) AS c"
        )
    await connection.execute("VACUUM ANALYZE analytics_events")
    steps = 0

    async def drop() -> int:
        nonlocal steps
        steps = 0
        while await connection.fetchval("SELECT analytics_drop_old()"):
            steps += 1
        return steps

    async def nothing() -> int:
        await asyncio.sleep(10)
        return 0

    print(f"\n{flavour}, {number:,} events in {DAYS} days\n")
    print("| | rows dropped | steps | seconds | MB before → after | writes | median ms | longest ms |")
    print("|---|---|---|---|---|---|---|---|")
    everything = "UPDATE analytics_retention SET keep = '5 days'"
    for what, work, change in (
        ("nothing", nothing, "SELECT 1"),
        ("the category system", drop, "UPDATE analytics_retention SET keep = '5 days' WHERE category = 'system'"),
        ("all that is left: whole days", drop, everything),
    ):
        await connection.execute(change)
        before = await connection.fetchval(SIZE[flavour]), await connection.fetchval(OVER)
        done, seconds, took = await beside(dsn, work)
        after = await connection.fetchval(SIZE[flavour]), await connection.fetchval(OVER)
        size = f"{before[0] / 1e6:.0f} → {after[0] / 1e6:.0f}"
        print(
            f"| {what} | {before[1] - after[1]:,} | {done} | {seconds:.1f} | {size} | {len(took)}"
            f" | {statistics.median(took):.1f} | {max(took):.1f} |",
            flush=True,
        )
        if work is drop:
            at_most(f"ms of the longest write while {what} is dropped, {flavour}", max(took), 100)
    await connection.close()


def check() -> None:
    schema = {
        "type": "object",
        "properties": {"task_id": {"type": "string", "format": "uuid"}, "command": {"type": "string"}},
        "required": ["task_id", "command"],
    }
    registered = compiled([StoredSchema("build_ordered", json.dumps(schema), False)])
    print("\n| validation of an event, batches of 100 | µs |\n|---|---|")
    found = {}
    for what, event_type, strict in (
        ("unknown, stored as it is", "unheard_of", False),
        ("by its class", "task_created", True),
        ("by the registry", "build_ordered", True),
    ):
        validator = Validator(strict_types=strict)
        validator.use(registered)
        batch: list[Any] = [line(event_type) for _ in range(BATCH)]
        times = []
        for _ in range(200):
            began = time.perf_counter()
            good, _, refused = validator.check(batch)
            times.append((time.perf_counter() - began) / BATCH * 1e6)
            assert len(good) == BATCH, refused
        found[what] = statistics.median(times)
        print(f"| {what} | {found[what]:.2f} |", flush=True)
    at_most("µs that the registry adds to an event", found["by the registry"] - found["unknown, stored as it is"], 5)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--database", choices=["timescaledb", "postgresql"])
    options = parser.parse_args()
    servers = Servers()
    try:
        for flavour in servers.available[::-1]:
            if options.database in (None, flavour):
                cluster = servers.private(flavour, SETTINGS)
                dsn = cluster.dsn(cluster.create())
                asyncio.run(migrate(dsn))
                asyncio.run(measure(dsn, flavour, options.events))
                cluster.end()
    finally:
        servers.close()
    check()


if __name__ == "__main__":
    main()
