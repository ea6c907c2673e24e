"""The end of a process, whatever ends it: what was accepted is in a real table, or is counted."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.faults.balance import assert_all_stored, ids_in
from tests.faults.witness import (
    accepted_ids,
    figures,
    run_witnessed,
    start_witnessed,
    tried_ids,
)
from tests.kit.databases import Database
from tests.kit.fakes import until


async def test_a_script_that_ends_with_a_full_queue_stores_all_of_it(database: Database, tmp_path: Path) -> None:
    output = run_witnessed(
        """
        client = make_client(queue_size=10_000)
        for number in range(10_000):
            assert client.track(Said(what="sold", number=number))
        """,
        tmp_path,
        database.dsn,
    )
    assert output == ""
    [stats] = await assert_all_stored(database, tmp_path)
    assert (stats["stored"], stats["accepted"]) == (10_000, 10_000)


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    "end",
    [
        pytest.param("threading.Thread(target=end).start()", id="sys.exit in a thread"),
        pytest.param("t = threading.Thread(target=end); t.start(); t.join(); sys.exit()", id="sys.exit after that"),
        pytest.param("threading.Thread(target=end, daemon=True).start(); time.sleep(0.2)", id="in a daemon thread"),
        pytest.param("signal.signal(signal.SIGTERM, end); os.kill(os.getpid(), 15)", id="in a signal handler"),
        pytest.param("asyncio.run(asyncio.to_thread(end_quietly))", id="in a thread of asyncio"),
    ],
)
async def test_sys_exit_wherever_it_is_called_loses_nothing(database: Database, tmp_path: Path, end: str) -> None:
    run_witnessed(
        f"""
        client = make_client(flush_interval=3600)
        def end(*_):
            for number in range(500):
                client.track(Said(what="in the end", number=number))
            sys.exit(0)
        def end_quietly():
            try:
                end()
            except SystemExit:
                pass
        for number in range(500):
            client.track(Said(what="before", number=number))
        {end}
        """,
        tmp_path,
        database.dsn,
    )
    [stats] = await assert_all_stored(database, tmp_path)
    assert (stats["accepted"], stats["stored"]) == (1_000, 1_000)


SELLING = """
client = make_client(flush_interval=1, queue_size=2_000)
PAUSE = float(os.environ.get("PAUSE", "0"))
def sell():
    while True:
        client.track(Said(what="sold"))
        if PAUSE:
            time.sleep(PAUSE)
        elif client.stats().queued > 1_900:
            time.sleep(0.001)
threads = [threading.Thread(target=sell, daemon=True) for _ in range(2)]
for thread in threads:
    thread.start()
while True:
    time.sleep(0.02)
    witness.write_figures("alive")
"""


@pytest.mark.parametrize("pause", ["0.002", "0"], ids=["at leisure", "as fast as it can"])
async def test_a_kill_loses_no_more_than_what_was_in_memory(
    database: Database, tmp_path: Path, pause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAUSE", pause)
    process = start_witnessed(SELLING, tmp_path, database.dsn)
    until(lambda: any(one["stored"] >= 1_500 for one in figures(tmp_path, "alive")), 60)
    process.send_signal(signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL
    [last_said] = figures(tmp_path, "alive")
    accepted = accepted_ids(tmp_path)
    stored = set(await ids_in(database))
    assert stored <= tried_ids(tmp_path)
    assert len(stored) >= last_said["stored"], "what was said to be stored is not there"
    lost = len(accepted - stored)
    # docs/explanation.md: usually less than batch_size events or flush_interval's worth; at most the queue and a write.
    most = 2_000 + 1_000 if pause == "0" else 2 * 100 + 100
    assert lost <= most, f"{lost} of {len(accepted)} are lost"


async def test_a_kill_with_the_database_away_loses_the_queue_and_one_write_at_most(
    database: Database, tmp_path: Path
) -> None:
    process = start_witnessed(
        """
client = make_client(queue_size=500, flush_interval=0.05, batch_size=10)
for number in range(200):
    client.track(Said(what="before", number=number))
assert client.flush(30)
locked = threading.Event()
def hold():  # a lock on the table: writes wait for it, as for a slow server
    import asyncpg
    async def held():
        connection = await asyncpg.connect(DSN)
        await connection.execute("BEGIN; LOCK TABLE analytics_events IN ACCESS EXCLUSIVE MODE")
        locked.set()
        await asyncio.sleep(3600)
    asyncio.run(held())
threading.Thread(target=hold, daemon=True).start()
locked.wait(30)
while client.track(Said(what="while it hangs")):
    time.sleep(0.0001)
witness.write_figures("full")
time.sleep(3600)
""",
        tmp_path,
        database.dsn,
    )
    until(lambda: figures(tmp_path, "full"), 60)
    process.kill()
    process.wait(10)
    [stats] = figures(tmp_path, "full")
    stored = set(await ids_in(database))
    lost = accepted_ids(tmp_path) - stored
    assert stored <= tried_ids(tmp_path)
    assert len(lost) <= 500 + 1_000
    assert len(lost) <= stats["queued"] + stats["in_flight"]


async def test_a_process_that_is_stopped_and_continued_goes_on_where_it_was(database: Database, tmp_path: Path) -> None:
    process = start_witnessed(
        """
client = make_client(flush_interval=0.05)
for number in range(400):
    client.track(Said(what="sold", number=number))
    if number == 200:
        client.flush(30)
        (witness.folder / "half").touch()
    time.sleep(0.002)
""",
        tmp_path,
        database.dsn,
    )
    until((tmp_path / "half").exists, 60)
    os.kill(process.pid, signal.SIGSTOP)
    connection = await database.connect()
    await connection.execute(  # the server gives up on it meanwhile
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'asgi-analytics'"
        " AND datname = current_database()"
    )
    os.kill(process.pid, signal.SIGCONT)
    assert process.wait(60) == 0
    [stats] = await assert_all_stored(database, tmp_path)
    assert stats["stored"] + stats["duplicates"] == 400
