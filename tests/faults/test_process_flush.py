"""flush from everywhere at once: 20 threads, 20 tasks, a signal handler, the worker itself."""

from __future__ import annotations

import asyncio
import random
import signal
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest

from asgi_analytics import AnalyticsClient, AnalyticsWorker, TimescaleSink, events
from tests.faults.balance import assert_stored
from tests.faults.witness import Witness, accepted_ids
from tests.kit.databases import Database
from tests.kit.fakes import eventually
from tests.kit.proxy import Proxy

ID = UUID("0198c1a2-0000-7000-8000-000000000001")
TASK = events.TaskStarted(task_id=ID, user_id=ID)
SLACK = 5.0
"""What a busy machine may take beyond a timeout; far less than it would take to hang."""


@pytest.fixture
def witness(tmp_path: Path) -> Witness:
    return Witness(str(tmp_path))


@pytest.fixture
async def client(database: Database, witness: Witness) -> AsyncIterator[AnalyticsClient]:
    client = witness.watch(AnalyticsClient.from_url(database.dsn, service="shop", flush_interval=3600))
    yield client
    client.close(5)


async def test_twenty_threads_and_twenty_tasks_flush_at_once(
    client: AnalyticsClient, database: Database, tmp_path: Path
) -> None:
    answers: list[bool] = []

    def visit() -> None:
        for _ in range(10):
            for _ in range(10):
                client.track(TASK)
            answers.append(client.flush(30))

    async def call() -> None:
        for _ in range(10):
            for _ in range(10):
                client.track(TASK)
            answers.append(await client.aflush(30))

    threads = [threading.Thread(target=visit) for _ in range(20)]
    for thread in threads:
        thread.start()
    await asyncio.gather(*(call() for _ in range(20)))
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert answers == [True] * 400
    await assert_stored(client, database, accepted_ids(tmp_path))
    assert client.stats().stored == 4_000
    assert not client._ledger.is_flushing


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_flushes_from_everywhere_keep_their_time_with_the_database_away_and_succeed_when_it_is_back(
    database: Database, proxy: Proxy, witness: Witness, tmp_path: Path
) -> None:
    client = witness.watch(AnalyticsClient.from_url(proxy.dsn, service="shop", flush_interval=3600))
    proxy.refuse()
    for _ in range(200):
        client.track(TASK)
    answers: list[bool] = []
    threads = [threading.Thread(target=lambda: answers.append(client.flush(0.3))) for _ in range(20)]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    answers += await asyncio.gather(*(client.aflush(0.3) for _ in range(20)))
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert time.monotonic() - begun < 0.3 + SLACK
    assert answers == [False] * 40
    assert not client._ledger.is_flushing
    proxy.accept()
    assert await client.aflush(30)
    await assert_stored(client, database, accepted_ids(tmp_path))
    assert client.close(5)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timers")
async def test_a_signal_handler_flushes_in_the_middle_of_whatever_the_client_does(
    client: AnalyticsClient, database: Database, tmp_path: Path
) -> None:
    answers: list[bool] = []

    def flush(*_: object) -> None:
        client.track(TASK)
        answers.append(client.flush(10))
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0001, 0.005))  # the next one, when this one is over

    before = signal.signal(signal.SIGALRM, flush)
    signal.setitimer(signal.ITIMER_REAL, 0.005)
    slowest = 0.0
    try:
        deadline = time.monotonic() + 60
        while len(answers) < 100:  # no await: the handler interrupts these lines
            assert time.monotonic() < deadline, answers
            client.track(TASK)
            begun = time.monotonic()
            client.stats()
            client.flush(0)
            slowest = max(slowest, time.monotonic() - begun)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    # Where the handler has interrupted the holder of the lock, it is told at once that nothing can happen meanwhile.
    assert answers.count(True) >= 10, answers
    assert slowest < SLACK
    assert await client.aflush(30)
    await assert_stored(client, database, accepted_ids(tmp_path))


async def test_a_signal_handler_that_closes_in_the_middle_of_a_call_leaves_the_rest_to_the_worker(
    client: AnalyticsClient, database: Database, tmp_path: Path
) -> None:
    for _ in range(2_000):
        assert client.track(TASK)
    begun = time.monotonic()
    with client._ledger.lock:  # as in the middle of stats()
        assert client.flush(60) is False
        assert client.close(60) is False
    assert time.monotonic() - begun < SLACK
    assert client._delivery.host is not None
    await eventually(client._delivery.host.stopped)
    assert client.track(TASK) is False
    assert client.stats().abandoned == 0
    await assert_stored(client, database, accepted_ids(tmp_path))


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_the_worker_itself_flushes_and_closes_without_waiting_for_itself(
    database: Database, witness: Witness, tmp_path: Path
) -> None:
    client = witness.watch(AnalyticsClient(service="shop", flush_interval=3600, batch_size=10))
    answers: list[object] = []

    class Flushing(TimescaleSink):
        async def write(self, batch):  # type: ignore[no-untyped-def]
            begun = time.monotonic()
            answers.append(client.flush(60))
            answers.append(await client.aflush(0.05))
            if len(answers) > 6:
                answers.append(client.close(60))
            assert time.monotonic() - begun < SLACK
            return await super().write(batch)

    async with AnalyticsWorker(client, Flushing(database.dsn)):
        for _ in range(5):
            for _ in range(10):
                client.track(TASK)
            await asyncio.sleep(0.1)
        await client.aflush(30)
    assert True not in answers
    assert len(answers) > 6
    assert client.track(TASK) is False  # it was closed from within
    stats = client.stats()
    assert stats.dropped["closed"] >= 1
    await assert_stored(client, database, accepted_ids(tmp_path))


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_threads_that_close_one_client_at_once_abandon_nothing(
    client: AnalyticsClient, database: Database, tmp_path: Path
) -> None:
    for _ in range(5_000):
        assert client.track(TASK)
    threads = [threading.Thread(target=client.close, args=(30,)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert client.stats().abandoned == 0
    await assert_stored(client, database, accepted_ids(tmp_path))
