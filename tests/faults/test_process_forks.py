"""Forks of a process that talks to a real database: whatever is held in that moment, each process stores its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.balance import ids_in
from tests.faults.witness import accepted_ids, figures, run_witnessed, start_witnessed
from tests.kit.databases import Database
from tests.kit.fakes import until
from tests.kit.proxy import Proxy

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

FORKING = """
TIMES = int(os.environ["TIMES"])
client = make_client(queue_size=500, flush_interval=0.05)
client.track(Said(what="first"))
assert client.flush(30)  # the thread runs, and has a connection

logging.basicConfig(stream=open(os.devnull, "w"))
handler = logging.getLogger().handlers[0]

def every_lock():
    # What the library holds, and what it stands on. logging has one more lock, which fork() itself waits for.
    return [
        client._ledger.lock,
        client._delivery.host._starting,
        handler.lock,
        threading._active_limbo_lock,
        threading._shutdown_locks_lock if hasattr(threading, "_shutdown_locks_lock") else threading.Lock(),
    ]

def hold(taken, release):
    locks = every_lock()
    for lock in locks:
        lock.acquire()
    taken.set()
    release.wait()
    for lock in reversed(locks):
        lock.release()

def live(number):
    # In the child: it was given an empty queue and nothing of its parent's.
    stats = client.stats()
    assert stats.accepted == 0, stats
    for index in range(20):
        assert client.track(Said(what=f"child {number}", number=index))
    assert client.close(30), client.stats()
    witness.write_figures(f"child-{number}")

for number in range(TIMES):
    if number % 2:
        # A queue filled to its last place, the worker waiting for the lock in the middle of its work.
        taken, release = threading.Event(), threading.Event()
        holder = threading.Thread(target=hold, args=(taken, release))
        holder.start()
        taken.wait()
    else:
        release, holder = threading.Event(), None
    index = 0
    while client.track(Said(what="parent", number=index)):
        index += 1
    if holder is None:
        client._ledger.lock.acquire()  # held by the very thread that forks
        while client.track(Said(what="parent", number=index)):  # what the worker took meanwhile
            index += 1
    assert client.stats().queued >= 500 if holder is None else len(client._queue.items) >= 500
    child = os.fork()
    if not child:
        live(number)
        os._exit(0)
    if holder is None:
        client._ledger.lock.release()
    release.set()
    if holder is not None:
        holder.join()
    deadline = time.monotonic() + 60
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        assert time.monotonic() < deadline, f"child {number} hangs"
        time.sleep(0.001)
    assert ended[1] == 0, f"child {number} ended with {ended[1]}"
assert client.close(60), client.stats()
"""


@pytest.mark.parametrize("times", [20, pytest.param(200, marks=[pytest.mark.long, pytest.mark.timeout(900)])])
async def test_forks_with_the_queue_full_and_every_lock_held(database: Database, tmp_path: Path, times: int) -> None:
    run_witnessed(FORKING, tmp_path, database.dsn, timeout=800, TIMES=str(times))
    [parent], children = figures(tmp_path), figures(tmp_path, "child")
    assert [one["stored"] for one in children] == [one["accepted"] for one in children] == [20] * times
    assert parent["stored"] == parent["accepted"] >= times * 500
    accepted = accepted_ids(tmp_path)
    assert len(accepted) == parent["accepted"] + 20 * times
    assert set(await ids_in(database)) == accepted


async def test_a_fork_leaves_the_parents_connection_alone(database: Database, tmp_path: Path) -> None:
    run_witnessed(
        """
        client = make_client(flush_interval=0.05)
        client.track(Said(what="first"))
        assert client.flush(30)
        for number in range(10):
            child = os.fork()
            if not child:
                gc.collect()  # what would finalise the parent's sockets
                client.track(Said(what="child"))
                assert client.close(30)
                witness.write_figures(f"child-{number}")
                os._exit(0)
            client.track(Said(what="parent"))
            assert client.flush(30)
            assert os.waitpid(child, 0)[1] == 0
        assert client.stats().retries == 0, client.stats()  # its connection was never disturbed
        """,
        tmp_path,
        database.dsn,
    )
    [parent], children = figures(tmp_path), figures(tmp_path, "child")
    assert (parent["stored"], [one["stored"] for one in children]) == (11, [1] * 10)
    assert set(await ids_in(database)) == accepted_ids(tmp_path)


async def test_a_fork_amid_the_outage_of_the_database_loses_nothing(
    database: Database, proxy: Proxy, tmp_path: Path
) -> None:
    proxy.refuse()
    program = """
client = make_client(flush_interval=0.05)
for number in range(300):
    client.track(Said(what="parent", number=number))
while not client.stats().retries:  # in its backoff
    time.sleep(0.001)
child = os.fork()
for number in range(300):
    client.track(Said(what="later", number=number))
(witness.folder / f"ready-{'parent' if child else 'child'}").touch()
if not child:
    assert client.close(60)
    witness.write_figures("child")
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert client.close(60)
"""
    with start_witnessed(program, tmp_path, proxy.dsn) as process:
        until(lambda: len(list(tmp_path.glob("ready-*"))) == 2, 60)
        proxy.accept()
        assert process.wait(60) == 0
    [parent], [child] = figures(tmp_path), figures(tmp_path, "child")
    assert (parent["accepted"], child["accepted"]) == (600, 300)
    assert (parent["stored"] + parent["duplicates"], child["stored"] + child["duplicates"]) == (600, 300)
    assert set(await ids_in(database)) == accepted_ids(tmp_path)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
async def test_the_processes_of_multiprocessing_store_all_of_theirs(
    database: Database, tmp_path: Path, method: str
) -> None:
    run_witnessed(
        """
        import multiprocessing
        client = make_client(flush_interval=3600)
        def work(number):
            for index in range(1_000):
                assert client.track(Said(what=f"child {number}", number=index))
        if __name__ == "__main__":
            for index in range(1_000):
                client.track(Said(what="parent", number=index))
            context = multiprocessing.get_context(os.environ["METHOD"])
            children = [context.Process(target=work, args=(number,)) for number in range(3)]
            for child in children:
                child.start()
            for child in children:
                child.join(60)
                assert child.exitcode == 0
            with context.Pool(2) as pool:
                pool.map(work, range(4))
                pool.close()
                pool.join()
        """,
        tmp_path,
        database.dsn,
        METHOD=method,
    )
    accepted = accepted_ids(tmp_path)
    assert len(accepted) == 1_000 + 3 * 1_000 + 4 * 1_000
    found = figures(tmp_path)  # the parent's; from Python 3.13 on children run what is registered with atexit, too
    assert found
    assert all(one["stored"] == one["accepted"] for one in found), found
    assert set(await ids_in(database)) == accepted


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_a_fork_during_the_first_connection_leaves_children_that_can_connect(
    database: Database, tmp_path: Path
) -> None:
    # OpenSSL sets itself up once a process, at the first connection: each moment needs a process of its own.
    for tenths in (0, 2, 4, 6, 8, 10, 12, 16, 24, 40):
        folder = tmp_path / str(tenths)
        folder.mkdir()
        run_witnessed(
            """
            client = make_client(flush_interval=3600)
            for number in range(100):
                client.track(Said(what="parent", number=number))
            time.sleep(int(os.environ["TENTHS"]) / 10_000)
            children = []
            for number in range(3):
                child = os.fork()
                if not child:
                    client.track(Said(what=f"child {number}"))
                    stored = client.close(15)
                    witness.write_figures(f"child-{number}")
                    os._exit(not stored)
                children.append(child)
            assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
            """,
            folder,
            database.dsn,
            TENTHS=str(tenths),
        )
        [parent], children = figures(folder), figures(folder, "child")
        assert (parent["stored"], [one["stored"] for one in children]) == (100, [1] * 3)
    accepted = {one for folder in tmp_path.iterdir() for one in accepted_ids(folder)}
    assert set(await ids_in(database)) == accepted


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_a_fork_finds_the_worker_between_two_steps_of_its_loop(database: Database, tmp_path: Path) -> None:
    run_witnessed(
        """
        client = make_client(flush_interval=0.05, batch_size=1)
        class Busy(TimescaleSink):
            busy = False
            async def write(self, batch):
                for _ in range(3):
                    self.busy = True
                    time.sleep(0.003)  # in the middle of something, as OpenSSL may be
                    self.busy = False
                    await asyncio.sleep(0)
                return await super().write(batch)
        sink = client._delivery.host.sink = Busy(DSN)
        children = []
        for number in range(40):
            client.track(Said(what="parent", number=number))
            while not sink.busy:
                time.sleep(0)
            child = os.fork()
            if not child:
                assert client.sink is not sink
                os._exit(sink.busy)
            children.append(child)
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * 40
        """,
        tmp_path,
        database.dsn,
    )
    [parent] = figures(tmp_path)
    assert parent["stored"] == 40
    assert set(await ids_in(database)) == accepted_ids(tmp_path)
