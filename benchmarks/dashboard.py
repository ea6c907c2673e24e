"""How fast the pages of the dashboard are answered over five million events of 30 days.

Asks for each page as a browser does, but in process, without the browser's own time: the first page, the others, and
those that look at one thing, for a week (which is what is shown at first) and for a month. Nothing is kept from one
round to the next: each has a dashboard of its own.

Run:   python benchmarks/dashboard.py [--events 5000000] [--database timescaledb|postgresql]
Needs: a TimescaleDB that the tests would find, and the embedded PostgreSQL; ten gigabytes of disk or memory
Goals: the first page within 1 s, each other within 1.5 s
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from urllib.parse import urlencode

import httpx2

sys.path.insert(0, str(Path(__file__).parent.parent))

from asgi_analytics.reading import AnalyticsReader
from asgi_analytics.web.dashboard import create_dashboard_app
from asgi_analytics.web.dashboard.pages import PAGES
from benchmarks.goals import at_most
from benchmarks.product import EVENTS, FUNNEL
from benchmarks.reading import run

ROUNDS = 3
FIRST, OTHERS = 1000, 1500
"""Milliseconds."""

Looked = tuple[str, str, dict[str, str]]
"""A page: its name, its path and its parameters."""


async def pages(dsn: str, flavour: str, number: int) -> None:
    print("\n| page | a week, ms | a month, ms |\n|---|---|---|", flush=True)
    async with AnalyticsReader.from_url(dsn, statement_timeout=60) as reader:
        first: list[Looked] = [(page.path or "overview", page.path, {}) for page in PAGES]
        for name, path, given in first + await one_thing(reader):
            took = {
                shown: await look(reader, f"/{path}?{urlencode({'range': shown, **given})}") for shown in ("7d", "30d")
            }
            print(f"| {name} | {took['7d']:.0f} | {took['30d']:.0f} |", flush=True)
            if number >= 5_000_000:
                for shown, milliseconds in took.items():
                    what = f"ms of the page {name} over {shown}, {number / 1e6:g} million events, {flavour}"
                    at_most(what, milliseconds, OTHERS if path else FIRST)


async def one_thing(reader: AnalyticsReader) -> list[Looked]:
    """Return the pages that look at one endpoint, error or user, and a funnel."""
    endpoints = await reader.get_endpoint_latency(bucket="all")
    busiest = max(endpoints, key=lambda row: row.request_count)
    [error] = await reader.list_error_groups(limit=1)
    [user] = await reader.get_api_consumers(limit=1)
    steps = {f"step{number}": step for number, step in enumerate(FUNNEL, 1)}
    return [
        ("one endpoint", "api", {"endpoint": str(busiest.endpoint), "method": str(busiest.method)}),
        ("one error", "errors", {"fingerprint": str(error.fingerprint)}),
        ("one user", "user", {"user_id": str(user.user_id)}),
        ("a funnel", "funnels", steps),
    ]


async def look(reader: AnalyticsReader, path: str) -> float:
    """Return how many milliseconds a page takes."""
    times = []
    for _ in range(ROUNDS):
        transport = httpx2.ASGITransport(app=create_dashboard_app(reader, authorize=lambda scope: True))
        async with httpx2.AsyncClient(transport=transport, base_url="http://dashboard", timeout=120) as http:
            began = time.perf_counter()
            answer = await http.get(path)
            times.append((time.perf_counter() - began) * 1000)
        if answer.status_code != 200 or 'class="panel note error' in answer.text:
            raise SystemExit(f"{path} is answered with {answer.status_code}: {answer.text[:2000]}")
    return statistics.median(times)


if __name__ == "__main__":
    run(EVENTS, [], pages)
