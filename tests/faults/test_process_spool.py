"""Processes that are killed with a spool, and a database that is away under load: what is lost, and how old it is."""

from __future__ import annotations

import random
from pathlib import Path
from uuid import UUID

import pytest

from tests.faults.balance import ids_in
from tests.faults.conftest import StartApplication
from tests.faults.witness import accepted_ids, run_witnessed, start_witnessed
from tests.kit.databases import Database
from tests.kit.fakes import eventually
from tests.kit.proxy import Proxy

INTERVAL_MS = 100
SLACK_MS = 1_000
"""What a busy machine may take longer to let the worker's thread run."""

SELLING = """
client = make_client(spool=os.environ["SPOOL"], spool_mode="always", flush_interval=float(os.environ["FLUSH"]))
if os.environ["AWAY"]:
    from asgi_analytics.errors import TransientError
    async def refuse(batch):
        raise TransientError("away")
    client.sink.write = refuse
while True:
    client.track(Said(what="sold"))
    time.sleep(0.0005)
"""

DELIVERING = """
client = make_client(spool=os.environ["SPOOL"], batch_size=1)
client.track(Said(what="the end"))
deadline = time.monotonic() + 60
while any(name[0] != "." for name in os.listdir(os.environ["SPOOL"])) and time.monotonic() < deadline:
    time.sleep(0.01)
"""


def milliseconds(event_id: UUID) -> int:
    """Return when an id was minted."""
    return event_id.int >> 80


async def kill(database: Database, tmp_path: Path, times: int) -> None:
    """Kill processes, each at a random moment, and count what is missing after the last one has delivered."""
    chance = random.Random(times)
    spool = tmp_path / "spool"
    lives = []
    for number in range(times):
        folder = tmp_path / str(number)
        folder.mkdir()
        lives.append(folder)
        away = chance.choice(["", "yes"])
        flush = chance.choice(["0.05", "0.3", "3600"])
        with start_witnessed(SELLING, folder, database.dsn, SPOOL=str(spool), AWAY=away, FLUSH=flush) as process:
            accepted = folder / "accepted"
            await eventually(lambda path=accepted: path.exists() and path.stat().st_size, 20)  # type: ignore[misc]
            size = accepted.stat().st_size + chance.randrange(1, 1_000) * 37
            await eventually(lambda path=accepted, size=size: path.stat().st_size >= size, 20)  # type: ignore[misc]
            process.kill()
    last = tmp_path / "last"
    last.mkdir()
    run_witnessed(DELIVERING, last, database.dsn, SPOOL=str(spool), timeout=90)
    assert not list(
        spool.glob("[!.]*")
    )  # one that was killed while it made its folder left a hidden one without events
    assert not list(spool.glob(".*/*.spool"))
    stored = set(await ids_in(database))
    total, oldest = 0, 0
    for folder in lives:
        accepted_here = accepted_ids(folder)
        total += len(accepted_here)
        end = max(map(milliseconds, accepted_here))
        oldest = max([oldest, *(end - milliseconds(one) for one in accepted_here - stored)])
    missing = total - len(stored & set().union(*map(accepted_ids, lives)))
    print(f"{times} kills: {total} accepted, {missing} missing, the oldest of them {oldest} ms old")
    assert oldest <= INTERVAL_MS + SLACK_MS
    assert missing < total / 2


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_a_kill_costs_no_more_than_the_last_interval(database: Database, tmp_path: Path) -> None:
    await kill(database, tmp_path, 8)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_a_hundred_kills_cost_no_more_than_the_last_interval_each(database: Database, tmp_path: Path) -> None:
    await kill(database, tmp_path, 100)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_a_database_that_is_away_under_load_costs_nothing(
    start_application: StartApplication, proxy: Proxy, database: Database, tmp_path: Path
) -> None:
    application = start_application(proxy.dsn, queue_size=400, spool=tmp_path / "spool")
    client = application.client
    async with application.busy(500):
        await eventually(lambda: client.stats().stored, 20)
        for leave in (proxy.refuse, proxy.stall):
            leave()
            proxy.cut()
            await eventually(lambda: client.stats().spooled > 500, 20)
            proxy.resume()
            proxy.accept()
            await eventually(lambda: not client.stats().spooled, 60)
    assert application.refused == 0
    await application.assert_stored_in(database, 60)
