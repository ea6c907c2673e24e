"""What the API adds to a question, how many equal ones it answers, and what a long answer takes of memory.

A process of ``analytics-api`` and a reader of this process ask the same database the same questions, turn by turn; no
two of the API's are equal, so none of its answers is one that it kept. Then wrk asks one question over and over. At
last a million events are read from it as CSV.

Run:   python benchmarks/api.py [--events 1000000]
Needs: wrk (apt install wrk), starlette, uvicorn; a TimescaleDB that the tests would find, else the embedded PostgreSQL
Goals: at most 3 ms more at the median; 500 equal questions a second; memory flat
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import psutil

sys.path.insert(0, str(Path(__file__).parent.parent))

from asgi_analytics.admin.refresh import refresh
from asgi_analytics.reading import AnalyticsReader
from benchmarks.goals import at_least, at_most
from benchmarks.reading import SETTINGS
from tests.kit.databases import Database
from tests.kit.servers import Servers
from tests.web.api.service import Process

MIB = 1024 * 1024
FILL = """
INSERT INTO analytics_events (id, timestamp, event_type, service, user_id, data)
SELECT gen_random_uuid(), now() - make_interval(secs => 86400.0 * n / $1), 'page_viewed', 'shop', gen_random_uuid(),
    jsonb_build_object('page', '/lamps/' || n % 50, 'number', n)
FROM generate_series(1, $1::int) AS n
"""


async def compare(reader: AnalyticsReader, http: httpx2.AsyncClient, rounds: int) -> None:
    """Ask for the same ranges with and without the API."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    direct, by_http = [], []
    for number in range(rounds):
        start = today - timedelta(days=20, seconds=number)
        began = time.perf_counter()
        await reader.get_task_stats_daily(start=start)
        between = time.perf_counter()
        (await http.get("/tasks/daily", params={"start_date": start.isoformat()})).raise_for_status()
        by_http.append(time.perf_counter() - between)
        direct.append(between - began)
    with_, without = statistics.median(by_http) * 1000, statistics.median(direct) * 1000
    print(f"a question by the reader: {without:.2f} ms; by the API: {with_:.2f} ms; {rounds} rounds", flush=True)
    at_most("ms that the API adds to a question, median", with_ - without, 3)


def ask_the_same(port: int, seconds: int) -> None:
    url = f"http://127.0.0.1:{port}/users/daily"
    command = ["wrk", "-t1", "-c32", f"-d{seconds}s", "--latency", url]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in told:
        raise SystemExit(told)
    found = re.search(r"Requests/sec:\s+([\d.]+)", told)
    assert found is not None
    at_least("equal questions a second of one process of the API", float(found[1]), 500)


async def stream(http: httpx2.AsyncClient, process: psutil.Process, events: int) -> None:
    """Read all events, and look at the process's memory meanwhile."""
    began, rows, size = time.perf_counter(), 0, 0
    memory: list[float] = []
    async with http.stream("GET", "/events", params={"format": "csv"}, timeout=600) as answer:
        answer.raise_for_status()
        async for chunk in answer.aiter_bytes():
            rows += chunk.count(b"\n")
            size += len(chunk)
            memory.append(process.memory_info().rss / MIB)
    took = time.perf_counter() - began
    print(f"{rows - 1} rows, {size / MIB:.0f} MiB of CSV in {took:.0f} s", flush=True)
    if rows - 1 != events:
        raise SystemExit("that is not all of them")
    tenth = len(memory) // 10
    growth = statistics.median(memory[-tenth:]) - statistics.median(memory[tenth : 2 * tenth])
    print(f"memory of the process: {memory[tenth]:.0f} to {memory[-1]:.0f} MiB", flush=True)
    at_most("MiB that the API grows while it sends all events as CSV", max(0, growth), 5)


async def measure(database: Database, events: int) -> None:
    connection = await database.connect()
    await connection.execute(FILL, events, timeout=600)
    await refresh(connection)
    async with AnalyticsReader.from_url(database.dsn) as reader:
        with Process(database.dsn) as process:
            async with process.client() as http:
                await compare(reader, http, 50)  # warm
                await compare(reader, http, 300)
                await asyncio.to_thread(ask_the_same, process.port, 5)
                await stream(http, psutil.Process(process.process.pid), events)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed: apt install wrk")
    servers = Servers()
    try:
        cluster = servers.private(servers.available[-1], SETTINGS)
        print(cluster.version, flush=True)
        asyncio.run(measure(Database(cluster, cluster.template()), options.events))
    finally:
        servers.close()


if __name__ == "__main__":
    main()
