"""Loops that come and go, stand still, or are not asyncio's own: what is tracked on them is stored."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.faults.balance import assert_all_stored, ids_in
from tests.faults.witness import accepted_ids, run_witnessed
from tests.kit.databases import Database

needs_uvloop = pytest.mark.skipif(
    importlib.util.find_spec("uvloop") is None, reason="uvloop is not installed: it has no build for this interpreter"
)
LOOPS = ["asyncio", pytest.param("uvloop", marks=needs_uvloop)]

OWNED = """
import asyncpg
client = witness.watch(AnalyticsClient(service="shop", flush_interval=0.05))
LOOP = os.environ.get("LOOP", "asyncio")
if LOOP == "uvloop":
    import uvloop
factory = {"asyncio": asyncio.new_event_loop, "uvloop": lambda: uvloop.new_event_loop()}[LOOP]
def run(coroutine):
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(coroutine)
"""


@pytest.mark.parametrize("loop", LOOPS)
async def test_asyncio_run_three_times_with_a_worker_on_each_loop(
    database: Database, tmp_path: Path, loop: str
) -> None:
    run_witnessed(
        OWNED
        + """
async def serve(number):
    async with asyncpg.create_pool(DSN, min_size=1, max_size=2) as pool:
        async with AnalyticsWorker(client, TimescaleSink(pool)):
            for index in range(500):
                assert client.track(Said(what=f"run {number}", number=index))
                if index % 100 == 0:
                    await asyncio.sleep(0)
    assert client.track(Said(what="between"))  # while there is no loop
for number in range(3):
    run(serve(number))
async def last():
    async with AnalyticsWorker(client, TimescaleSink(DSN)):
        pass
run(last())
""",
        tmp_path,
        database.dsn,
        LOOP=loop,
    )
    [stats] = await assert_all_stored(database, tmp_path)
    assert stats["accepted"] == 3 * 501


@pytest.mark.parametrize("loop", LOOPS)
async def test_asyncio_run_three_times_with_one_client_of_a_url(database: Database, tmp_path: Path, loop: str) -> None:
    run_witnessed(
        OWNED
        + """
client = make_client(flush_interval=3600)
async def serve(number):
    for index in range(500):
        assert client.track(Said(what=f"run {number}", number=index))
    assert await client.aflush(30)
    assert client.track(Said(what="later"))
for number in range(3):
    run(serve(number))
""",
        tmp_path,
        database.dsn,
        LOOP=loop,
    )
    accepted = accepted_ids(tmp_path)
    assert len(accepted) == 3 * 501
    assert set(await ids_in(database)) == accepted


async def test_a_loop_that_was_closed_under_its_worker_leaves_its_events_to_the_next(
    database: Database, tmp_path: Path
) -> None:
    run_witnessed(
        OWNED
        + """
warnings.simplefilter("ignore", ResourceWarning)  # a loop closed this way leaves its connections open
for number in range(3):
    loop = asyncio.new_event_loop()
    worker = AnalyticsWorker(client, TimescaleSink(DSN))
    task = loop.create_task(worker.run())
    async def wait():
        for index in range(300):
            assert client.track(Said(what=f"loop {number}", number=index))
        await asyncio.sleep(0.03 * number)  # attached at least, in the middle of a write perhaps
    loop.run_until_complete(wait())
    loop.close()
    assert client.track(Said(what="after the loop"))  # wakes a worker that cannot be woken
    assert client.flush(0.05) is False
    task._log_destroy_pending = False
    del loop, worker, task
    gc.collect()
async def last():
    async with AnalyticsWorker(client, TimescaleSink(DSN)):
        pass
run(last())
""",
        tmp_path,
        database.dsn,
    )
    [stats] = await assert_all_stored(database, tmp_path)
    assert stats["accepted"] == 3 * 301


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("seconds", [1.0, pytest.param(5.0, marks=pytest.mark.long)])
async def test_an_application_that_blocks_its_loop_loses_nothing(
    database: Database, tmp_path: Path, loop: str, seconds: float
) -> None:
    run_witnessed(
        OWNED
        + """
SECONDS = float(os.environ["SECONDS"])
hosted = make_client(flush_interval=0.05)
async def serve():
    async with asyncpg.create_pool(DSN, min_size=1, max_size=2) as pool:
        async with AnalyticsWorker(client, TimescaleSink(pool)):
            for number in range(100):
                assert client.track(Said(what="before", number=number))
            await asyncio.sleep(0.01)  # the worker is in the middle of its first write
            until = time.monotonic() + SECONDS
            number = 0
            while time.monotonic() < until:  # the application blocks the loop, and says a lot meanwhile
                if client.stats().queued < 9_000:
                    assert client.track(Said(what="blocked", number=number))
                if hosted.stats().queued < 9_000:
                    assert hosted.track(Said(what="hosted", number=number))
                number += 1
                time.sleep(0.001)
            # The one with a thread of its own went on meanwhile, the one on the loop could not.
            assert hosted.stats().stored > 0
            assert client.stats().stored <= 100
            assert await client.aflush(30)
run(serve())
""",
        tmp_path,
        database.dsn,
        LOOP=loop,
        SECONDS=str(seconds),
    )
    found = await assert_all_stored(database, tmp_path, processes=2)
    assert sum(one["stored"] for one in found) == sum(one["accepted"] for one in found) > 200


async def test_threads_with_loops_of_their_own_share_one_client(database: Database, tmp_path: Path) -> None:
    run_witnessed(
        """
        client = make_client(flush_interval=0.05)
        answers = []
        async def serve(which):
            for number in range(100):
                assert client.track(Said(what=f"loop {which}", number=number))
            answers.append(await client.aflush(30))
        threads = [threading.Thread(target=lambda which=which: asyncio.run(serve(which))) for which in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [True] * 8
        """,
        tmp_path,
        database.dsn,
    )
    [stats] = await assert_all_stored(database, tmp_path)
    assert stats["accepted"] == 800
