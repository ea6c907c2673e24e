"""flush and close, sync and async: in every state, and within their time whatever happens."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest

from asgi_analytics import AnalyticsClient, MemorySink, events
from asgi_analytics.errors import TransientError
from asgi_analytics.worker.thread import ThreadHost
from tests.kit.fakes import BrokenSink, FakeSink, eventually, hang, until, within

ID = UUID("0198c1a2-0000-7000-8000-000000000001")
TASK = events.TaskStarted(task_id=ID, user_id=ID)


@pytest.fixture
def hosted() -> Iterator[Callable[..., AnalyticsClient]]:
    """Give ``hosted(sink)``: a client with a thread of its own that writes to the sink."""
    made: list[AnalyticsClient] = []

    def make(sink: Any, **settings: Any) -> AnalyticsClient:
        client = AnalyticsClient.from_url("memory://", service="shop", **settings)
        assert isinstance(client._delivery.host, ThreadHost)
        client._delivery.host.sink = sink
        made.append(client)
        return client

    yield make
    for client in made:
        client.close(0)


# -- nothing to do, and nobody to do it


def test_there_is_nothing_to_flush_in_a_new_client(hosted: Callable[..., AnalyticsClient]) -> None:
    for client in (AnalyticsClient(service="shop"), hosted(MemorySink())):
        with within(0):
            assert client.flush(60)
            assert asyncio.run(client.aflush(60))
            assert client.close(60)
            assert client.close(60)
            assert asyncio.run(client.aclose(60))
        assert client.stats().accepted == 0


def test_closing_a_client_that_never_tracked_starts_no_thread(
    hosted: Callable[..., AnalyticsClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    monkeypatch.setattr("asgi_analytics.worker.thread._thread.start_new_thread", lambda *_: started.append(1))
    client = hosted(MemorySink())
    assert client.close(1)
    assert not started
    assert isinstance(client._delivery.host, ThreadHost)
    assert client._delivery.host.stopped()
    assert client._delivery.host._loop is None


def test_a_flush_without_a_worker_waits_its_time_and_says_so() -> None:
    client = AnalyticsClient(service="shop")
    client.track(TASK)
    with within(0.05):
        assert client.flush(0.05) is False
        assert client.flush(0) is False
        assert client.flush(-1) is False
        assert asyncio.run(client.aflush(0.05)) is False
    assert client.stats().queued == 1
    assert not client._ledger.is_flushing
    client.close(0)


def test_a_close_without_a_worker_abandons_at_once_and_says_how_many(caplog: pytest.LogCaptureFixture) -> None:
    for close in (AnalyticsClient.close, lambda client, timeout: asyncio.run(client.aclose(timeout))):
        client = AnalyticsClient(service="shop")
        client.track(TASK)
        client.track(TASK)
        with within(0):
            assert close(client, 60) is False
        assert client.stats().abandoned == 2
        assert close(client, 60) is True
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "no worker runs: use from_url(), or an AnalyticsWorker; service: shop; abandoned: 2" in caplog.text


def test_one_event_that_a_close_abandons_is_told_as_one(caplog: pytest.LogCaptureFixture) -> None:
    client = AnalyticsClient(service="shop")
    client.track(TASK)
    assert client.close(0) is False
    assert "service: shop; abandoned: 1" in caplog.text


# -- a worker in a thread


def test_a_flush_covers_all_that_was_accepted_before_it(hosted: Callable[..., AnalyticsClient]) -> None:
    sink = MemorySink()
    client = hosted(sink, flush_interval=3600)
    for _ in range(250):
        client.track(TASK)
    assert client.flush(10) is True
    assert len(sink.events) == client.stats().stored == 250


def test_an_async_flush_does_not_block_the_loop(hosted: Callable[..., AnalyticsClient]) -> None:
    sink = FakeSink(lambda: asyncio.sleep(0.1))
    client = hosted(sink)
    client.track(TASK)

    async def flush() -> int:
        ticks = 0
        flushing = asyncio.create_task(client.aflush(10))
        while not flushing.done():
            ticks += 1
            await asyncio.sleep(0.001)
        assert flushing.result()
        return ticks

    assert asyncio.run(flush()) > 5
    assert len(sink.events) == 1


def test_a_flush_covers_what_is_in_flight(hosted: Callable[..., AnalyticsClient]) -> None:
    go = threading.Event()

    async def wait() -> None:
        while not go.is_set():
            await asyncio.sleep(0.001)

    sink = FakeSink(wait)
    client = hosted(sink, batch_size=1)
    client.track(TASK)
    until(lambda: client.stats().in_flight)
    assert client.flush(0.02) is False
    go.set()
    assert client.flush(10) is True


def test_a_flush_interrupts_a_backoff(hosted: Callable[..., AnalyticsClient], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asgi_analytics.worker.worker.FIRST_BACKOFF", 3600.0)
    monkeypatch.setattr("asgi_analytics.worker.worker.LAST_BACKOFF", 3600.0)
    monkeypatch.setattr("asgi_analytics.worker.worker.random.uniform", lambda low, high: high)
    sink = BrokenSink(TransientError("away"))
    client = hosted(sink, batch_size=1)
    client.track(TASK)
    until(lambda: client.stats().retries)
    sink.error = None
    with within(0):
        assert client.flush(60)
    assert client.stats().stored == 1


def test_many_may_flush_at_once(hosted: Callable[..., AnalyticsClient]) -> None:
    sink = MemorySink()
    client = hosted(sink, flush_interval=3600)
    answers: list[bool] = []

    def visit() -> None:
        for _ in range(50):
            client.track(TASK)
            answers.append(client.flush(10))

    threads = [threading.Thread(target=visit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [True] * 200
    assert len(sink.events) == 200


@pytest.mark.parametrize("timeout", [0, 0.05])
def test_flush_and_close_keep_their_time_while_the_sink_hangs(
    hosted: Callable[..., AnalyticsClient], timeout: float
) -> None:
    client = hosted(FakeSink(hang), batch_size=1)
    client.track(TASK)
    until(lambda: client.stats().in_flight)
    client.track(TASK)
    with within(4 * timeout):
        assert client.flush(timeout) is False
        assert asyncio.run(client.aflush(timeout)) is False
        assert client.close(timeout) is False
        assert client.flush(60) is True  # nothing is left
    stats = client.stats()
    assert (stats.abandoned, stats.in_flight, stats.queued, stats.accepted) == (2, 0, 0, 2)


def test_flush_and_close_keep_their_time_while_the_sink_blocks_its_thread(
    hosted: Callable[..., AnalyticsClient],
) -> None:
    release = threading.Event()

    async def block() -> None:
        release.wait(30)

    client = hosted(FakeSink(block), batch_size=1)
    client.track(TASK)
    until(lambda: client.stats().in_flight)
    with within(0.1):
        assert client.flush(0.05) is False
        assert client.close(0.05) is False
    release.set()
    assert client.stats().abandoned == 1


def test_an_endless_timeout_is_taken(hosted: Callable[..., AnalyticsClient]) -> None:
    client = hosted(MemorySink())
    for timeout in (math.inf, 1e300):
        client.track(TASK)
        assert client.flush(timeout)
        client.track(TASK)
        assert asyncio.run(client.aflush(timeout))
    assert client.close(math.inf)


@pytest.mark.parametrize("ends", ["close", "aclose"])
def test_a_close_writes_what_is_left_ends_the_thread_and_the_sink(
    hosted: Callable[..., AnalyticsClient], ends: str
) -> None:
    sink = FakeSink()
    client = hosted(sink, flush_interval=3600)
    client.track(TASK)
    assert client.close(10) if ends == "close" else asyncio.run(client.aclose(10))
    assert len(sink.events) == 1
    assert sink.closed == 1
    assert isinstance(client._delivery.host, ThreadHost)
    assert client._delivery.host.stopped()
    assert not client.track(TASK)


def test_the_default_time_is_close_timeout(hosted: Callable[..., AnalyticsClient]) -> None:
    client = hosted(FakeSink(hang, hang), close_timeout=0.05)
    client.track(TASK)
    with within(0.15):
        assert client.flush() is False
        assert client.close() is False


def test_a_flush_in_the_workers_own_thread_does_not_wait(hosted: Callable[..., AnalyticsClient]) -> None:
    answers: list[bool] = []

    async def flush() -> None:
        answers.append(client.flush(60))

    client = hosted(FakeSink(flush))
    client.track(TASK)
    with within(0):
        assert client.flush(60)
    assert answers == [False]


def test_a_flush_whose_loop_was_closed_meanwhile_hurts_nobody(hosted: Callable[..., AnalyticsClient]) -> None:
    go = threading.Event()

    async def wait() -> None:
        while not go.is_set():
            await asyncio.sleep(0.001)

    client = hosted(FakeSink(wait), batch_size=1)
    client.track(TASK)

    async def leave() -> None:
        flushing = asyncio.ensure_future(client.aflush(60))
        await eventually(lambda: client._ledger.is_flushing)
        flushing.cancel()

    asyncio.run(leave())
    assert not client._ledger.is_flushing
    go.set()
    assert client.flush(10)


def test_figures_do_not_wait_while_a_flush_does(hosted: Callable[..., AnalyticsClient]) -> None:
    client = hosted(FakeSink(hang), batch_size=1)
    client.track(TASK)
    thread = threading.Thread(target=client.flush, args=(0.5,))
    thread.start()
    until(lambda: client._ledger.is_flushing)
    with within(0):
        assert client.stats().oldest_seconds > 0
    thread.join()
