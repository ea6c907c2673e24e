"""Code that runs in the middle of track() and tracks itself: signal handlers, the garbage collector, log handlers."""

from __future__ import annotations

import signal
import sysconfig
from pathlib import Path

import pytest

from tests.faults.balance import assert_all_stored
from tests.faults.witness import run_witnessed
from tests.kit.databases import Database


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timers")
async def test_a_signal_handler_that_tracks_in_the_middle_of_track(database: Database, tmp_path: Path) -> None:
    run_witnessed(
        """
        client = make_client(flush_interval=0.05)
        handled = []
        def handle(*_):
            for number in range(5):
                assert client.track(Said(what="handler", number=number))
            client.stats()
            handled.append(1)
        signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        number = 0
        while len(handled) < 500:
            if client.stats().queued < 5_000:
                assert client.track(Said(what="main", number=number))
                number += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert client.flush(30)
        assert client.stats().accepted == number + 5 * len(handled)
        assert client._queue.bytes_in == client._queue.bytes_out
        """,
        tmp_path,
        database.dsn,
    )
    [stats] = await assert_all_stored(database, tmp_path)
    assert stats["accepted"] > 500 * 5


async def test_a_callback_of_the_garbage_collector_that_tracks(database: Database, tmp_path: Path) -> None:
    run_witnessed(
        """
        client = make_client(flush_interval=0.05)
        calls = [0]
        def collected(phase, info):
            calls[0] += 1
            assert client.track(Said(what=f"gc {phase}", number=calls[0]))
        class Cycle:
            def __init__(self):
                self.itself = self
            def __del__(self):
                finalised.append(None)
                if client.stats().queued < 5_000:
                    client.track(Said(what="finalised"))
        finalised = []
        gc.callbacks.append(collected)
        gc.set_threshold(50, 0, 5)  # 0: a free-threaded collector does not wait until a quarter of all is new
        def work():
            for number in range(2_000):
                Cycle()
                if client.stats().queued < 5_000:
                    assert client.track(Said(what="main", number=number))
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        gc.callbacks.remove(collected)
        while len(finalised) < 4 * 2_000:  # it returns at once where another thread is collecting
            gc.collect()
            time.sleep(0.001)
        assert calls[0] > 10
        assert client.flush(30)
        assert client._queue.bytes_in == client._queue.bytes_out
        """,
        tmp_path,
        database.dsn,
    )
    [stats] = await assert_all_stored(database, tmp_path)
    assert stats["accepted"] > 4_000


LOGGING = """
client = make_client(flush_interval=0.02, queue_size=300, close_timeout=20)
class Tracking(logging.Handler):
    def emit(self, record):
        client.track(Said(what=f"{record.name}: {record.getMessage()}"[:500]))
root = logging.getLogger()
root.addHandler(Tracking())
root.setLevel(logging.DEBUG)  # asyncio's own words, too
"""


async def test_a_handler_of_the_root_logger_that_tracks(database: Database, tmp_path: Path) -> None:
    run_witnessed(
        LOGGING
        + """
log = logging.getLogger("shop")
def work():
    for number in range(500):
        log.info("sold %d", number)
        client.track(f"no event {number}")  # dropped, which the worker logs
        if client.stats().queued > 250:
            client.flush(30)
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert client.flush(30)
dropped = client.stats().dropped
assert dropped["invalid"] == 2_000, dropped
assert client.stats().accepted + dropped["queue_full"] >= 2_000
""",
        tmp_path,
        database.dsn,
    )
    [stats] = await assert_all_stored(database, tmp_path)
    assert stats["accepted"] >= 1_000


async def test_a_handler_that_tracks_what_is_logged_of_its_own_outage_ends_in_no_loop(
    database: Database, tmp_path: Path
) -> None:
    connection = await database.connect()
    await connection.execute("ALTER TABLE analytics_events RENAME TO elsewhere")
    run_witnessed(
        LOGGING
        + """
import asgi_analytics.worker.worker, asgi_analytics.log
asgi_analytics.worker.worker.OPERATOR_BACKOFF = 0.02
asgi_analytics.log.QUIET_SECONDS = 0.0  # each failure is logged, and so tracked, which makes the next batch
for number in range(100):
    logging.getLogger("shop").info("sold %d", number)
deadline = time.monotonic() + 30
while client.stats().retries < 20:
    client.flush(0)
    assert time.monotonic() < deadline
    time.sleep(0.01)
async def mend():
    import asyncpg
    connection = await asyncpg.connect(DSN)
    await connection.execute("ALTER TABLE elsewhere RENAME TO analytics_events")
    await connection.close()
asyncio.run(mend())
assert client.flush(30)
assert 100 <= client.stats().accepted < 2_000, client.stats()
root.handlers.clear()
""",
        tmp_path,
        database.dsn,
    )
    [stats] = await assert_all_stored(database, tmp_path)
    assert stats["accepted"] >= 100


async def test_a_handler_with_a_lock_of_its_own_never_deadlocks_with_the_worker(
    database: Database, tmp_path: Path
) -> None:
    run_witnessed(
        """
        client = make_client(flush_interval=0.01, batch_size=1)
        class Slow(logging.Handler):
            def emit(self, record):  # logging holds the handler's lock, in whichever thread
                client.track(Said(what="logged"))
                client.flush(0.001)
                client.stats()
        logging.getLogger().addHandler(Slow())
        logging.getLogger().setLevel(logging.DEBUG)
        def work():
            for number in range(100):
                logging.getLogger("shop").warning("sold %d", number)
                client.track(b"nonsense")
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert client.flush(30)
        """,
        tmp_path,
        database.dsn,
    )
    [stats] = await assert_all_stored(database, tmp_path)
    assert stats["accepted"] >= 400


THREADS = """
client = make_client(flush_interval=0.02, queue_size=100_000)
def work(which):
    for number in range(2_000):
        assert client.track(Said(what=f"thread {which}", number=number))
        if number % 10 == 0:
            client.stats()
        if number % 100 == 0:
            client.track(object())
threads = [threading.Thread(target=work, args=(which,)) for which in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert client.flush(60), client.stats()
stats = client.stats()
assert stats.accepted == 16_000, stats
assert stats.dropped["invalid"] == 8 * 20, stats
assert client._queue.bytes_in == client._queue.bytes_out
"""


async def test_many_threads_that_track_at_once(database: Database, tmp_path: Path) -> None:
    run_witnessed("sys.setswitchinterval(1e-6)\n" + THREADS, tmp_path, database.dsn)
    [stats] = await assert_all_stored(database, tmp_path)
    assert stats["accepted"] == 16_000


@pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"),
    reason="this interpreter has a global lock: run the tests with a free-threaded one to see this",
)
async def test_many_threads_that_track_at_once_without_a_global_lock(database: Database, tmp_path: Path) -> None:
    run_witnessed(THREADS, tmp_path, database.dsn, PYTHON_GIL="0")
    [stats] = await assert_all_stored(database, tmp_path)
    assert stats["accepted"] == 16_000
