"""gunicorn --preload with uvicorn's workers: master and workers store their own in a real database, once."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.databases import Database
from tests.fakes import until
from tests.faults.balance import ids_in
from tests.faults.witness import PROLOGUE, accepted_ids, environment, figures

pytestmark = pytest.mark.skipif(importlib.util.find_spec("gunicorn") is None, reason="gunicorn is not installed")

APP = """
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

client = make_client(flush_interval=3600)
for number in range(100):
    client.track(Said(what="preload", number=number))
if os.environ["FLUSHED"]:
    client.flush(30)  # the master's thread and its connection are there when it forks

async def buy(request):
    for number in range(100):
        assert client.track(Said(what="bought", number=number))
    return PlainTextResponse("ok")

import contextlib
@contextlib.asynccontextmanager
async def lifespan(app):
    (witness.folder / f"started-{os.getpid()}").touch()
    yield

shop = Starlette(routes=[Route("/buy", buy)], lifespan=lifespan)
shop.add_middleware(AnalyticsMiddleware, client=client)

async def app(scope, receive, send):
    try:
        await shop(scope, receive, send)
    finally:
        if scope["type"] == "lifespan":
            witness.write_figures("lifespan")
"""

# uvicorn says that its worker class has moved to a package of its own; it is the same class.
WORKER = """
import warnings
warnings.filterwarnings("ignore", category=DeprecationWarning)
from uvicorn.workers import UvicornWorker
"""


@contextlib.contextmanager
def gunicorn(folder: Path, dsn: str, port: int, flushed: str) -> Iterator[subprocess.Popen[bytes]]:
    (folder / "shop.py").write_text(PROLOGUE + APP)
    (folder / "worker.py").write_text(WORKER)
    command = [sys.executable, "-m", "gunicorn", "--preload", "-w", "3", "-k", "worker.UvicornWorker"]
    environ = environment(folder, dsn, FLUSHED=flushed)
    process = subprocess.Popen([*command, "-b", f"127.0.0.1:{port}", "shop:app"], cwd=folder, env=environ)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def buy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/buy", timeout=10) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.mark.parametrize("flushed", ["", "flushed"], ids=["untouched", "flushed"])
async def test_master_and_workers_store_all_of_theirs(database: Database, tmp_path: Path, flushed: str) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])
    with gunicorn(tmp_path, database.dsn, port, flushed) as server:
        until(lambda: buy(port), 30)
        until(lambda: len(list(tmp_path.glob("started-*"))) == 3, 30)
        assert all(buy(port) for _ in range(29))
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
    workers, [master] = figures(tmp_path, "lifespan"), [one for one in figures(tmp_path) if one["accepted"] == 100]
    assert len(workers) == 3
    assert sum(one["stored"] for one in workers) == sum(one["accepted"] for one in workers) == 30 * (100 + 1)
    assert master["stored"] == 100
    accepted = accepted_ids(tmp_path)
    assert len(accepted) == 100 + 30 * (100 + 1)
    assert set(await ids_in(database)) == accepted


async def test_a_worker_that_is_killed_costs_its_own_events_only_and_its_heir_stores_on(
    database: Database, tmp_path: Path
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])
    with gunicorn(tmp_path, database.dsn, port, "flushed") as server:
        until(lambda: len(list(tmp_path.glob("started-*"))) == 3, 30)
        assert all(buy(port) for _ in range(10))
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children")
        if not children.exists():
            pytest.skip("this system does not tell a process's children")
        before = children.read_text().split()
        os.kill(int(before[0]), signal.SIGKILL)
        # A worker that is told to end before it serves does not hear it: that is between gunicorn and uvicorn.
        until(lambda: len(list(tmp_path.glob("started-*"))) == 4, 30)
        until(lambda: buy(port), 30)
        assert all(buy(port) for _ in range(9))
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
    workers = figures(tmp_path, "lifespan")
    assert len(workers) == 3
    stored, accepted = set(await ids_in(database)), accepted_ids(tmp_path)
    assert stored <= accepted
    told = sum(one["stored"] for one in workers) + 100
    assert len(stored) >= told
    # Lost is at most what the killed one had accepted, of whom nobody else can tell.
    assert len(accepted) - len(stored) <= len(accepted) - sum(one["accepted"] for one in workers) - 100
