"""The worker: when it writes, how much, and what it does beside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from asgi_analytics import AnalyticsClient, AnalyticsWorker, Event, MemorySink, events
from asgi_analytics.context import suppressed
from asgi_analytics.errors import ConfigError, TransientError
from asgi_analytics.sinks import upkeep
from asgi_analytics.sinks.base import Receipt
from asgi_analytics.worker import worker as worker_module
from tests.kit.fakes import FakeSink, eventually

ID = UUID("0198c1a2-0000-7000-8000-000000000001")
TASK = events.TaskStarted(task_id=ID, user_id=ID)


class Parcel(Event):
    text: str = ""


async def test_a_batch_is_written_when_it_has_its_size(make_client: Callable[..., AnalyticsClient]) -> None:
    client, sink = make_client(batch_size=3), FakeSink()
    async with AnalyticsWorker(client, sink):
        client.track(TASK)
        client.track(TASK)
        await asyncio.sleep(0.02)
        assert not sink.writes
        client.track(TASK)
        await eventually(lambda: sink.writes)
        assert [len(batch) for batch in sink.writes] == [3]


async def test_what_waits_is_written_when_it_has_its_age(make_client: Callable[..., AnalyticsClient]) -> None:
    client, sink = make_client(batch_size=1000, flush_interval=0.02), FakeSink()
    async with AnalyticsWorker(client, sink):
        await asyncio.sleep(0.05)  # nothing to write meanwhile
        assert not sink.writes
        client.track(TASK)
        await eventually(lambda: sink.events)


async def test_many_bytes_wake_the_worker_however_few_events_they_are(
    make_client: Callable[..., AnalyticsClient],
) -> None:
    client, sink = make_client(batch_size=1000), FakeSink()
    async with AnalyticsWorker(client, sink):
        for _ in range(4):
            client.track(Parcel(text="x" * 200_000))
        await eventually(lambda: sink.events)
        assert all(sum(map(len, batch)) <= worker_module.WRITE_BYTES for batch in sink.writes)


async def test_an_event_that_exceeds_a_write_is_written_alone(make_client: Callable[..., AnalyticsClient]) -> None:
    client, sink = make_client(max_event_bytes=4 * worker_module.WRITE_BYTES), FakeSink()
    client.track(TASK)
    client.track(Parcel(text="x" * 2 * worker_module.WRITE_BYTES))
    client.track(TASK)
    async with AnalyticsWorker(client, sink):
        await eventually(lambda: len(sink.events) == 3)
        assert [len(batch) for batch in sink.writes] == [1, 1, 1]


async def test_a_write_takes_all_that_waits_up_to_its_limit(
    make_client: Callable[..., AnalyticsClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "WRITE_EVENTS", 1_000)
    client, sink = make_client(batch_size=10), FakeSink()
    for _ in range(1_500):
        client.track(TASK)
    async with AnalyticsWorker(client, sink):
        await eventually(lambda: len(sink.events) == 1_500)
        assert [len(batch) for batch in sink.writes] == [1_000, 500]
        assert client.stats().batches == 2


async def test_under_load_a_write_waits_for_more_until_its_pause_is_over(
    make_client: Callable[..., AnalyticsClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "PAUSE_SECONDS", 0.3)
    client, sink = make_client(batch_size=10), FakeSink()
    async with AnalyticsWorker(client, sink):
        for _ in range(10):
            client.track(TASK)
        await eventually(lambda: client.stats().stored == 10)  # the first one has nothing to wait for
        for _ in range(6):
            for _ in range(10):
                client.track(TASK)
            await asyncio.sleep(0.01)
        assert len(sink.writes) == 1
        await eventually(lambda: client.stats().stored == 70)
        assert [len(batch) for batch in sink.writes] == [10, 60]


@pytest.mark.parametrize(
    ("queue_size", "enough"),
    [(10_000, 1_000), (100, 40)],
)
async def test_a_full_write_or_half_a_queue_waits_for_no_pause(
    make_client: Callable[..., AnalyticsClient],
    monkeypatch: pytest.MonkeyPatch,
    queue_size: int,
    enough: int,
) -> None:
    monkeypatch.setattr(worker_module, "PAUSE_SECONDS", 3600)
    monkeypatch.setattr(worker_module, "WRITE_EVENTS", 1_000)
    client, sink = make_client(batch_size=10, queue_size=queue_size), FakeSink()
    async with AnalyticsWorker(client, sink):
        for number in (10, enough - 1):
            for _ in range(number):
                client.track(TASK)
            await asyncio.sleep(0.05)
        assert client.stats().stored == 10
        client.track(TASK)
        await eventually(lambda: client.stats().stored == 10 + enough)


async def test_a_flush_and_an_age_wait_for_no_pause(
    make_client: Callable[..., AnalyticsClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "PAUSE_SECONDS", 3600)
    client, sink = make_client(batch_size=10, flush_interval=0.2), FakeSink()
    async with AnalyticsWorker(client, sink):
        for _ in range(10):
            client.track(TASK)
        await eventually(lambda: client.stats().stored == 10)
        client.track(TASK)
        assert await client.aflush(5)
        client.track(TASK)
        await eventually(lambda: client.stats().stored == 12)


async def test_without_an_interval_each_event_is_written_at_once_and_the_worker_sleeps_between(
    make_client: Callable[..., AnalyticsClient],
) -> None:
    client, sink = make_client(batch_size=100, flush_interval=0), FakeSink()
    worker = AnalyticsWorker(client, sink)
    async with worker:
        for number in range(3):
            client.track(TASK)
            await eventually(lambda number=number: len(sink.writes) == number + 1)  # type: ignore[misc]
        turns = 0

        async def sleep(seconds: float, sleep: Any = worker._sleep) -> Any:
            nonlocal turns
            turns += 1
            return await sleep(seconds)

        worker._sleep = sleep  # type: ignore[method-assign]
        client.track(TASK)
        await asyncio.sleep(0.05)
        assert turns < 5


async def test_a_sink_that_never_waits_does_not_starve_the_loop(
    make_client: Callable[..., AnalyticsClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asgi_analytics.worker.worker.PAUSE_SECONDS", 0.0)
    client = make_client(queue_size=100)

    class Endless(FakeSink):
        async def write(self, batch: Any) -> Receipt:
            self.writes.append(batch)
            if len(self.writes) < 10_000:
                client.track(TASK)  # there is always one more
            return Receipt()

    sink = Endless()
    async with AnalyticsWorker(client, sink) as worker:
        client.track(TASK)
        for _ in range(50):
            await asyncio.sleep(0)
        assert 10 < len(sink.writes) < 100
        await worker.aclose(0)


async def test_the_sink_is_muted_for_our_own_instrumentation(make_client: Callable[..., AnalyticsClient]) -> None:
    seen: list[bool] = []

    async def look() -> None:
        seen.append(suppressed.get())
        seen.append(await asyncio.create_task(_suppressed()))

    client = make_client()
    async with AnalyticsWorker(client, FakeSink(look)):
        client.track(TASK)
        assert await client.aflush(10)
    assert seen == [True, True]
    assert suppressed.get() is False


async def test_what_comes_after_the_worker_in_its_task_is_not_muted(
    make_client: Callable[..., AnalyticsClient],
) -> None:
    client = make_client()
    client.track(TASK)
    client._queue.close()  # so that the worker ends when it has written
    await AnalyticsWorker(client, FakeSink()).run()
    assert client.stats().stored == 1
    assert suppressed.get() is False


async def _suppressed() -> bool:
    return suppressed.get()


async def test_drops_are_logged_by_the_worker(
    make_client: Callable[..., AnalyticsClient], caplog: pytest.LogCaptureFixture
) -> None:
    client = make_client(max_event_bytes=1000)
    async with AnalyticsWorker(client, MemorySink()):
        for _ in range(3):
            client.track(Parcel(text="x" * 1000))
        client.track(TASK)
        assert await client.aflush(10)
        await eventually(lambda: caplog.messages)
    assert len(caplog.messages) == 1
    assert "dropped (oversize): 3; last: " in caplog.text


@pytest.mark.parametrize("sink", [None, object(), "postgresql://db/shop"])
def test_what_is_no_sink_is_refused(sink: Any) -> None:
    with pytest.raises(ConfigError, match=r"is no sink: it needs async write\(batch\) and aclose\(\)"):
        AnalyticsWorker(AnalyticsClient(service="shop"), sink)


def test_a_class_in_place_of_a_sink_is_refused_by_its_name() -> None:
    with pytest.raises(ConfigError, match=r"MemorySink is a class: make a sink of it, MemorySink\(…\)"):
        AnalyticsWorker(AnalyticsClient(service="shop"), MemorySink)  # type: ignore[arg-type]  # that is the mistake


def test_what_is_no_client_is_refused() -> None:
    with pytest.raises(ConfigError, match="client is a MemorySink: use an AnalyticsClient"):
        AnalyticsWorker(MemorySink(), MemorySink())  # type: ignore[arg-type]  # swapped


async def test_the_hourly_upkeep_of_a_sink_is_called_and_its_failure_hurts_nobody(
    make_client: Callable[..., AnalyticsClient], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Kept(FakeSink):
        calls = 0

        async def upkeep(self) -> None:
            self.calls += 1
            assert suppressed.get()
            if self.calls == 1:
                raise TransientError("somebody else is at it")

    monkeypatch.setattr(upkeep, "FIRST_SECONDS", 0.001)
    monkeypatch.setattr(upkeep, "EVERY_SECONDS", 0.001)
    client, sink = make_client(), Kept()
    async with AnalyticsWorker(client, sink):
        await eventually(lambda: sink.calls >= 3)
        client.track(TASK)
        assert await client.aflush(10)
    assert caplog.messages == ["the hourly upkeep failed and is tried again: somebody else is at it"]
