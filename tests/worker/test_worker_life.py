"""The worker's life: begun, cancelled, replaced, left behind by its loop; nothing is lost on the way."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
from collections.abc import Callable
from uuid import UUID

import pytest

from asgi_analytics import AnalyticsClient, AnalyticsWorker, MemorySink, events
from asgi_analytics.errors import ConfigError, TransientError
from asgi_analytics.worker import worker as worker_module
from tests.kit.fakes import BrokenSink, FakeSink, eventually, hang

ID = UUID("0198c1a2-0000-7000-8000-000000000001")
TASK = events.TaskStarted(task_id=ID, user_id=ID)


async def test_a_worker_flushes_when_its_block_ends(make_client: Callable[..., AnalyticsClient]) -> None:
    client, sink = make_client(batch_size=100), FakeSink()
    async with AnalyticsWorker(client, sink):
        client.track(TASK)
    assert (len(sink.events), sink.closed) == (1, 1)
    assert client.track(TASK)  # the client stays open
    assert client.stats().queued == 1


async def test_a_block_that_raises_is_flushed_and_its_error_goes_on(
    make_client: Callable[..., AnalyticsClient],
) -> None:
    client, sink = make_client(batch_size=100), FakeSink()
    with pytest.raises(KeyError):  # noqa: PT012  # a block is what is tested
        async with AnalyticsWorker(client, sink):
            client.track(TASK)
            raise KeyError("the application's own")
    assert len(sink.events) == 1


async def test_a_second_worker_is_refused_while_the_first_one_runs(make_client: Callable[..., AnalyticsClient]) -> None:
    client, sink = make_client(), FakeSink()
    async with AnalyticsWorker(client, sink):
        with pytest.raises(ConfigError, match="one client, one worker"):
            async with AnalyticsWorker(client, FakeSink()):
                pass
        client.track(TASK)
        assert await client.aflush(10)
    assert len(sink.events) == 1


async def test_one_worker_follows_another(make_client: Callable[..., AnalyticsClient]) -> None:
    client, sink = make_client(), FakeSink()
    for number in range(3):
        client.track(TASK)
        async with AnalyticsWorker(client, sink):
            client.track(TASK)
        assert len(sink.events) == 2 * (number + 1)


async def test_a_worker_may_be_used_again(make_client: Callable[..., AnalyticsClient]) -> None:
    client, sink = make_client(), FakeSink()
    worker = AnalyticsWorker(client, sink)
    for number in range(2):
        async with worker:
            client.track(TASK)
        assert len(sink.events) == number + 1


async def test_a_cancelled_worker_writes_what_is_left_first(make_client: Callable[..., AnalyticsClient]) -> None:
    client, sink = make_client(batch_size=100), FakeSink()
    task = asyncio.create_task(AnalyticsWorker(client, sink).run())
    await asyncio.sleep(0)
    client.track(TASK)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (client.stats().stored, sink.closed) == (1, 1)


async def test_a_worker_cancelled_in_the_middle_of_a_write_writes_the_same_batch_again(
    make_client: Callable[..., AnalyticsClient],
) -> None:
    client, sink = make_client(), FakeSink(hang)
    task = asyncio.create_task(AnalyticsWorker(client, sink).run())
    client.track(TASK)
    await eventually(lambda: sink.writes)
    client.track(TASK)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [len(batch) for batch in sink.writes] == [1, 2]
    assert client.stats().stored == 2


async def test_a_second_cancellation_is_obeyed_at_once_and_what_is_left_waits(
    make_client: Callable[..., AnalyticsClient],
) -> None:
    client, sink = make_client(), FakeSink(hang, hang)
    task = asyncio.create_task(AnalyticsWorker(client, sink).run())
    client.track(TASK)
    await eventually(lambda: len(sink.writes) == 1)
    task.cancel()
    await eventually(lambda: len(sink.writes) == 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    stats = client.stats()
    assert (stats.queued, stats.in_flight, stats.accepted) == (1, 0, 1)
    async with AnalyticsWorker(client, MemorySink()):
        pass
    assert client.stats().stored == 1


async def test_the_last_flush_has_the_time_of_close_timeout(make_client: Callable[..., AnalyticsClient]) -> None:
    client = make_client(close_timeout=0.05)
    task = asyncio.create_task(AnalyticsWorker(client, BrokenSink(TransientError("away"))).run())
    client.track(TASK)
    await eventually(lambda: client.stats().retries)
    begun = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - begun < 2
    assert client.stats().queued == 1


async def test_closing_the_worker_interrupts_a_backoff(
    make_client: Callable[..., AnalyticsClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asgi_analytics.worker.worker.random.uniform", lambda low, high: 3600.0)
    client, sink = make_client(), FakeSink(TransientError("away"))
    worker = AnalyticsWorker(client, sink)
    async with worker:
        client.track(TASK)
        await eventually(lambda: client.stats().retries)
        assert await worker.aclose(10)
    assert client.stats().stored == 1


async def test_closing_a_worker_whose_sink_hangs_keeps_its_time(make_client: Callable[..., AnalyticsClient]) -> None:
    client = make_client()
    worker = AnalyticsWorker(client, FakeSink(hang))
    await worker.__aenter__()
    client.track(TASK)
    await eventually(lambda: client.stats().in_flight)
    begun = time.monotonic()
    assert await worker.aclose(0.05) is False
    assert time.monotonic() - begun < 2
    assert client.stats().queued == 1  # for the next worker


async def test_closing_a_worker_whose_sink_ignores_cancellation_keeps_its_time(
    make_client: Callable[..., AnalyticsClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    release = asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()

    monkeypatch.setattr(worker_module, "ENDING_SECONDS", 0.02)
    client = make_client()
    worker = AnalyticsWorker(client, FakeSink(stubborn))
    await worker.__aenter__()
    client.track(TASK)
    await eventually(lambda: client.stats().in_flight)
    begun = time.monotonic()
    assert await worker.aclose(0.02) is False
    assert time.monotonic() - begun < 2
    release.set()
    await eventually(lambda: not worker._running)


async def test_a_worker_returns_when_its_client_is_closed_and_empty(
    make_client: Callable[..., AnalyticsClient],
) -> None:
    client, sink = make_client(batch_size=100), FakeSink()
    task = asyncio.create_task(AnalyticsWorker(client, sink).run())
    await asyncio.sleep(0)
    client.track(TASK)
    assert await asyncio.to_thread(client.close, 10)
    await asyncio.wait_for(task, 10)
    assert len(sink.events) == 1


def test_three_loops_one_after_the_other_serve_one_client(make_client: Callable[..., AnalyticsClient]) -> None:
    client, sink = make_client(batch_size=100), FakeSink()

    async def serve(how: int) -> None:
        worker = AnalyticsWorker(client, sink)
        if how == 0:
            async with worker:
                client.track(TASK)
            return
        task = asyncio.create_task(worker.run())
        await asyncio.sleep(0)
        client.track(TASK)
        if how == 1:
            await client.aflush(10)
        assert not task.done()  # asyncio.run cancels it, and waits

    for how in (0, 1, 2):
        asyncio.run(serve(how))
        client.track(TASK)  # between two loops
    stats = client.stats()
    assert (len(sink.events), stats.stored, stats.queued) == (5, 5, 1)
    assert len({id(loop) for loop in sink.loops}) == 3


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited", "ignore::ResourceWarning")
def test_a_worker_whose_loop_was_thrown_away_is_replaced(make_client: Callable[..., AnalyticsClient]) -> None:
    client, sink = make_client(), FakeSink(hang)
    loop = asyncio.new_event_loop()
    task = loop.create_task(AnalyticsWorker(client, sink).run())
    client.track(TASK)
    loop.run_until_complete(asyncio.sleep(0.01))
    assert client.stats().in_flight == 1
    loop.close()  # with the worker in the middle of a write

    async def replace() -> None:
        nonlocal task
        async with AnalyticsWorker(client, sink):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            task = None  # type: ignore[assignment]
            gc.collect()  # the old worker's coroutine is finished off while the new one works
            client.track(TASK)
            assert await client.aflush(10)
            client.track(TASK)
            assert await client.aflush(10)

    asyncio.run(replace())
    assert client.stats().stored == len(sink.events) == 3


def test_a_worker_that_was_replaced_while_its_loop_stood_still_leaves_all_to_the_new_one(
    make_client: Callable[..., AnalyticsClient],
) -> None:
    client, sink = make_client(), FakeSink()
    go = asyncio.Event()
    old_loop = asyncio.new_event_loop()
    old_sink = FakeSink(go.wait)
    old = old_loop.create_task(AnalyticsWorker(client, old_sink).run())
    client.track(TASK)
    old_loop.run_until_complete(asyncio.sleep(0.01))

    async def replace() -> None:
        async with AnalyticsWorker(client, sink):
            assert await client.aflush(10)
            go.set()
            await asyncio.to_thread(old_loop.run_until_complete, old)  # it ends by itself
            client.track(TASK)
            assert await client.aflush(10)

    asyncio.run(replace())
    old_loop.close()
    stats = client.stats()
    assert (stats.accepted, stats.stored, len(sink.events)) == (2, 2, 2)
    assert len(old_sink.writes) == 1


def test_events_of_many_threads_arrive_once_each_while_workers_come_and_go(
    make_client: Callable[..., AnalyticsClient],
) -> None:
    client, sink = make_client(batch_size=10, queue_size=1_000_000), FakeSink(*[TransientError("away")] * 3)
    done = threading.Event()

    def produce() -> None:
        for _ in range(2_000):
            assert client.track(TASK)

    producers = [threading.Thread(target=produce) for _ in range(3)]

    async def serve() -> None:
        task = asyncio.create_task(AnalyticsWorker(client, sink).run())
        await asyncio.sleep(0.01)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    for producer in producers:
        producer.start()
    while any(producer.is_alive() for producer in producers):
        asyncio.run(serve())
    asyncio.run(serve())
    done.set()
    stats = client.stats()
    assert (stats.accepted, stats.stored, stats.duplicates) == (6_000, 6_000, 0)
    assert len(sink.events) == 6_000


async def test_a_cancellation_while_the_sink_closes_leaves_nothing_open(
    make_client: Callable[..., AnalyticsClient],
) -> None:
    client = make_client()

    class Slow(FakeSink):
        begun = asyncio.Event()

        async def aclose(self) -> None:
            self.begun.set()
            await asyncio.sleep(0.05)
            await super().aclose()

    sink = Slow()
    task = asyncio.create_task(AnalyticsWorker(client, sink).run())
    await asyncio.sleep(0)
    client.close(0)
    await sink.begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sink.closed == 1
