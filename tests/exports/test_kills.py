"""An exporter that is killed at any moment, and goes on elsewhere: every row is there once.

Each process has a folder of its own, which is gone when it is, as if the next one ran on another machine.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from asgi_analytics.exports.setup import init_export, want_backfill
from tests.exports.stored import all_ids, an_event, ids, read, run, store
from tests.kit.databases import Database

EXPORTER = """
import asyncio, sys
from random import Random
from asgi_analytics.errors import TransientError
from asgi_analytics.exports import warehouse_from_url
from asgi_analytics.exports.exporter import Exporter

random = Random(int(sys.argv[2]))
class Losing:
    max_rows = 60
    def __init__(self, warehouse):
        self.warehouse = warehouse
    def __getattr__(self, name):
        return getattr(self.warehouse, name)
    def load(self, batch, token):
        self.warehouse.load(batch, token)
        if random.random() < 0.1:
            raise TransientError("the answer was lost")

exporter = Exporter(sys.argv[1], "lake", warehouse=Losing(warehouse_from_url(sys.argv[3])))
sys.stdin.readline()
print("runs", flush=True)
asyncio.run(exporter.run_every(0.01))
"""


def of_files(folder: Path) -> tuple[str, Callable[[], list[str]]]:
    """Return the URL of Parquet files, and what reads the ids of all events there."""
    return folder.as_uri(), lambda: ids(read(folder))


def of_duckdb(folder: Path) -> tuple[str, Callable[[], list[str]]]:
    """Return the same of a file of DuckDB."""
    duckdb = pytest.importorskip("duckdb")
    path = folder / "events.duckdb"

    def found() -> list[str]:
        with duckdb.connect(str(path), read_only=True) as connection:
            return ids(connection.execute("SELECT event_id FROM platform_events").fetchall())

    return f"duckdb://{path}", found


@pytest.mark.parametrize(
    ("place", "kills"),
    [
        (of_files, 10),
        (of_duckdb, 4),
        pytest.param(of_files, 100, marks=[pytest.mark.long, pytest.mark.timeout(1200)]),
        pytest.param(of_duckdb, 30, marks=[pytest.mark.long, pytest.mark.timeout(1200)]),
    ],
)
async def test_no_row_is_lost_or_there_twice_when_the_exporter_is_killed(
    database: Database, tmp_path: Path, place: Callable[[Path], tuple[str, Callable[[], list[str]]]], kills: int
) -> None:
    pytest.importorskip("pyarrow")
    url, found = place(tmp_path)
    random = Random(kills)
    connection = await database.connect()
    await store(connection, [an_event(random, datetime.now(UTC) - timedelta(days=day)) for day in range(22)])
    await store(connection, [an_event(random) for _ in range(60 * kills)])
    await connection.execute("UPDATE analytics_events SET export_xid = NULL WHERE id < $1", random_id(random))
    await init_export(database.dsn, "lake", url)
    await want_backfill(database.dsn, "lake")
    ended = asyncio.Event()

    async def write(seed: int) -> None:
        mine = Random(seed)
        writer = await database.connect()
        while not ended.is_set():
            transaction = writer.transaction()
            await transaction.start()
            await store(writer, [an_event(mine) for _ in range(mine.randrange(1, 20))])
            await asyncio.sleep(mine.choice([0, 0.01, 0.2]))
            await (transaction.rollback() if mine.random() < 0.1 else transaction.commit())
        await writer.close()

    writers = [asyncio.create_task(write(seed)) for seed in range(4)]
    following = await started(database, tmp_path, url, 0)
    for number in range(kills):
        process, following = following, await started(database, tmp_path, url, number + 1)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"go\n")
        assert await process.stdout.readline() == b"runs\n"
        await asyncio.sleep(random.uniform(0.05, 0.6))
        await kill(process)
        shutil.rmtree(tmp_path / f"machine-{number}")
    await kill(following)
    ended.set()
    await asyncio.gather(*writers)
    # A first run may only finish what a dead process has begun.
    await run(database)
    await run(database)
    copied = found()
    assert copied == await all_ids(connection)
    assert len(copied) > 60 * kills


async def started(database: Database, folder: Path, url: str, number: int) -> asyncio.subprocess.Process:
    """Start an exporter that waits for a line before it runs: meanwhile the one before it is killed."""
    machine = folder / f"machine-{number}"
    machine.mkdir()
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", EXPORTER, database.dsn, str(number), url,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        cwd=machine, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(machine), "TMPDIR": str(machine)},
    )  # fmt: skip


async def kill(process: asyncio.subprocess.Process) -> None:
    process.send_signal(signal.SIGKILL)
    await process.wait()


def random_id(random: Random) -> str:
    """Return an id that about half of the random ones are below."""
    return f"{random.randrange(2**31, 2**32 - 2**31 + 2**30):08x}-0000-4000-8000-000000000000"
