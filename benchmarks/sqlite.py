"""How fast SQLite is: events from one process, from many writers at once, and each view at a million events.

Run:   python benchmarks/sqlite.py [--events 1000000] [--writers 100]
Needs: a disk for some gigabyte
Goals: 50,000 events per second from one process in batches; 100 writers' events without an error; each view within 1 s
at 1 million events.
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import sys
import tempfile
import threading
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from asgi_analytics import AnalyticsClient, Event
from asgi_analytics.admin.refresh import refresh_views
from asgi_analytics.database.sqlite.upkeep import SqliteUpkeep
from asgi_analytics.encoding.encoder import EventEncoder
from asgi_analytics.migrate.runner import migrate
from asgi_analytics.sinks.sqlite import SqliteSink
from benchmarks.goals import at_least, at_most

BATCH = 2_000
"""What the worker writes at once."""
VIEWS = (
    "analytics_daily_active_users", "analytics_task_stats_daily", "analytics_api_latency_hourly",
    "analytics_integration_health_daily", "analytics_auth_events_daily", "analytics_cocoon_activity_daily",
    "analytics_errors_hourly",
)  # fmt: skip
OTHERS = ("analytics_sessions", "analytics_dashboard_metrics", "analytics_metric_aggregates")
DAYS = 30


class BenchRequest(Event):
    """An event of about 150 bytes of data."""

    user_id: Any
    endpoint: str
    method: str
    status_code: int
    duration_ms: float
    db_queries: int
    path: str


def lines(number: int, since: datetime, until: datetime, seed: int = 1) -> list[bytes]:
    """Return events of the types that the views read, evenly over a time."""
    random = Random(seed)
    step = (until - since) / number
    at = iter(range(number))
    encoder = EventEncoder(
        service="shop", environment="production", hostname="web-1", clock=lambda: since + step * next(at)
    )
    made = []
    kinds = (
        [b"api_request"] * 60 + [b"database_query"] * 20 + [b"application_error"] * 3 + [b"auth_login_attempt"] * 4
        + [b"task_created"] * 3 + [b"task_completed"] * 3 + [b"integration_used"] * 3 + [b"cocoon_connected"] * 2
        + [b"cocoon_disconnected"] * 2
    )  # fmt: skip
    for i in range(number):
        one = encoder.encode(
            BenchRequest(
                user_id=random.randrange(5_000),
                endpoint=f"/products/{random.randrange(50)}/{{id}}",
                method="GET" if i % 4 else "POST",
                status_code=random.choice((200, 200, 200, 200, 404, 500)),
                duration_ms=round(random.lognormvariate(3, 1), 3),
                db_queries=i % 5,
                path="/products/of/the/day",
            )
        )
        made.append(one.replace(b"bench_request", random.choice(kinds), 1))
    return made


async def one_process(folder: Path, number: int) -> float:
    """Store events in batches and return how many a second."""
    url = f"sqlite:///{folder}/one.db"
    await migrate(url)
    batches = [
        made[i : i + BATCH]
        for made in [lines(number, now() - timedelta(days=1), now())]
        for i in range(0, number, BATCH)
    ]
    sink = SqliteSink(url)
    began, cpu = time.perf_counter(), time.process_time()
    for batch in batches:
        await sink.write(batch)
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    await sink.aclose()
    print(f"one process, batches of {BATCH}: {number / took:,.0f} events/s, {cpu / number * 1e6:.1f} µs CPU an event")
    return number / took


async def many_writers(folder: Path, writers: int, number: int) -> int:
    """Let clients with workers of their own write at once; return the errors and the events that are missing."""
    url = f"sqlite:///{folder}/many.db"
    await migrate(url)
    clients = [AnalyticsClient.from_url(url, service=f"w{i}", flush_interval=0.2) for i in range(writers)]

    def write(client: AnalyticsClient) -> None:
        for i in range(number):
            client.track(
                BenchRequest(
                    user_id=i, endpoint="/", method="GET", status_code=200, duration_ms=1.0, db_queries=1, path="/"
                )
            )
            time.sleep(0.005)

    began = time.perf_counter()
    threads = [threading.Thread(target=write, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    retries = sum(client.stats().retries for client in clients)
    closed = [await client.aclose(60) for client in clients]
    took = time.perf_counter() - began
    with closing(sqlite3.connect(folder / "many.db")) as connection:
        stored = connection.execute("SELECT count(*) FROM analytics_events").fetchone()[0]
    print(f"{writers} writers: {stored:,} of {writers * number:,} events in {took:.1f} s, retries: {retries}")
    return closed.count(False) + writers * number - stored


async def views(folder: Path, number: int) -> dict[str, float]:
    """Return the seconds that each view takes over a month of events."""
    url = f"sqlite:///{folder}/views.db"
    await migrate(url)
    sink = SqliteSink(url)
    since = now() - timedelta(days=DAYS)
    for part in range(0, number, 50_000):
        begin = since + timedelta(days=DAYS) * (part / number)
        end = since + timedelta(days=DAYS) * (min(number, part + 50_000) / number)
        made = lines(min(50_000, number - part), begin, end, seed=part)
        for i in range(0, len(made), BATCH):
            await sink.write(made[i : i + BATCH])
    await sink.aclose()
    print("before the first refresh:")
    ask(folder / "views.db", VIEWS, times=1)
    began = time.perf_counter()
    report = await refresh_views(url)
    longest = max((one.duration_ms for one in report.refreshed), default=0)
    print(f"the first refresh of {number:,} events: {time.perf_counter() - began:.1f} s, longest step {longest:.0f} ms")
    upkeep = SqliteUpkeep(SqliteSink(url)._url)
    began = time.perf_counter()
    list(upkeep.steps())
    upkeep.close()
    print(f"an upkeep with nothing to do: {(time.perf_counter() - began) * 1000:.0f} ms")
    seconds = ask(folder / "views.db", (*VIEWS, *OTHERS), times=3)
    size = (folder / "views.db").stat().st_size
    print(f"the file: {size / 1e6:,.0f} MB, {size / number:.0f} B an event with the aggregates")
    return seconds


def ask(path: Path, names: tuple[str, ...], times: int) -> dict[str, float]:
    """Read views as any tool would, and return the seconds that each took at least."""
    seconds = {}
    with closing(sqlite3.connect(path)) as connection:
        for view in names:
            took = []
            for _ in range(times):
                began = time.perf_counter()
                rows = len(connection.execute(f"SELECT * FROM {view}").fetchall())
                took.append(time.perf_counter() - began)
            seconds[view] = min(took)
            print(f"{view}: {min(took) * 1000:.0f} ms, {rows:,} rows")
    return seconds


def now() -> datetime:
    return datetime.now(UTC)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--events", type=int, default=1_000_000, help="events of the views (default: 1000000)")
    parser.add_argument("--writers", type=int, default=100, help="clients that write at once (default: 100)")
    parser.add_argument("--folder", help="where the files are made (default: a temporary folder)")
    options = parser.parse_args()
    print(f"SQLite {sqlite3.sqlite_version}")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        rate = asyncio.run(one_process(Path(folder), min(options.events, 200_000)))
        at_least("events per second from one process to SQLite", rate, 50_000)
        at_most(
            f"errors and events lost of {options.writers} writers",
            asyncio.run(many_writers(Path(folder), options.writers, 200)),
            0,
        )
        seconds = asyncio.run(views(Path(folder), options.events))
        at_most("seconds of the slowest view at a million events", max(seconds[view] for view in VIEWS), 1)


if __name__ == "__main__":
    main()
