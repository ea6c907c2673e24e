"""gunicorn --preload with uvicorn's workers: master and workers store their own in a real database, once."""

from __future__ import annotations

import importlib.util
import os
import signal
from pathlib import Path

import pytest

from tests.faults.balance import ids_in
from tests.faults.shop import Shop
from tests.faults.witness import accepted_ids, figures
from tests.kit.databases import Database
from tests.kit.fakes import until
from tests.kit.serving import GUNICORN

pytestmark = pytest.mark.skipif(importlib.util.find_spec("gunicorn") is None, reason="gunicorn is not installed")

CLIENT = """
client = make_client(flush_interval=3600)
for number in range(100):
    client.track(Said(what="preload", number=number))
if os.environ["FLUSHED"]:
    client.flush(30)  # the master's thread and its connection are there when it forks
"""

# uvicorn says that its worker class has moved to a package of its own; it is the same class.
WORKER = """
import warnings
warnings.filterwarnings("ignore", category=DeprecationWarning)
from uvicorn.workers import UvicornWorker
"""


def gunicorn(folder: Path, dsn: str, flushed: str) -> Shop:
    (folder / "worker.py").write_text(WORKER)
    return Shop(folder, dsn, CLIENT, *GUNICORN, "-w", "3", "-k", "worker.UvicornWorker", FLUSHED=flushed)


@pytest.mark.parametrize("flushed", ["", "flushed"], ids=["untouched", "flushed"])
async def test_master_and_workers_store_all_of_theirs(database: Database, tmp_path: Path, flushed: str) -> None:
    with gunicorn(tmp_path, database.dsn, flushed) as shop:
        until(lambda: shop.buy(100), 30)
        shop.until_started(3)
        assert all(shop.buy(100) for _ in range(29))
        shop.terminate()
        assert shop.process.returncode == 0
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
    with gunicorn(tmp_path, database.dsn, "flushed") as shop:
        shop.until_started(3)
        assert all(shop.buy(100) for _ in range(10))
        children = Path(f"/proc/{shop.process.pid}/task/{shop.process.pid}/children")
        if not children.exists():
            pytest.skip("this system does not tell a process's children")
        before = children.read_text().split()
        os.kill(int(before[0]), signal.SIGKILL)
        # A worker that is told to end before it serves does not hear it: that is between gunicorn and uvicorn.
        shop.until_started(4)
        until(lambda: shop.buy(100), 30)
        assert all(shop.buy(100) for _ in range(9))
        shop.terminate()
        assert shop.process.returncode == 0
    workers = figures(tmp_path, "lifespan")
    assert len(workers) == 3
    stored, accepted = set(await ids_in(database)), accepted_ids(tmp_path)
    assert stored <= accepted
    told = sum(one["stored"] for one in workers) + 100
    assert len(stored) >= told
    # Lost is at most what the killed one had accepted, of whom nobody else can tell.
    assert len(accepted) - len(stored) <= len(accepted) - sum(one["accepted"] for one in workers) - 100
