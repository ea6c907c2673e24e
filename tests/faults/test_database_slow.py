"""The database is slower than the application: memory stays flat, explicit events get through before captured ones."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from pathlib import Path

import pytest

import asgi_analytics
from asgi_analytics.sinks import timescale
from asgi_analytics.worker.worker import WRITE_EVENTS
from tests.faults.balance import assert_balanced, assert_stored
from tests.faults.conftest import StartApplication
from tests.kit.databases import Database

PACKAGE = str(Path(asgi_analytics.__file__).parent / "*")
QUEUE_SIZE = 2_000
QUEUE_BYTES = 1 << 20
SLACK = 1 << 20
"""Bytes: a write, which is in the hands of the worker at one moment and not at another, and its lines joined."""

LOOKS = 5


async def slow_down(database: Database, milliseconds_a_row: float) -> None:
    """Let the table take so long for each row."""
    connection = await database.connect()
    await connection.execute(
        "CREATE OR REPLACE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS"
        f" 'BEGIN PERFORM pg_sleep({milliseconds_a_row / 1_000}); RETURN NEW; END';"
        "CREATE OR REPLACE TRIGGER dawdle BEFORE INSERT ON analytics_events FOR EACH ROW EXECUTE FUNCTION dawdle()"
    )


def our_memory() -> int:
    """Return how many bytes are in use that were allocated in a line of the package, or of code that it has made."""
    ours = [tracemalloc.Filter(True, PACKAGE), tracemalloc.Filter(True, "<*>")]
    snapshot = tracemalloc.take_snapshot().filter_traces(ours)
    return sum(trace.size for trace in snapshot.traces)


async def overwhelm(start_application: StartApplication, database: Database, seconds: float) -> None:
    """Capture thousands of events a second, and say 20, for a server that stores some hundred."""
    await slow_down(database, 2)
    tracemalloc.start()
    try:
        captured = start_application(database.dsn, queue_size=QUEUE_SIZE, queue_bytes=QUEUE_BYTES)
        client = captured.client
        said = refused = turn = 0
        was_full = False
        early: list[int] = []
        late: list[int] = []
        begun = time.monotonic()
        while (now := time.monotonic() - begun) < seconds or len(late) < LOOKS:
            turn += 1
            before = captured.refused
            while captured.refused < before + 100:  # more than gets through, however fast this machine is just now
                captured.capture(20)
            if turn % 3 == 0:
                before = captured.refused
                captured.say()
                said += 1
                refused += captured.refused - before
            stats = client.stats()
            assert_balanced(stats)
            assert stats.queued <= QUEUE_SIZE
            assert stats.in_flight <= WRITE_EVENTS
            was_full = was_full or bool(stats.dropped["queue_full"])
            # Some looks soon after the queue was full for the first time, some at the end.
            if was_full and len(early) < LOOKS:
                early.append(our_memory())
            if was_full and now >= seconds:
                late.append(our_memory())
            await asyncio.sleep(0.02)
        assert refused == 0, f"{refused} of {said} explicit events did not get through"
        assert client.stats().dropped["queue_full"] == captured.refused > 0
        # What is full grows no further, and is what the settings say: the lines, and what Python adds to each.
        assert min(early) > QUEUE_SIZE * 0.7 * 250, (early, "this is not the memory of the queue")
        assert max(late) < max(early) + SLACK, (early, late)
        assert max(late) < QUEUE_BYTES + (2 << 20), (early, late)
    finally:
        tracemalloc.stop()
    await slow_down(database, 0)
    assert await client.aflush(60)
    await assert_stored(client, database, captured.accepted)


@pytest.mark.usefixtures("impatient")
async def test_a_server_slower_than_the_events_costs_captured_ones_and_no_memory(
    start_application: StartApplication, database: Database
) -> None:
    await overwhelm(start_application, database, 3)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_a_server_slower_than_the_events_for_ten_minutes_costs_captured_ones_and_no_memory(
    start_application: StartApplication, database: Database
) -> None:
    await overwhelm(start_application, database, 600)


@pytest.mark.usefixtures("impatient")
async def test_a_server_too_slow_for_a_whole_write_gets_smaller_ones(
    start_application: StartApplication, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One write of all that waits would run out of time, and again, for ever."""
    await slow_down(database, 1)
    monkeypatch.setattr(timescale, "WRITE_TIMEOUT", 0.2)
    application = start_application(database.dsn, flush_interval=60.0, batch_size=10_000)
    client = application.client
    application.say(600)  # more than 0.6 s of work
    assert await client.aflush(60)
    assert client.stats().retries >= 1
    await assert_stored(client, database, application.accepted)
    assert client.stats().batches >= 4
    monkeypatch.setattr(timescale, "WRITE_TIMEOUT", 30.0)
    await slow_down(database, 0)
    batches = client.stats().batches
    writes = []
    for _ in range(10):  # writes grow again, to the largest
        application.say(1_000)
        assert await client.aflush(60)
        writes.append(client.stats().batches - batches)
        batches = client.stats().batches
    assert writes[-1] == 1, writes
    await assert_stored(client, database, application.accepted)


@pytest.mark.usefixtures("impatient")
async def test_a_statement_timeout_of_the_server_that_a_whole_write_does_not_keep_gets_smaller_ones(
    start_application: StartApplication, database: Database
) -> None:
    await slow_down(database, 1)
    administrator = await database.connect()
    await administrator.execute(f"ALTER DATABASE \"{database.name}\" SET statement_timeout = '200ms'")
    application = start_application(database.dsn, flush_interval=60.0)
    client = application.client
    application.say(600)
    await application.assert_stored_in(database, 60)
    assert client.stats().retries >= 2


@pytest.mark.usefixtures("impatient")
async def test_a_close_beside_a_server_that_is_too_slow_keeps_the_balance(
    start_application: StartApplication, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await slow_down(database, 1)
    monkeypatch.setattr(timescale, "WRITE_TIMEOUT", 0.1)
    application = start_application(database.dsn, flush_interval=0.0)
    client = application.client
    application.say(2_000)
    await client.aclose(0.7)
    stats = client.stats()
    assert_balanced(stats)
    assert (stats.queued, stats.in_flight, stats.accepted) == (0, 0, 2_000)
    assert stats.abandoned > 0
