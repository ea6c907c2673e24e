"""What it costs to export, anonymise and erase a person, and how long a writer beside it waits.

Events over 90 days, on TimescaleDB all days but the last one in columns; with the aggregates filled. A usual user has
some 140 of them, a heavy one a hundredth of all. Each is exported and erased, and another usual
one is anonymised. All of it reads every row once, to list who else quotes the id, which takes most of the time. Beside
it another process writes one event at a time, without a pause, in turn of this moment and of a day that is in columns;
the table has the longest of its writes, and the longest of as many while nothing else happens.

Run:   python benchmarks/subjects.py [--events 1000000] [--days 90] [--flavour timescaledb] [--only "erase a usual"]
Needs: a TimescaleDB that the tests would find, else the embedded PostgreSQL
Goals: no write of this moment waits for longer than 100 ms more than the longest one when nothing else happens.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from hashlib import md5
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID, uuid4

import asyncpg

sys.path.insert(0, str(Path(__file__).parent.parent))

from asgi_analytics import TimescaleSink
from asgi_analytics.admin import subjects
from asgi_analytics.admin.refresh import refresh
from benchmarks.goals import at_most
from benchmarks.storing import SETTINGS
from tests.kit.servers import Servers

EVENTS_OF_A_USER = 140
FILL = """
INSERT INTO analytics_events (id, timestamp, event_type, service, user_id, session_id, data, context)
SELECT
    gen_random_uuid(),
    $1::timestamptz + $2::interval * random(),
    (ARRAY['api_request', 'database_query', 'page_view', 'order_placed'])[1 + n % 4],
    'shop',
    md5(CASE WHEN n % 100 = 0 THEN 1 ELSE (random() ^ 2 * $4)::int + 2 END::text)::uuid,
    CASE WHEN n % 3 = 0 THEN md5((n / 12)::text) END,
    jsonb_build_object(
        'endpoint', '/orders/{id}', 'method', 'GET', 'status_code', 200,
        'duration_ms', round((random() * 90)::numeric, 3),
        'page', '/orders', 'title', 'Orders', 'total', n % 1000, 'note', repeat(md5(n::text), 4)
    ),
    jsonb_build_object('environment', 'production', 'request_id', md5(n::text), 'hostname', 'web-' || n % 9)
FROM generate_series(1, $3::int) AS n
"""
HEAVY, USUAL, ANOTHER = (UUID(md5(number, usedforsecurity=False).hexdigest()) for number in (b"1", b"47", b"81"))


def line(at: datetime) -> bytes:
    return json.dumps({
        "event_id": str(uuid4()), "event_type": "order_placed", "timestamp": at.isoformat(), "service": "shop",
        "user_id": str(uuid4()), "session_id": None, "data": {"total": 1}, "context": None,
    }).encode()  # fmt: skip


async def write_beside(dsn: str, days: int) -> None:
    """Write one event after the other until stdin ends, and print the longest waits in ms."""
    sink = TimescaleSink(dsn)
    random, loop = Random(1), asyncio.get_running_loop()
    end = loop.run_in_executor(None, sys.stdin.read)
    longest, number = {"now": 0.0, "late": 0.0}, 0
    await sink.write([line(datetime.now(UTC))])
    while not end.done():
        which = "now" if number % 2 else "late"
        at = datetime.now(UTC) - (timedelta(days=random.uniform(2, days - 1)) if which == "late" else timedelta(0))
        began = time.perf_counter()
        await sink.write([line(at)])
        longest[which] = max(longest[which], 1e3 * (time.perf_counter() - began))
        number += 1
    await sink.aclose()
    print(json.dumps({**longest, "number": number}))


class Beside:
    """A process that writes while something else happens."""

    def __init__(self, dsn: str, days: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--write", dsn, "--days", str(days)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        time.sleep(2)  # it starts

    def end(self) -> dict[str, float]:
        found: dict[str, float] = json.loads(self._process.communicate("")[0])
        return found


async def fill(dsn: str, number: int, days: int, flavour: str) -> None:
    connection = await asyncpg.connect(dsn, command_timeout=3600)
    since = datetime.now(UTC) - timedelta(days=days)
    for start in range(0, number, 250_000):
        await connection.execute(
            FILL,
            since,
            timedelta(days=days),
            min(250_000, number - start),
            number // EVENTS_OF_A_USER,
        )
    if flavour == "timescaledb":
        chunks = "SELECT compress_chunk(c) FROM show_chunks('analytics_events', older_than => INTERVAL '1 day') AS c"
        await connection.fetch(chunks)
    await connection.execute("VACUUM ANALYZE analytics_events")
    await refresh(connection)
    await connection.close()


async def measure(dsn: str, days: int, only: str) -> None:
    print("\n| | events | seconds | longest write, ms | of a day in columns | writes beside |")
    print("|---|---|---|---|---|---|", flush=True)

    async def row(name: str, work: Any) -> dict[str, float]:
        beside = Beside(dsn, days)
        began = time.perf_counter()
        found = await work
        seconds = time.perf_counter() - began
        said = await asyncio.to_thread(beside.end)
        events = "" if found is None else f"{found.request.rows.get('analytics_events', 0):,}"
        print(
            f"| {name} | {events} | {seconds:.1f} | {said['now']:.0f} | {said['late']:.0f} | {said['number']:,} |",
            flush=True,
        )
        return said

    idle = await row("nothing", asyncio.sleep(15))
    longest = 0.0
    for name, command, user in (
        ("export a usual user", subjects.export, USUAL),
        ("erase a usual user", subjects.erase, USUAL),
        ("anonymise a usual user", subjects.anonymise, ANOTHER),
        ("export a heavy user", subjects.export, HEAVY),
        ("erase a heavy user", subjects.erase, HEAVY),
        ("erase the same again", subjects.erase, HEAVY),
    ):
        if name.startswith(only):
            work: Any = command(dsn, user)
            longest = max(longest, (await row(name, work))["now"])
    at_most("longest write beside it, ms more than without", max(0.0, longest - idle["now"]), 100)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--flavour", choices=("timescaledb", "postgresql"))
    parser.add_argument("--only", default="", help="measure only what begins so in the table")
    parser.add_argument("--write", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        asyncio.run(write_beside(options.write, options.days))
        return
    servers = Servers()
    try:
        for flavour in [options.flavour] if options.flavour else reversed(servers.available):
            cluster = servers.private(flavour, SETTINGS)
            dsn = cluster.dsn(cluster.template())
            began = time.perf_counter()
            asyncio.run(fill(dsn, options.events, options.days, flavour))
            print(
                f"\n{cluster.version}, {options.events:,} events over {options.days} days, filled in "
                f"{time.perf_counter() - began:.0f} s",
                flush=True,
            )
            asyncio.run(measure(dsn, options.days, options.only))
            cluster.end()
    finally:
        servers.close()


if __name__ == "__main__":
    main()
