"""The worker when a write fails: it waits, says so once, and tries again until the batch is settled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from asgi_analytics import AnalyticsClient, AnalyticsWorker, events
from asgi_analytics.errors import OperatorError, TransientError
from asgi_analytics.sinks.base import Receipt, Rejected
from asgi_analytics.worker import worker as worker_module
from tests.kit.fakes import BrokenSink, FakeSink, eventually

ID = UUID("0198c1a2-0000-7000-8000-000000000001")
TASK = events.TaskStarted(task_id=ID, user_id=ID)


@pytest.fixture
def jitter(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """Give the bounds of each random delay, which is none here."""
    bounds: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        bounds.append((low, high))
        return 0.0

    monkeypatch.setattr("asgi_analytics.worker.worker.random.uniform", uniform)
    return bounds


async def test_a_transient_error_is_retried_with_full_jitter_until_the_batch_is_stored(
    make_client: Callable[..., AnalyticsClient], jitter: list[tuple[float, float]], caplog: pytest.LogCaptureFixture
) -> None:
    client, sink = make_client(), FakeSink(*[TransientError("refused")] * 12)
    caplog.set_level(logging.INFO)
    async with AnalyticsWorker(client, sink):
        client.track(TASK)
        assert await client.aflush(10)
    ceilings = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30, 30]
    assert [low for low, _ in jitter] == [0] * 12
    assert [high for _, high in jitter] == pytest.approx(ceilings)
    assert len({tuple(batch) for batch in sink.writes}) == 1
    stats = client.stats()
    assert (stats.stored, stats.retries, stats.batches, stats.last_error) == (1, 12, 1, None)
    assert caplog.messages == ["events wait, the sink is away: refused", "events are stored again"]


async def test_a_sink_that_asks_for_time_gets_it_on_top_of_the_jitter(
    make_client: Callable[..., AnalyticsClient], jitter: list[tuple[float, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    async def sleep(worker: AnalyticsWorker, seconds: float) -> bool:
        slept.append(seconds)
        await asyncio.sleep(0)
        return False

    client, sink = (
        make_client(),
        FakeSink(TransientError("503", retry_after=7.0), TransientError("503", retry_after=1e9)),
    )
    client.track(TASK)
    monkeypatch.setattr(AnalyticsWorker, "_sleep", sleep)
    async with AnalyticsWorker(client, sink):
        await eventually(lambda: sink.events)
    assert slept[:2] == [7.0, worker_module.LONGEST_RETRY_AFTER]


async def test_an_operator_error_is_retried_slowly_and_said_loudly(
    make_client: Callable[..., AnalyticsClient], jitter: list[tuple[float, float]], caplog: pytest.LogCaptureFixture
) -> None:
    client, sink = make_client(), FakeSink(*[OperatorError("no table: run analytics-migrate all")] * 6)
    async with AnalyticsWorker(client, sink):
        client.track(TASK)
        assert await client.aflush(10)
    assert jitter == [(2.5, 5), (5, 10), (10, 20), (20, 40), (30, 60), (30, 60)]
    [record] = caplog.records
    assert (record.levelno, record.getMessage()) == (
        logging.ERROR,
        "events wait until somebody acts: no table: run analytics-migrate all",
    )
    assert client.stats().stored == 1


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("odd"), "RuntimeError (fakes.py, line "),
        (asyncio.CancelledError(), "CancelledError ("),
        (TimeoutError(), "Time"),
    ],
)
async def test_an_error_that_nobody_expected_is_said_loudly_and_costs_nothing(
    make_client: Callable[..., AnalyticsClient],
    jitter: list[tuple[float, float]],
    caplog: pytest.LogCaptureFixture,
    error: BaseException,
    said: str,
) -> None:
    client, sink = make_client(), FakeSink(error)
    async with AnalyticsWorker(client, sink):
        client.track(TASK)
        assert await client.aflush(10)
    assert caplog.records[0].levelno == logging.ERROR
    assert said in caplog.messages[0]
    assert client.stats().stored == 1


@pytest.mark.parametrize(
    "nonsense",
    [Receipt(duplicates=2), Receipt(duplicates=-1), Receipt(rejected=[Rejected(0, "a"), Rejected(0, "b")]), 7],
)
async def test_an_answer_that_makes_no_sense_is_no_answer(
    make_client: Callable[..., AnalyticsClient], jitter: list[tuple[float, float]], nonsense: Any
) -> None:
    client, sink = make_client(), FakeSink(nonsense)
    async with AnalyticsWorker(client, sink):
        client.track(TASK)
        assert await client.aflush(10)
    stats = client.stats()
    assert (stats.accepted, stats.stored, stats.duplicates, stats.rejected) == (1, 1, 0, {})


async def test_what_the_sink_rejects_is_counted_by_reason_and_said_once(
    make_client: Callable[..., AnalyticsClient], caplog: pytest.LogCaptureFixture
) -> None:
    rejected = [Rejected(0, "check_violation"), Rejected(2, "check_violation"), Rejected(3, "too_deep", "data")]
    client, sink = make_client(), FakeSink(Receipt(duplicates=1, rejected=rejected), Receipt(rejected=rejected[:1]))
    for _ in range(5):
        client.track(TASK)
    async with AnalyticsWorker(client, sink):
        assert await client.aflush(10)
        client.track(TASK)
        assert await client.aflush(10)
    stats = client.stats()
    assert (stats.stored, stats.duplicates) == (1, 1)
    assert stats.rejected == {"check_violation": 3, "too_deep": 1}
    assert caplog.messages == [
        "rejected by the sink (check_violation): 2",
        "rejected by the sink (too_deep): 1",
    ]


async def test_an_outage_takes_one_line_and_bounded_memory(
    make_client: Callable[..., AnalyticsClient], jitter: list[tuple[float, float]], caplog: pytest.LogCaptureFixture
) -> None:
    client, sink = make_client(queue_size=50), BrokenSink(TransientError("away"))
    async with AnalyticsWorker(client, sink) as worker:
        for _ in range(300):
            client.track(TASK)
            await asyncio.sleep(0)
        stats = client.stats()
        assert stats.in_flight + stats.queued <= 100
        assert stats.accepted + stats.dropped["queue_full"] == 300
        sink.error = None
        assert await worker.aclose(10)
    assert client.stats().stored == stats.accepted
    assert [message for message in caplog.messages if "away" in message] == ["events wait, the sink is away: away"]
    assert len(caplog.messages) == 2


async def test_a_write_that_took_too_long_is_tried_again_with_half_and_the_rest_follows(
    make_client: Callable[..., AnalyticsClient], jitter: list[tuple[float, float]]
) -> None:
    client, sink = make_client(), FakeSink(*[TransientError("too slow", fewer=True)] * 2)
    for _ in range(16):
        client.track(TASK)
    async with AnalyticsWorker(client, sink):
        assert await client.aflush(10)
    assert [len(batch) for batch in sink.writes] == [16, 8, 4, 5, 6, 1]
    assert [one for batch in sink.writes[2:] for one in batch] == sink.writes[0]
    stats = client.stats()
    assert (stats.stored, stats.retries, stats.batches, stats.accepted) == (16, 2, 4, 16)


async def test_the_rest_of_a_write_that_took_too_long_does_not_wait_for_more_events(
    make_client: Callable[..., AnalyticsClient], jitter: list[tuple[float, float]]
) -> None:
    client, sink = make_client(batch_size=10), FakeSink(TransientError("too slow", fewer=True))
    async with AnalyticsWorker(client, sink):
        for _ in range(10):
            client.track(TASK)
        await eventually(lambda: client.stats().stored == 10)  # no flush, and the interval is an hour


async def test_a_single_event_that_takes_too_long_is_tried_again_as_it_is(
    make_client: Callable[..., AnalyticsClient], jitter: list[tuple[float, float]]
) -> None:
    client, sink = make_client(), FakeSink(*[TransientError("too slow", fewer=True)] * 3)
    async with AnalyticsWorker(client, sink):
        client.track(TASK)
        assert await client.aflush(10)
    assert [len(batch) for batch in sink.writes] == [1, 1, 1, 1]
