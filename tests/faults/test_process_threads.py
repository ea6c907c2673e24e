"""The worker's thread: one that cannot start, or dies, costs time and no event."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.balance import assert_all_stored
from tests.faults.witness import run_witnessed
from tests.kit.databases import Database

pytestmark = pytest.mark.parametrize("database", ["postgresql"], indirect=True)

STARVING = """
import resource
client = make_client(flush_interval=0.05)
held = []
def take_all_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
def give_them_back():
    for number in held:
        os.close(number)
def until_stored(number):
    deadline = time.monotonic() + 30
    while client.stats().stored < number:  # no flush here: it would start the thread by itself
        assert time.monotonic() < deadline, client.stats()
        time.sleep(0.01)
"""


async def test_a_thread_that_could_not_start_is_started_by_a_later_event(database: Database, tmp_path: Path) -> None:
    run_witnessed(
        STARVING
        + """
import _thread
start, refused = _thread.start_new_thread, []
def refuse(*_):
    refused.append(1)
    raise RuntimeError("can't start new thread")
_thread.start_new_thread = refuse
for number in range(50):
    assert client.track(Said(what="without a thread", number=number))
assert refused and client.stats().queued == 50
_thread.start_new_thread = start
assert client.track(Said(what="again"))
until_stored(51)
""",
        tmp_path,
        database.dsn,
    )
    [stats] = await assert_all_stored(database, tmp_path)
    assert stats["stored"] == 51


async def test_a_process_without_file_descriptors_stores_when_it_has_some_again(
    database: Database, tmp_path: Path
) -> None:
    run_witnessed(
        STARVING
        + """
take_all_descriptors()
for number in range(50):  # a loop needs a selector and a pair of sockets
    assert client.track(Said(what="without descriptors", number=number))
    time.sleep(0.002)
assert client.stats().stored == 0
give_them_back()
until_stored(50)  # without another event
""",
        tmp_path,
        database.dsn,
    )
    [stats] = await assert_all_stored(database, tmp_path)
    assert stats["stored"] == 50


async def test_a_running_worker_without_file_descriptors_retries_until_it_has_some(
    database: Database, tmp_path: Path
) -> None:
    run_witnessed(
        STARVING
        + """
client.track(Said(what="first"))
assert client.flush(30)
take_all_descriptors()
# Its connection is lost, and a new one needs a descriptor.
loop = client._delivery.host._loop
async def lose():
    await client.sink.aclose()
    held.append(os.open("/dev/null", os.O_RDONLY))
asyncio.run_coroutine_threadsafe(lose(), loop).result(30)
for number in range(50):
    assert client.track(Said(what="without descriptors", number=number))
while not client.stats().retries:
    time.sleep(0.01)
assert client.stats().stored == 1
give_them_back()
assert client.flush(30)
""",
        tmp_path,
        database.dsn,
    )
    [stats] = await assert_all_stored(database, tmp_path)
    assert stats["stored"] == 51


async def test_a_worker_that_is_killed_from_within_is_started_again_each_time(
    database: Database, tmp_path: Path
) -> None:
    run_witnessed(
        STARVING
        + """
import ctypes
for round in range(5):
    for number in range(100):
        assert client.track(Said(what=f"round {round}", number=number))
    if round < 4:
        while client._delivery.worker_thread is None:
            time.sleep(0.001)
        # An exception that no code of the thread expects, wherever it happens to be.
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(client._delivery.worker_thread), ctypes.py_object(SystemExit)
        )
        loop = client._delivery.host._loop
        client.track(Said(what="wake up"))
        deadline = time.monotonic() + 30
        while client._delivery.host._loop is loop is not None:
            client.flush(0)
            assert time.monotonic() < deadline
            time.sleep(0.001)
assert client.flush(30), client.stats()
""",
        tmp_path,
        database.dsn,
    )
    [stats] = await assert_all_stored(database, tmp_path)
    assert stats["stored"] + stats["duplicates"] == stats["accepted"] == 504
