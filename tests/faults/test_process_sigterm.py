"""SIGTERM under a real uvicorn with 10,000 events queued: the database up, down, slow, too slow."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.balance import assert_all_stored, ids_in
from tests.faults.shop import Shop
from tests.faults.witness import accepted_ids, assert_accounted, figures
from tests.kit.databases import Database
from tests.kit.fakes import until
from tests.kit.proxy import Proxy
from tests.kit.serving import UVICORN

CLIENT = """
client = make_client(
    queue_size=20_000, flush_interval=3600, batch_size=20_000, close_timeout=float(os.environ["CLOSE_TIMEOUT"])
)
"""


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Shop]]:
    """Give ``serve(dsn, *options, close_timeout=10)``: the shop, which is ended with the test."""
    with contextlib.ExitStack() as stack:

        def start(dsn: str, *options: str, close_timeout: float = 10.0) -> Shop:
            made = Shop(tmp_path, dsn, CLIENT, *UVICORN, *options, CLOSE_TIMEOUT=str(close_timeout))
            shop = stack.enter_context(made)
            shop.until_served("/buy?number=0")
            return shop

        yield start


LOOPS = ["asyncio", "uvloop"]


@pytest.mark.parametrize("loop", LOOPS)
async def test_with_the_database_up_all_of_it_is_stored(
    serve: Callable[..., Shop], database: Database, tmp_path: Path, loop: str
) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop", reason="uvloop is not installed: it has no build for this interpreter")
    shop = serve(database.dsn, "--loop", loop)
    assert shop.buy(10_000)
    shop.terminate()
    [stats] = await assert_all_stored(database, tmp_path, "lifespan")
    assert stats["stored"] == stats["accepted"] >= 10_000 + 1  # and the requests themselves


async def test_with_the_database_back_in_that_moment_all_of_it_is_stored(
    serve: Callable[..., Shop], database: Database, proxy: Proxy, tmp_path: Path
) -> None:
    shop = serve(proxy.dsn)
    proxy.refuse()
    proxy.cut()
    assert shop.buy(10_000)
    shop.process.send_signal(signal.SIGTERM)
    time.sleep(0.5)  # the last flush meets a server that refuses
    proxy.accept()
    shop.process.wait(60)
    [stats] = await assert_all_stored(database, tmp_path, "lifespan")
    assert stats["stored"] == stats["accepted"] >= 10_000 + 1


@pytest.mark.parametrize("how", ["refuses", "hangs"])
async def test_with_the_database_down_it_takes_close_timeout_and_counts_what_is_lost(
    serve: Callable[..., Shop], database: Database, proxy: Proxy, tmp_path: Path, how: str
) -> None:
    shop = serve(proxy.dsn, close_timeout=1.0)
    if how == "refuses":
        proxy.refuse()
        proxy.cut()
    else:
        proxy.stall()
    assert shop.buy(10_000)
    seconds = shop.terminate()
    # Once at the lifespan's end, once more where the interpreter ends in order; and what connections get to end in.
    assert seconds < 2 * 1.0 + 10, f"{seconds:.1f} s"
    [stats] = assert_accounted(tmp_path, "lifespan")
    assert stats["queued"] + stats["in_flight"] + stats["abandoned"] == stats["accepted"] >= 10_000
    assert await ids_in(database) == []
    said = "the application has shut down before all was stored; service: shop"
    assert said in shop.log.read_text()
    proxy.resume()


async def slow_down(database: Database, seconds: float) -> None:
    """Make each write of the database take so long."""
    connection = await database.connect()
    await connection.execute(
        f"""
        CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql
            AS 'BEGIN PERFORM pg_sleep({seconds}); RETURN NULL; END';
        CREATE TRIGGER dawdle AFTER INSERT ON analytics_events FOR EACH STATEMENT EXECUTE FUNCTION dawdle();
        """
    )


async def test_with_the_database_slow_all_of_it_is_stored(
    serve: Callable[..., Shop], database: Database, tmp_path: Path
) -> None:
    await slow_down(database, 0.5)
    shop = serve(database.dsn)
    assert shop.buy(10_000)
    assert shop.terminate() > 2.0  # five writes at least: the case is what it says it is
    [stats] = await assert_all_stored(database, tmp_path, "lifespan")
    assert stats["stored"] == stats["accepted"] >= 10_000 + 1


async def test_with_the_database_too_slow_the_rest_is_counted(
    serve: Callable[..., Shop], database: Database, tmp_path: Path
) -> None:
    await slow_down(database, 0.4)
    shop = serve(database.dsn, close_timeout=1.0)
    assert shop.buy(10_000)
    shop.terminate()
    [stats] = assert_accounted(tmp_path, "lifespan")
    assert 0 < stats["stored"] < stats["accepted"]
    stored = set(await ids_in(database))
    assert stored < accepted_ids(tmp_path)
    # A write whose answer nobody waited for may be there besides; what was called stored must be.
    assert stats["stored"] <= len(stored) <= stats["stored"] + 2 * 1_000


async def test_with_two_workers_each_stores_its_own(
    serve: Callable[..., Shop], database: Database, tmp_path: Path
) -> None:
    shop = serve(database.dsn, "--workers", "2")
    # One that is told to end before it serves has no lifespan that could end.
    shop.until_started(2)
    assert all(shop.buy(500) for _ in range(20))
    shop.terminate()
    until(lambda: len(figures(tmp_path, "lifespan")) == 2, 20)
    found = await assert_all_stored(database, tmp_path, "lifespan", processes=2)
    assert sum(one["stored"] for one in found) == sum(one["accepted"] for one in found) >= 10_000


async def test_a_second_sigterm_does_not_lose_what_the_first_one_saves(
    serve: Callable[..., Shop], database: Database, tmp_path: Path
) -> None:
    await slow_down(database, 0.1)
    shop = serve(database.dsn)
    assert shop.buy(10_000)
    shop.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    shop.terminate()
    [stats] = await assert_all_stored(database, tmp_path, "lifespan")
    assert stats["stored"] == stats["accepted"] >= 10_000 + 1
