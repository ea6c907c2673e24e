"""The database is slower than the application: memory stays flat, explicit events get through before captured ones."""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc
from pathlib import Path

import pytest

import asgi_analytics
from asgi_analytics.sinks import timescale
from tests.databases import Database
from tests.fakes import eventually
from tests.faults.balance import assert_balanced, assert_stored
from tests.faults.conftest import StartApplication

PACKAGE = str(Path(asgi_analytics.__file__).parent / "*")
QUEUE_SIZE = 2_000
QUEUE_BYTES = 1 << 20
SLACK = 256 * 1024
"""Bytes: what is in the hands of the worker at one moment and not at another, half a write."""

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
    """Return how many bytes are in use that were allocated in a line of the package."""
    gc.collect()
    snapshot = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, PACKAGE)])
    return sum(trace.size for trace in snapshot.traces)


async def overwhelm(start_application: StartApplication, database: Database, seconds: float) -> None:
    """Capture 3,000 events a second and say 20, for a server that stores some hundred."""
    await slow_down(database, 2)
    tracemalloc.start()
    try:
        captured = start_application(database.dsn, queue_size=QUEUE_SIZE, queue_bytes=QUEUE_BYTES)
        client = captured.client
        said = refused = turn = 0
        full_since = 0.0
        early: list[int] = []
        late: list[int] = []
        begun = time.monotonic()
        while (now := time.monotonic() - begun) < seconds:
            turn += 1
            captured.capture(60)
            if turn % 3 == 0:
                before = captured.refused
                captured.say()
                said += 1
                refused += captured.refused - before
            stats = client.stats()
            assert_balanced(stats)
            assert stats.queued <= QUEUE_SIZE
            assert stats.in_flight <= 1_000
            if not full_since and stats.dropped["queue_full"]:
                full_since = now
            # Some looks soon after the queue was full for the first time, some at the end.
            if full_since and len(early) < LOOKS:
                early.append(our_memory())
            if now > seconds - 1.0 and len(late) < LOOKS:
                late.append(our_memory())
            await asyncio.sleep(0.02)
        assert refused == 0, f"{refused} of {said} explicit events did not get through"
        assert client.stats().dropped["queue_full"] == captured.refused > client.stats().stored
        assert (len(early), len(late)) == (LOOKS, LOOKS)
        # What is full grows no further, and is what the settings say: the lines, and what Python adds to each.
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
    await overwhelm(start_application, database, 4)


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
    monkeypatch.setattr(timescale, "WRITE_TIMEOUT", 0.3)
    application = start_application(database.dsn, flush_interval=60.0, batch_size=1_000)
    client = application.client
    application.say(1_000)  # more than 1 s of work
    await eventually(lambda: client.stats().retries >= 1)
    assert await client.aflush(60)
    await assert_stored(client, database, application.accepted)
    assert client.stats().batches >= 4
    monkeypatch.setattr(timescale, "WRITE_TIMEOUT", 30.0)
    await slow_down(database, 0)
    batches = client.stats().batches
    writes = []
    for _ in range(20):  # writes grow again, to the largest
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
    await administrator.execute(f"ALTER DATABASE \"{database.name}\" SET statement_timeout = '300ms'")
    application = start_application(database.dsn, flush_interval=60.0)
    client = application.client
    application.say(1_000)
    assert await client.aflush(60)
    await assert_stored(client, database, application.accepted)
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
