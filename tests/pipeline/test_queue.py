"""The queue: its bounds, and when the worker is woken."""

from __future__ import annotations

import threading

import pytest

from asgi_analytics.pipeline.queue import WAKE_BYTES, EventQueue, Item
from tests.kit.queues import LINE, make, put, run_all


def test_the_newest_is_refused_when_the_queue_is_full() -> None:
    queue, _ledger = make(size=2)
    assert [put(queue, line) for line in (b"1", b"2", b"3")] == [True, True, False]
    assert list(queue.items) == [b"1", b"2"]


def test_the_bound_in_bytes_holds_too_and_frees_when_events_leave() -> None:
    queue, ledger = make(max_bytes=10)
    assert [put(queue, b"x" * 6), put(queue, b"y" * 5), put(queue, b"z" * 4)] == [True, False, True]
    ledger.take(1, 100)
    assert put(queue, b"y" * 5)
    ledger.put_back()
    assert not put(queue, b"")  # over the bound: what was in flight came back


def test_captured_events_are_refused_from_eighty_percent() -> None:
    queue, _ledger = make(size=10, max_bytes=1000)
    taken = [queue.put(b"x", 1, captured=True) for _ in range(10)]
    assert taken == [True] * 8 + [False] * 2
    assert [put(queue), put(queue), put(queue)] == [True, True, False]
    heavy, _ = make(size=10, max_bytes=1000)
    assert heavy.put(b"x" * 800, 800, captured=True)
    assert not heavy.put(b"x", 1, captured=True)
    assert put(heavy, b"x")


@pytest.mark.usefixtures("restless")
def test_n_threads_overshoot_the_bound_by_less_than_n_and_the_bytes_are_exact() -> None:
    for _ in range(20):
        queue, _ledger = make(size=50)
        barrier = threading.Barrier(4)

        def fill(queue: EventQueue = queue, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            for _ in range(50):
                put(queue)

        run_all([threading.Thread(target=fill) for _ in range(4)])
        assert 50 <= len(queue.items) <= 53
        assert queue.bytes_in == len(LINE) * len(queue.items)


def test_what_slips_in_while_the_queue_ends_is_abandoned_too() -> None:
    queue, ledger = make()
    queue.end(ledger.abandon)
    assert put(queue)  # its producer had asked whether the queue is closed just before
    assert ledger.read(0.0).abandoned == 1
    queue.close()
    assert not put(queue)


def test_a_worker_is_woken_once_and_only_from_its_length() -> None:
    queue, _ledger = make(wake_at=3)
    calls: list[int] = []
    queue.idle(lambda: calls.append(len(queue.items)))
    for _ in range(5):
        put(queue)
    assert calls == [3]
    queue.idle(lambda: calls.append(-1), wake_at=1)
    put(queue)
    assert calls == [3, -1]


def test_a_worker_is_woken_by_bytes_too() -> None:
    queue, _ledger = make(max_bytes=WAKE_BYTES * 3)
    calls: list[int] = []
    queue.idle(lambda: calls.append(len(queue.items)))
    put(queue, b"x" * (WAKE_BYTES - 1))
    assert not calls
    assert not queue.is_worth_a_write()
    put(queue, b"x")
    assert calls == [2]
    assert queue.is_worth_a_write()


def test_a_busy_worker_is_left_alone() -> None:
    queue, _ledger = make(wake_at=1)
    calls: list[int] = []
    queue.idle(lambda: calls.append(1))
    queue.busy()
    put(queue)
    assert not calls


@pytest.mark.parametrize("captured", [True, False])
def test_a_queue_that_is_closed_takes_nothing(captured: bool) -> None:
    queue = EventQueue(size=10, max_bytes=1000, wake_at=5)
    item: Item = b"x"
    assert queue.put(item, 1, captured)
    queue.close()
    assert not queue.put(item, 1, captured)
    queue.reset()
    assert queue.put(item, 1, captured)
