"""The thread that a client of a URL brings: it starts by itself, starts again, and is in nobody's way."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest

from asgi_analytics import AnalyticsClient, AnalyticsWorker, MemorySink, events
from asgi_analytics.context import suppressed
from asgi_analytics.errors import ConfigError
from asgi_analytics.sinks import sink_from_url
from asgi_analytics.sinks.base import Receipt
from asgi_analytics.worker.thread import ThreadHost, _Loop
from tests.kit.fakes import FakeSink, hang, until

ID = UUID("0198c1a2-0000-7000-8000-000000000001")
TASK = events.TaskStarted(task_id=ID, user_id=ID)
NAME = "asgi-analytics worker"


@pytest.fixture
def hosted() -> Iterator[Callable[..., tuple[AnalyticsClient, ThreadHost]]]:
    """Give ``hosted(sink)``: a client with a thread of its own that writes to the sink, and its host."""
    made: list[AnalyticsClient] = []

    def make(sink: Any, **settings: Any) -> tuple[AnalyticsClient, ThreadHost]:
        client = AnalyticsClient.from_url("memory://", service="shop", **{"batch_size": 1, **settings})
        assert isinstance(client._delivery.host, ThreadHost)
        client._delivery.host.sink = sink
        made.append(client)
        return client, client._delivery.host

    yield make
    for client in made:
        client.close(1)


Hosted = Callable[..., tuple[AnalyticsClient, ThreadHost]]


def test_no_thread_starts_before_the_first_event(hosted: Hosted) -> None:
    sink = FakeSink()
    client, host = hosted(sink)
    assert client.flush(0)
    client.stats()
    assert host.stopped()
    client.track(TASK)
    until(lambda: sink.events)
    assert not host.stopped()


def test_the_first_event_of_any_number_starts_one_thread(hosted: Hosted) -> None:
    names: list[str] = []

    async def look() -> None:
        names.append(threading.current_thread().name)
        assert threading.current_thread().daemon

    client, _ = hosted(FakeSink(look, look, look), batch_size=1000, flush_interval=3600)
    barrier = threading.Barrier(8)

    def track() -> None:
        barrier.wait()
        client.track(TASK)

    threads = [threading.Thread(target=track) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.flush(10)
    client.track(TASK)
    assert client.flush(10)
    assert set(names) == {NAME}
    assert client.stats().stored == 9


def test_a_dropped_event_starts_the_thread_that_logs_it(hosted: Hosted, caplog: pytest.LogCaptureFixture) -> None:
    client, _ = hosted(MemorySink(), flush_interval=0.01)
    client.track("nonsense")  # type: ignore[arg-type]
    until(lambda: caplog.messages)
    assert "dropped (invalid): 1" in caplog.messages[0]


def test_the_first_event_may_come_while_the_interpreters_lock_of_threads_is_held(hosted: Hosted) -> None:
    client, _ = hosted(MemorySink())
    with threading._active_limbo_lock:  # type: ignore[attr-defined]  # as under a signal handler within Thread.start()
        assert client.track(TASK)
    assert client.flush(10)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs signals")
def test_the_first_event_may_come_from_a_signal_handler(hosted: Hosted) -> None:
    client, _ = hosted(MemorySink())
    before = signal.signal(signal.SIGALRM, lambda *_: client.track(TASK) and None)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    try:
        until(lambda: client.stats().accepted)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert client.flush(10)


class Deadly(FakeSink):
    """Ends its worker at the first write."""

    async def write(self, batch: Any) -> Receipt:
        if not self.writes:
            self.writes.append(list(batch))
            raise SystemExit
        return await super().write(batch)


def test_a_worker_that_died_is_started_again_and_nothing_is_lost(
    hosted: Hosted, caplog: pytest.LogCaptureFixture
) -> None:
    sink = Deadly()
    client, _ = hosted(sink)
    client.track(TASK)
    until(lambda: len(sink.events) == 1)  # no second event, and no flush
    assert "the worker ended by SystemExit (test_thread.py" in caplog.text
    client.track(TASK)
    assert client.flush(10)
    assert len(sink.events) == 2


@pytest.mark.parametrize("how", ["flush", "aflush", "close"])
def test_a_flush_outlives_a_worker_that_dies(hosted: Hosted, how: str) -> None:
    sink = Deadly()
    client, _ = hosted(sink)
    client.track(TASK)
    assert asyncio.run(client.aflush(10)) if how == "aflush" else getattr(client, how)(10)
    assert (len(sink.writes), len(sink.events)) == (2, 1)


def test_no_worker_is_started_again_for_a_client_that_is_closed_or_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def die() -> None:
        raise SystemExit

    monkeypatch.setattr("asgi_analytics.worker.thread.RESTART_SECONDS", 0.01)
    for leave in (lambda client: client.close(0), lambda _: None):
        sink = FakeSink(*[die] * 1000)
        client = AnalyticsClient.from_url("memory://", service="shop", batch_size=1)
        host = client._delivery.host
        assert isinstance(host, ThreadHost)
        host.sink = sink
        client.track(TASK)
        until(lambda sink=sink: len(sink.writes) > 2)  # type: ignore[misc]
        leave(client)
        del client
        until(lambda host=host: gc.collect() is not None and host.stopped())  # type: ignore[misc]
        assert not sink.events


def test_a_thread_that_cannot_start_is_tried_again_by_the_next_event(
    hosted: Hosted, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> int:
        raise RuntimeError("can't start new thread")

    client, host = hosted(MemorySink())
    with monkeypatch.context() as patch:
        patch.setattr("asgi_analytics.worker.thread._thread.start_new_thread", refuse)
        assert client.track(TASK)
        assert host.stopped()
    assert client.track(TASK)
    until(lambda: client.stats().stored == 2)  # no flush: it would start the thread by itself


def test_a_close_writes_in_its_own_thread_where_none_can_start(hosted: Hosted, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> int:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr("asgi_analytics.worker.thread._thread.start_new_thread", refuse)
    sink = FakeSink()
    client, _ = hosted(sink)
    client.track(TASK)
    assert client.close(10)
    assert (len(sink.events), sink.closed) == (1, 1)
    hanging, _ = hosted(FakeSink(hang, hang))
    hanging.track(TASK)
    begun = time.monotonic()
    assert hanging.close(0.05) is False
    assert time.monotonic() - begun < 3
    assert hanging.stats().abandoned == 1


def test_our_own_writes_are_muted_in_the_thread(hosted: Hosted) -> None:
    seen: list[bool] = []

    async def look() -> None:
        seen.append(suppressed.get())

    client, _ = hosted(FakeSink(look))
    client.track(TASK)
    assert client.flush(10)
    assert seen == [True]


def test_a_client_with_a_thread_takes_no_second_worker(hosted: Hosted) -> None:
    client, _ = hosted(MemorySink())
    client.track(TASK)
    assert client.flush(10)

    async def own() -> None:
        async with AnalyticsWorker(client, MemorySink()):
            pass

    with pytest.raises(ConfigError, match="one client, one worker"):
        asyncio.run(own())
    client.track(TASK)
    assert client.flush(10)


def test_a_closed_host_ends_its_thread_and_leaves_no_task(hosted: Hosted) -> None:
    client, host = hosted(FakeSink(hang))
    client.track(TASK)
    until(lambda: client.stats().in_flight)
    client.close(0)
    until(host.stopped)
    assert host._loop is None
    assert host.start() is False


def test_the_thread_needs_no_executor_to_resolve_a_name() -> None:
    async def resolve() -> Any:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
        await loop.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
        assert loop._default_executor is None  # type: ignore[attr-defined]
        return found

    with asyncio.Runner(loop_factory=_Loop) as runner:
        assert runner.run(resolve())


def test_clients_of_their_own_do_not_disturb_each_other(hosted: Hosted) -> None:
    slow, fast = FakeSink(hang), FakeSink()
    one, _ = hosted(slow)
    other, _ = hosted(fast)
    one.track(TASK)
    until(lambda: one.stats().in_flight)
    other.track(TASK)
    assert other.flush(10)
    assert one.flush(0) is False


def test_a_scheme_finds_its_sink_wherever_it_is_defined(monkeypatch: pytest.MonkeyPatch) -> None:
    class Far(MemorySink):
        schemes = ("far", "far+away")

    monkeypatch.setattr(sys.modules["asgi_analytics.sinks.memory"], "Far", Far, raising=False)
    assert isinstance(sink_from_url("far+away://x"), Far)
    assert type(sink_from_url("memory://")) is MemorySink
    with pytest.raises(ConfigError, match="far://"):
        sink_from_url("near://x")
