"""Serve under load, with connections cut at random, for an hour; see that nothing grows and no event is astray.

::

    python -m tests.faults.soak [--seconds 3600] [--rate 100] [--database timescaledb]

Starts a database, a uvicorn server with the middleware and ``instrument_asyncpg``, a steady load, and a proxy that
cuts. Prints threads, file descriptors, connections and memory of the server over time. Ends the server by SIGTERM and
looks whether each accepted event has its fate, and the table exactly the stored ids. Exits 1 where something grows or
is astray.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import asyncpg
import psutil

from tests.faults.balance import ids_in
from tests.faults.witness import PROLOGUE, accepted_ids, assert_accounted, environment
from tests.kit.databases import Database
from tests.kit.proxy import Proxy
from tests.kit.servers import Servers
from tests.kit.serving import Serving

APP = """
import contextlib
import asyncpg
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from asgi_analytics import instrument_asyncpg

client = make_client()
instrument_asyncpg(client)

@contextlib.asynccontextmanager
async def lifespan(app):
    async with asyncpg.create_pool(DSN, min_size=2, max_size=4, max_inactive_connection_lifetime=0) as app.state.pool:
        yield

async def buy(request):
    article = int(request.path_params["article"])
    pool = request.app.state.pool
    row = await pool.fetchrow("SELECT $1::int AS article, 'a thing' AS name", article, timeout=5)
    await pool.fetch("SELECT number FROM generate_series(1, 10) AS number", timeout=5)
    client.track(Said(what=row["name"], number=article))
    if article % 50 == 0:
        raise LookupError("sold out")
    return JSONResponse({"article": article})

async def stats(request):
    return JSONResponse(client.stats().as_dict())

shop = Starlette(routes=[Route("/buy/{article}", buy), Route("/stats", stats)], lifespan=lifespan)
shop.add_middleware(AnalyticsMiddleware, client=client, exclude=["/stats"])

app = witness.of_lifespan(shop)
"""


class Sample(NamedTuple):
    """What one look at the server has shown."""

    seconds: float
    threads: int
    descriptors: int
    connections: int
    mebibytes: float


ALLOWED = {"threads": (1.0, 1.0), "descriptors": (1.0, 4.0), "connections": (1.0, 2.0), "mebibytes": (1.05, 2.0)}
"""By how much, as a factor and besides, the mean of the last third may pass that of the first one."""


def growth(samples: list[Sample]) -> list[str]:
    """Return what has grown from the first third of the samples to the last one, each in a line; empty: all is flat."""
    third = len(samples) // 3
    if third == 0:
        return ["there are fewer than three samples"]
    grown = []
    for name, (factor, more) in ALLOWED.items():
        first = fmean(getattr(sample, name) for sample in samples[:third])
        last = fmean(getattr(sample, name) for sample in samples[-third:])
        if last > first * factor + more:
            grown.append(f"{name} grew from {first:.1f} to {last:.1f}")
    return grown


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> tuple[int, bytes]:
    """Return status and body of a GET on a connection that is kept."""
    writer.write(f"GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
    return int(head.split(b" ", 2)[1]), await reader.readexactly(length)


async def visit(port: int, rate: float, answers: Counter[int], article: list[int]) -> None:
    """Buy at a rate, for ever; connect again where the server has closed."""
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                while True:
                    article[0] += 1
                    status, _ = await ask(reader, writer, f"/buy/{article[0] % 100_000}")
                    answers[status] += 1
                    await asyncio.sleep(random.expovariate(rate))
            finally:
                writer.close()
        await asyncio.sleep(0.1)


async def cut(proxy: Proxy, cuts: Counter[str]) -> None:
    """Do to the connections what networks do, every few seconds."""
    while True:
        await asyncio.sleep(random.uniform(1, 8))
        kind = random.choice(["cut", "cut", "refused", "stalled", "answer lost"])
        cuts[kind] += 1
        if kind == "cut":
            await asyncio.to_thread(proxy.cut)
        elif kind == "refused":
            await asyncio.to_thread(proxy.refuse)
            await asyncio.to_thread(proxy.cut)
            await asyncio.sleep(random.uniform(0.1, 3))
            await asyncio.to_thread(proxy.accept)
        elif kind == "stalled":
            await asyncio.to_thread(proxy.stall)
            await asyncio.sleep(random.uniform(0.1, 2))
            await asyncio.to_thread(proxy.resume)
        else:
            proxy.lose_answer(b"INSERT 0")


async def stats(port: int) -> dict[str, Any]:
    """Return the client's figures, as the server tells them."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        found: dict[str, Any] = json.loads((await ask(reader, writer, "/stats"))[1])
        return found
    finally:
        writer.close()


async def connections(database: Database, watching: asyncpg.Connection) -> int:
    """Return how many the server under test has at the database."""
    sql = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = $1 AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
    return int(await watching.fetchval(sql, database.name))


async def soak(database: Database, folder: Path, seconds: float, rate: float) -> list[str]:
    """Run for so long, print what is seen, and return what is wrong."""
    proxy = Proxy(database.cluster.host, database.cluster.port, database.dsn)
    command = ("uvicorn", "--log-level", "critical", "--no-access-log")
    answers: Counter[int] = Counter()
    cuts: Counter[str] = Counter()
    samples: list[Sample] = []
    article = [0]
    visitors = 8
    with (
        contextlib.closing(proxy),
        Serving(folder, PROLOGUE + APP, *command, environ=environment(folder, proxy.dsn)) as server,
    ):
        port = server.port
        await until_served(server)
        process = psutil.Process(server.process.pid)
        watching = await database.connect()
        begun = time.monotonic()
        tasks = [asyncio.create_task(visit(port, rate / visitors, answers, article)) for _ in range(visitors)]
        tasks.append(asyncio.create_task(cut(proxy, cuts)))
        warm_up, step = min(max(20.0, seconds / 10), seconds / 3), max(1.0, seconds / 300)
        print("seconds  threads  descriptors  connections  MiB     accepted    stored  queued  retries", flush=True)
        said = 0.0
        while (now := time.monotonic() - begun) < seconds:
            memory = process.memory_info().rss / 2**20
            found = await connections(database, watching)
            sample = Sample(now, process.num_threads(), process.num_fds(), found, memory)
            if now >= warm_up:
                samples.append(sample)
            if now >= said:
                said += seconds / 20
                figures = await stats(port)
                print(
                    f"{now:7.0f} {sample.threads:8} {sample.descriptors:12} {sample.connections:12} {memory:7.1f}"
                    f" {figures['accepted']:9} {figures['stored']:9} {figures['queued']:7} {figures['retries']:8}"
                    + ("   warming up" if now < warm_up else ""),
                    flush=True,
                )
            await asyncio.sleep(step)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        proxy.accept()
        proxy.resume()
        await asyncio.to_thread(server.terminate)
    wrong = growth(samples)
    [end] = assert_accounted(folder, "lifespan")
    accepted, stored = accepted_ids(folder), set(await ids_in(database))
    print(f"requests {dict(answers)}; connections {dict(cuts)}")
    print("at the end " + ", ".join(f"{name} {value}" for name, value in end.items()))
    if end["stored"] + end["duplicates"] + sum(end["rejected"].values()) != end["accepted"]:
        wrong.append("not all that was accepted was stored at the end")
    if stored != accepted:
        wrong.append(f"{len(accepted - stored)} accepted events are missing, {len(stored - accepted)} are nobody's")
    if any(status not in (200, 500) for status in answers) or answers[200] < answers.total() / 2:
        wrong.append(f"the server answered {dict(answers)}")
    if not end["retries"]:
        wrong.append("no write was ever cut: this proves nothing")
    return wrong


async def until_served(server: Serving) -> None:
    """Return when the server answers; raises when it has ended."""
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await stats(server.port)
            return
        if server.process.poll() is not None:
            raise RuntimeError("the server has ended: see its log")
        await asyncio.sleep(0.05)


async def run(servers: Servers, flavour: str, seconds: float, rate: float) -> list[str]:
    """Make the database and soak."""
    shared = await asyncio.to_thread(servers.shared, flavour)
    database = Database(shared, await asyncio.to_thread(lambda: shared.create(template=shared.template())))
    print(f"{database.version}, {seconds:.0f} s, {rate:.0f} requests a second, process {os.getpid()}")
    try:
        with tempfile.TemporaryDirectory(prefix="soak-") as folder:
            return await soak(database, Path(folder), seconds, rate)
    finally:
        await database.close()


def main() -> int:
    """Soak, say what is wrong, and return the exit code."""
    servers = Servers()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3600, help="how long (default: an hour)")
    parser.add_argument("--rate", type=float, default=100, help="requests a second; each makes four events (100)")
    parser.add_argument("--database", choices=servers.available, default=servers.available[-1], help="which server")
    arguments = parser.parse_args()
    try:
        wrong = asyncio.run(run(servers, arguments.database, arguments.seconds, arguments.rate))
    finally:
        servers.close()
    print("\n".join(wrong) if wrong else "flat, and every event is where it belongs")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
