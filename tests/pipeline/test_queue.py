"""The queue: bounds, the worker's side of it, and a ledger that always balances."""

from __future__ import annotations

import logging
import random
import sys
import threading
from collections.abc import Iterator

import pytest

from asgi_analytics.errors import ConfigError
from asgi_analytics.pipeline.queue import WAKE_BYTES, EventQueue
from asgi_analytics.pipeline.stats import LockFreeCounter, Stats

LINE = b'{"timestamp":"2026-11-20T12:00:00Z"}'


def make(size: int = 100, max_bytes: int = 1 << 20, wake_at: int = 10) -> EventQueue:
    return EventQueue(size=size, max_bytes=max_bytes, wake_at=wake_at)


def put(queue: EventQueue, line: bytes = LINE) -> bool:
    return queue.put(line, len(line))


def balances(stats: Stats) -> bool:
    settled = stats.stored + stats.duplicates + stats.rejected.total() + stats.abandoned
    return stats.accepted == settled + stats.queued + stats.in_flight


@pytest.fixture
def restless() -> Iterator[None]:
    """Let threads come in between any two steps."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def test_the_newest_is_refused_when_the_queue_is_full() -> None:
    queue = make(size=2)
    assert [put(queue, line) for line in (b"1", b"2", b"3")] == [True, True, False]
    assert list(queue.items) == [b"1", b"2"]


def test_the_bound_in_bytes_holds_too_and_frees_when_events_leave() -> None:
    queue = make(max_bytes=10)
    assert [put(queue, b"x" * 6), put(queue, b"y" * 5), put(queue, b"z" * 4)] == [True, False, True]
    queue.take(1, 100)
    assert put(queue, b"y" * 5)
    queue.put_back()
    assert not put(queue, b"")  # over the bound: what was in flight came back


def test_captured_events_are_refused_from_eighty_percent() -> None:
    queue = make(size=10, max_bytes=1000)
    taken = [queue.put(b"x", 1, captured=True) for _ in range(10)]
    assert taken == [True] * 8 + [False] * 2
    assert [put(queue), put(queue), put(queue)] == [True, True, False]
    heavy = make(size=10, max_bytes=1000)
    assert heavy.put(b"x" * 800, 800, captured=True)
    assert not heavy.put(b"x", 1, captured=True)
    assert put(heavy, b"x")


@pytest.mark.usefixtures("restless")
def test_n_threads_overshoot_the_bound_by_less_than_n_and_the_bytes_are_exact() -> None:
    for _ in range(20):
        queue = make(size=50)
        barrier = threading.Barrier(4)

        def fill(queue: EventQueue = queue, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            for _ in range(50):
                put(queue)

        run_all([threading.Thread(target=fill) for _ in range(4)])
        assert 50 <= len(queue.items) <= 53
        assert queue.bytes_in == len(LINE) * len(queue.items)


def run_all(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_taking_is_bound_by_count_and_bytes_but_one_event_always_fits() -> None:
    queue = make()
    for size in (5, 5, 5, 50, 1):
        put(queue, b"x" * size)
    taken = []
    while batch := queue.take(2, 12):
        taken.append([len(line) for line in batch])
        queue.settle(batch, duplicates=0, rejected=[])
    assert taken == [[5, 5], [5], [50], [1]]


def test_what_is_put_back_is_taken_first_and_in_its_order() -> None:
    queue = make()
    for line in (b"1", b"2", b"3"):
        put(queue, line)
    queue.take(2, 100)
    queue.put_back()
    assert queue.take(10, 100) == [b"1", b"2", b"3"]


def test_settling_counts_what_became_of_each() -> None:
    queue = make()
    for _ in range(6):
        put(queue)
    queue.settle(queue.take(4, 1000), duplicates=1, rejected=["a", "a"])
    stats = queue.read(0.0)
    assert (stats.stored, stats.duplicates, stats.rejected, stats.batches) == (1, 1, {"a": 2}, 1)
    assert (stats.accepted, stats.queued, stats.in_flight) == (6, 2, 0)
    queue.take(1, 1000)
    queue.failed("the sink is away")
    stats = queue.read(1.5)
    assert (stats.in_flight, stats.retries, stats.last_error, stats.oldest_seconds) == (1, 1, "the sink is away", 1.5)
    assert balances(stats)


def test_a_part_of_a_batch_may_be_settled_and_the_rest_stays_in_flight() -> None:
    queue = make()
    for number in range(6):
        put(queue, str(number).encode())
    rest = queue.settle(queue.take(5, 1000), duplicates=1, rejected=["r"], written=3)
    assert rest == [b"3", b"4"]
    stats = queue.read(0.0)
    assert (stats.stored, stats.duplicates, stats.rejected, stats.in_flight, stats.queued) == (1, 1, {"r": 1}, 2, 1)
    assert balances(stats)
    assert queue.settle(rest, duplicates=0, rejected=[], written=2) == []
    assert (queue.read(0.0).stored, queue.read(0.0).in_flight) == (3, 0)


def test_what_a_close_has_abandoned_cannot_be_settled_again() -> None:
    queue = make()
    put(queue)
    put(queue)
    batch = queue.take(1, 1000)
    assert queue.abandon() == 2
    queue.settle(batch, duplicates=0, rejected=[])
    stats = queue.read(0.0)
    assert (stats.abandoned, stats.stored, stats.batches) == (2, 0, 0)
    assert balances(stats)


def test_what_slips_in_while_the_queue_ends_is_abandoned_too() -> None:
    queue = make()
    queue.end()
    assert put(queue)  # its producer had asked whether the queue is closed just before
    assert queue.read(0.0).abandoned == 1
    queue.close()
    assert not put(queue)


@pytest.mark.usefixtures("restless")
def test_the_ledger_balances_whenever_it_is_read_while_all_is_moving() -> None:
    queue = make(size=500)
    accepted = [0, 0, 0]
    stop = threading.Event()

    def produce(which: int) -> None:
        for _ in range(3_000):
            accepted[which] += put(queue)

    def work() -> None:
        dice = random.Random(1)
        while not stop.is_set() or queue.items:
            batch = queue.take(dice.randint(1, 50), 10_000)
            if dice.random() < 0.3:
                queue.put_back()
            elif batch:
                duplicates = dice.randint(0, len(batch))
                queue.settle(batch, duplicates=duplicates, rejected=["r"] * (len(batch) - duplicates))

    producers = [threading.Thread(target=produce, args=(which,)) for which in range(3)]
    worker = threading.Thread(target=work)
    for thread in (*producers, worker):
        thread.start()
    last = 0
    while any(producer.is_alive() for producer in producers):
        stats = queue.read(0.0)
        assert balances(stats)
        assert stats.accepted >= last
        last = stats.accepted
    stop.set()
    worker.join()
    stats = queue.read(0.0)
    assert stats.accepted == sum(accepted) == stats.duplicates + stats.rejected.total()
    assert queue.bytes_in == queue.bytes_out


def test_a_worker_is_woken_once_and_only_from_its_length() -> None:
    queue = make(wake_at=3)
    calls: list[int] = []
    queue.idle(lambda: calls.append(len(queue.items)))
    for _ in range(5):
        put(queue)
    assert calls == [3]
    queue.idle(lambda: calls.append(-1), wake_at=1)
    put(queue)
    assert calls == [3, -1]


def test_a_worker_is_woken_by_bytes_too() -> None:
    queue = make(max_bytes=WAKE_BYTES * 3)
    calls: list[int] = []
    queue.idle(lambda: calls.append(len(queue.items)))
    put(queue, b"x" * (WAKE_BYTES - 1))
    assert not calls
    assert not queue.is_worth_a_write()
    put(queue, b"x")
    assert calls == [2]
    assert queue.is_worth_a_write()


def test_a_busy_worker_is_left_alone() -> None:
    queue = make(wake_at=1)
    calls: list[int] = []
    queue.idle(lambda: calls.append(1))
    queue.busy()
    put(queue)
    assert not calls


def test_a_client_has_one_worker() -> None:
    queue = make()

    def first() -> None: ...

    queue.attach(first, lambda: True)
    with pytest.raises(ConfigError, match="one client, one worker"):
        queue.attach(lambda: None, lambda: True)
    queue.detach(first)
    queue.attach(lambda: None, lambda: True)


def test_a_dead_worker_is_replaced_and_cannot_take_the_queue_from_the_new_one() -> None:
    queue = make()
    put(queue)

    def old() -> None: ...

    def new() -> None: ...

    queue.attach(old, lambda: False)
    batch = queue.take(1, 1000)
    assert not queue.has_worker()
    queue.attach(new, lambda: True)
    assert queue.read(0.0).queued == 1
    queue.take(1, 1000)
    queue.settle(batch, duplicates=0, rejected=[])
    queue.detach(old)
    stats = queue.read(0.0)
    assert (stats.in_flight, stats.stored) == (1, 0)
    assert queue.owner is new
    assert queue.has_worker()


def test_a_flush_is_told_when_all_before_it_is_settled_and_no_sooner() -> None:
    queue = make()
    for _ in range(3):
        put(queue)
    called: list[str] = []

    def call() -> None:
        called.append("settled")

    assert not queue.when_settled(queue.ticket(), call)
    assert queue.flushing
    put(queue)  # later than the flush
    queue.settle(queue.take(2, 1000), duplicates=1, rejected=["r"])
    assert not called
    queue.settle(queue.take(1, 1000), duplicates=0, rejected=[])
    assert called == ["settled"]
    assert not queue.flushing
    assert not queue.is_settled()


def test_a_flush_of_what_is_put_back_waits_for_the_same_events() -> None:
    queue = make()
    put(queue)
    put(queue)
    queue.take(1, 1000)
    ticket = queue.ticket()
    queue.put_back()
    assert queue.ticket() == ticket == 2


def test_a_flush_with_nothing_to_do_is_done() -> None:
    queue = make()
    assert queue.when_settled(queue.ticket(), lambda: None)
    assert not queue.flushing


def test_a_forgotten_flush_is_not_told() -> None:
    queue = make()
    put(queue)
    called: list[int] = []

    def call() -> None:
        called.append(1)

    queue.when_settled(queue.ticket(), call)
    queue.forget(call)
    assert not queue.flushing
    queue.abandon()
    assert not called


def test_drops_are_logged_by_reason_with_their_number_and_not_one_by_one(caplog: pytest.LogCaptureFixture) -> None:
    queue = make()
    for number in range(3):
        queue.drop("invalid", f"detail {number}")
    queue.drop("queue_full", "100 events wait")
    queue.drop("before_track", "")
    queue.report_drops()
    queue.drop("invalid", "detail 3")
    queue.report_drops()
    assert sorted(caplog.messages) == [
        "1 event dropped (queue_full), the last one: 100 events wait",
        "3 events dropped (invalid), the last one: detail 2",
    ]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    assert queue.read(0.0).dropped == {"invalid": 4, "queue_full": 1, "before_track": 1, "oversize": 0, "closed": 0}


@pytest.mark.usefixtures("restless")
def test_drops_are_counted_exactly_from_many_threads() -> None:
    counter = LockFreeCounter(["a", "b"])
    together = threading.Barrier(8)

    def count() -> None:
        together.wait()
        for _ in range(20_000):
            counter.add("a")

    run_all([threading.Thread(target=count) for _ in range(8)])
    assert counter.read() == {"a": 160_000, "b": 0}


def test_figures_are_read_as_attributes_and_as_items() -> None:
    stats = make().read(0.0)
    assert stats.queued == stats["queued"] == 0
    assert stats["dropped"]["queue_full"] == stats.dropped["queue_full"] == 0
    with pytest.raises(KeyError):
        stats["as_dict"]
    assert stats.as_dict()["dropped"] == {
        "queue_full": 0,
        "oversize": 0,
        "invalid": 0,
        "before_track": 0,
        "closed": 0,
    }
