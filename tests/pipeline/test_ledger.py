"""The ledger: what became of each event, and a balance that always holds."""

from __future__ import annotations

import logging
import random
import threading

import pytest

from asgi_analytics.pipeline.queue import weight_of
from asgi_analytics.pipeline.stats import LockFreeCounter, Stats
from tests.kit.queues import make, put, run_all


def balances(stats: Stats) -> bool:
    settled = stats.stored + stats.duplicates + stats.rejected.total() + stats.abandoned
    return stats.accepted == settled + stats.queued + stats.in_flight


def test_taking_is_bound_by_count_and_bytes_but_one_event_always_fits() -> None:
    queue, ledger = make()
    for size in (5, 5, 5, 50, 1):
        put(queue, b"x" * size)
    taken = []
    while batch := ledger.take(2, 12):
        taken.append([weight_of(line) for line in batch])
        ledger.settle(batch, duplicates=0, rejected=[])
    assert taken == [[5, 5], [5], [50], [1]]


def test_what_is_put_back_is_taken_first_and_in_its_order() -> None:
    queue, ledger = make()
    for line in (b"1", b"2", b"3"):
        put(queue, line)
    ledger.take(2, 100)
    ledger.put_back()
    assert ledger.take(10, 100) == [b"1", b"2", b"3"]


def test_settling_counts_what_became_of_each() -> None:
    queue, ledger = make()
    for _ in range(6):
        put(queue)
    ledger.settle(ledger.take(4, 1000), duplicates=1, rejected=["a", "a"])
    stats = ledger.read(0.0)
    assert (stats.stored, stats.duplicates, stats.rejected, stats.batches) == (1, 1, {"a": 2}, 1)
    assert (stats.accepted, stats.queued, stats.in_flight) == (6, 2, 0)
    ledger.take(1, 1000)
    ledger.failed("the sink is away")
    stats = ledger.read(1.5)
    assert (stats.in_flight, stats.retries, stats.last_error, stats.oldest_seconds) == (1, 1, "the sink is away", 1.5)
    assert balances(stats)


def test_a_part_of_a_batch_may_be_settled_and_the_rest_stays_in_flight() -> None:
    queue, ledger = make()
    for number in range(6):
        put(queue, str(number).encode())
    rest = ledger.settle(ledger.take(5, 1000), duplicates=1, rejected=["r"], written=3)
    assert rest == [b"3", b"4"]
    stats = ledger.read(0.0)
    assert (stats.stored, stats.duplicates, stats.rejected, stats.in_flight, stats.queued) == (1, 1, {"r": 1}, 2, 1)
    assert balances(stats)
    assert ledger.settle(rest, duplicates=0, rejected=[], written=2) == []
    assert (ledger.read(0.0).stored, ledger.read(0.0).in_flight) == (3, 0)


def test_what_a_close_has_abandoned_cannot_be_settled_again() -> None:
    queue, ledger = make()
    put(queue)
    put(queue)
    batch = ledger.take(1, 1000)
    assert ledger.abandon() == 2
    ledger.settle(batch, duplicates=0, rejected=[])
    stats = ledger.read(0.0)
    assert (stats.abandoned, stats.stored, stats.batches) == (2, 0, 0)
    assert balances(stats)


@pytest.mark.usefixtures("restless")
def test_the_ledger_balances_whenever_it_is_read_while_all_is_moving() -> None:
    queue, ledger = make(size=500)
    accepted = [0, 0, 0]
    stop = threading.Event()

    def produce(which: int) -> None:
        for _ in range(3_000):
            accepted[which] += put(queue)

    def work() -> None:
        dice = random.Random(1)
        while not stop.is_set() or queue.items:
            batch = ledger.take(dice.randint(1, 50), 10_000)
            if dice.random() < 0.3:
                ledger.put_back()
            elif batch:
                duplicates = dice.randint(0, len(batch))
                ledger.settle(batch, duplicates=duplicates, rejected=["r"] * (len(batch) - duplicates))

    producers = [threading.Thread(target=produce, args=(which,)) for which in range(3)]
    worker = threading.Thread(target=work)
    for thread in (*producers, worker):
        thread.start()
    last = 0
    while any(producer.is_alive() for producer in producers):
        stats = ledger.read(0.0)
        assert balances(stats)
        assert stats.accepted >= last
        last = stats.accepted
    stop.set()
    worker.join()
    stats = ledger.read(0.0)
    assert stats.accepted == sum(accepted) == stats.duplicates + stats.rejected.total()
    assert queue.bytes_in == queue.bytes_out


def test_a_flush_is_told_when_all_before_it_is_settled_and_no_sooner() -> None:
    queue, ledger = make()
    for _ in range(3):
        put(queue)
    called: list[str] = []

    def call() -> None:
        called.append("settled")

    assert not ledger.when_settled(ledger.ticket(), call)
    assert ledger.is_flushing
    put(queue)  # later than the flush
    ledger.settle(ledger.take(2, 1000), duplicates=1, rejected=["r"])
    assert not called
    ledger.settle(ledger.take(1, 1000), duplicates=0, rejected=[])
    assert called == ["settled"]
    assert not ledger.is_flushing
    assert not ledger.is_settled()


def test_a_flush_of_what_is_put_back_waits_for_the_same_events() -> None:
    queue, ledger = make()
    put(queue)
    put(queue)
    ledger.take(1, 1000)
    ticket = ledger.ticket()
    ledger.put_back()
    assert ledger.ticket() == ticket == 2


def test_a_flush_with_nothing_to_do_is_done() -> None:
    _queue, ledger = make()
    assert ledger.when_settled(ledger.ticket(), lambda: None)
    assert not ledger.is_flushing


def test_a_forgotten_flush_is_not_told() -> None:
    queue, ledger = make()
    put(queue)
    called: list[int] = []

    def call() -> None:
        called.append(1)

    ledger.when_settled(ledger.ticket(), call)
    ledger.forget(call)
    assert not ledger.is_flushing
    ledger.abandon()
    assert not called


def test_drops_are_logged_by_reason_with_their_number_and_not_one_by_one(caplog: pytest.LogCaptureFixture) -> None:
    _queue, ledger = make()
    for number in range(3):
        ledger.drop("invalid", f"detail {number}")
    ledger.drop("queue_full", "100 events wait")
    ledger.drop("before_track", "")
    ledger.report_drops()
    ledger.drop("invalid", "detail 3")
    ledger.report_drops()
    assert sorted(caplog.messages) == [
        "dropped (invalid): 3; last: detail 2",
        "dropped (queue_full): 1; last: 100 events wait",
    ]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    assert ledger.read(0.0).dropped == {"invalid": 4, "queue_full": 1, "before_track": 1, "oversize": 0, "closed": 0}


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
    stats = make()[1].read(0.0)
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
