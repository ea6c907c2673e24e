"""Sums and counts are those of the calls: over threads, tasks, signals, forks, a full queue, time and a close."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import random
import signal
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from asgi_analytics import AnalyticsClient, AnalyticsWorker, MemorySink
from asgi_analytics.errors import ConfigError
from asgi_analytics.pipeline.stats import Stats
from tests.kit.measurements import client, stored
from tests.kit.scripts import run_script

__all__ = ["client"]


def assert_balance(stats: Stats) -> None:
    """Check that each row that was accepted is accounted for."""
    assert stats.accepted == sum(
        (stats.stored, stats.duplicates, stats.rejected.total(), stats.abandoned, stats.queued, stats.in_flight)
    )


def sums(rows: list[dict[str, Any]]) -> dict[tuple[Any, ...], tuple[float, int]]:
    """Add up rows by name, type and tags."""
    found: dict[tuple[Any, ...], list[float]] = defaultdict(lambda: [0, 0])
    for row in rows:
        key = (row["metric_type"], row["name"], json.dumps(row["tags"]))
        found[key][0] += row["sum"]
        found[key][1] += row["count"]
    return {key: (total, int(count)) for key, (total, count) in found.items()}


@pytest.mark.usefixtures("restless")
def test_sums_over_threads_and_tasks_equal_what_was_recorded(client: AnalyticsClient) -> None:
    expected: list[dict[tuple[Any, ...], tuple[float, int]]] = []

    def record(seed: int) -> None:
        chance, mine = random.Random(seed), []
        for number in range(4_000):
            value, tag = chance.randint(-5, 100), chance.randint(0, 7)
            client.metrics.counter("c", value, tag=tag)
            client.metrics.histogram("h", value, tag=str(tag))
            mine += [("counter", "c", tag, value), ("histogram", "h", str(tag), value)]
            if number % 1_500 == 0:
                client.flush(0)
        expected.append(
            sums([{"metric_type": k, "name": n, "tags": {"tag": t}, "sum": v, "count": 1} for k, n, t, v in mine])
        )

    async def tasks() -> None:
        await asyncio.gather(*(asyncio.to_thread(record, seed) for seed in (10, 11)))
        record(12)

    threads = [threading.Thread(target=record, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    asyncio.run(tasks())
    for thread in threads:
        thread.join()
    total: dict[tuple[Any, ...], tuple[float, int]] = defaultdict(lambda: (0, 0))
    for part in expected:
        for key, (value, count) in part.items():
            total[key] = (total[key][0] + value, total[key][1] + count)
    rows = stored(client)
    assert sums(rows) == total
    assert all(sum(row["counts"]) == row["count"] for row in rows if row["metric_type"] == "histogram")
    assert client.stats().dropped.total() == 0
    assert_balance(client.stats())


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")
def test_a_signal_handler_that_records_and_raises_loses_nothing(client: AnalyticsClient) -> None:
    handled = called = 0

    class Interrupted(Exception):
        pass

    def handle(*_: object) -> None:
        nonlocal handled
        if handled == 200:
            return
        handled += 1
        client.metrics.counter("handled")
        if handled % 2:
            raise Interrupted
        signal.setitimer(signal.ITIMER_REAL, 0.0003)

    def record() -> None:
        nonlocal called
        signal.setitimer(signal.ITIMER_REAL, 0.0003)
        while handled < 200:
            called += 1
            client.metrics.counter("called", tag="x")

    before = signal.signal(signal.SIGALRM, handle)
    try:
        while handled < 200:
            with contextlib.suppress(Interrupted):
                record()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    found = sums(stored(client))
    assert found["counter", "handled", "{}"] == (handled, handled)
    # An interruption between counting here and recording there is the handler's doing, at most once per signal.
    assert called - handled <= found["counter", "called", '{"tag": "x"}'][1] <= called


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_parent_and_children_of_a_fork_count_their_own_once(tmp_path: Path) -> None:
    run_script(
        """
import warnings; warnings.filterwarnings('ignore', category=DeprecationWarning, message='.*fork.*')
client = AnalyticsClient.from_url(f"file://{sys.argv[1]}", service="shop", flush_interval=3600)
for _ in range(700):
    client.metrics.counter("n", 1, who="before")
for _ in range(3):
    if not os.fork():
        for _ in range(1000):
            client.metrics.counter("n", 1, who="child")
        assert client.flush(10)
        os._exit(0)
for _ in range(500):
    client.metrics.counter("n", 1, who="parent")
for _ in range(3):
    assert os.wait()[1] == 0
""",
        tmp_path / "events",
    )
    lines = [json.loads(line)["data"] for line in (tmp_path / "events").read_text().splitlines()]
    found: dict[str, float] = defaultdict(float)
    for line in lines:
        found[line["tags"]["who"]] += line["sum"]
    assert found == {"before": 700, "child": 3000, "parent": 500}


def test_a_million_tags_stay_within_the_bound(caplog: pytest.LogCaptureFixture) -> None:
    client = AnalyticsClient.from_url("memory://", service="shop", metrics_series=100)
    calls = 100_000
    for number in range(calls):
        client.metrics.counter("wild", user=number)
        client.metrics.histogram("tame", number)
    for number in range(400):
        client.metrics.counter(f"name {number}")
    rows = stored(client)
    wild = [row for row in rows if row["name"] == "wild"]
    assert len(wild) <= 101
    assert sum(row["count"] for row in wild) == calls
    [rest] = [row for row in wild if row["tags"] == {"overflow": True}]
    stats = client.stats()
    assert stats.overflowed >= rest["count"] >= calls - 100
    assert sum(row["count"] for row in rows if row["name"] == "tame") == calls
    # Names without end have a bound too: what is beyond is dropped, and counted.
    others = sum(row["count"] for row in rows if row["name"].startswith("name"))
    assert others + stats.dropped["invalid"] == 400
    assert len(rows) <= 200
    client.close()
    said = [record.getMessage() for record in caplog.records if "the metric wild" in record.getMessage()]
    assert len(said) == 1


def test_rows_that_find_no_room_wait_and_are_dropped_and_counted_at_the_close() -> None:
    client = AnalyticsClient(service="shop", queue_size=3)
    for number in range(10):
        client.metrics.counter("n", 7, number=number)
    assert not client.flush(0)
    assert (client.stats().queued, client.stats().dropped.total()) == (3, 0)
    client.close(0)
    client.metrics.counter("n")
    stats = client.stats()
    assert (stats.abandoned, stats.dropped["queue_full"], stats.dropped["closed"]) == (3, 7, 1)
    assert_balance(stats)


def test_more_series_than_the_queue_has_room_for_are_all_flushed() -> None:
    client = AnalyticsClient.from_url("memory://", service="shop", queue_size=50)
    for number in range(1_000):
        client.metrics.counter("n", number=number)
    assert client.flush(30)
    assert len(client.sink.events) == 1_000
    client.close()


def test_a_close_sends_what_was_recorded() -> None:
    client = AnalyticsClient.from_url("memory://", service="shop")
    client.metrics.counter("n")
    assert client.close(10)
    assert len(client.sink.events) == 1


async def test_a_row_goes_out_each_interval_by_itself() -> None:
    sink, written = MemorySink(), asyncio.Event()

    class Watched(MemorySink):
        async def write(self, batch: Any) -> Any:
            receipt = await sink.write(batch)
            written.set()
            return receipt

    client = AnalyticsClient(service="shop", metrics_interval=0.02, flush_interval=0.02, pipeline_metrics=True)
    async with AnalyticsWorker(client, Watched()):
        client.metrics.counter("n")
        await asyncio.wait_for(written.wait(), 10)
        while not any(event.data["name"] == "analytics.events.stored" for event in sink.events):
            written.clear()
            await asyncio.wait_for(written.wait(), 10)
    names = {event.data["name"]: event.data for event in sink.events}
    assert (names["n"]["sum"], names["analytics.events.queued"]["metric_type"]) == (1.0, "gauge")
    assert {event.event_type for event in sink.events} == {"$metric"}
    await client.aclose()


async def test_a_cancelled_worker_sends_what_was_recorded() -> None:
    sink, client = MemorySink(), AnalyticsClient(service="shop")
    task = asyncio.create_task(AnalyticsWorker(client, sink).run())
    await asyncio.sleep(0)
    client.metrics.counter("n")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert len(sink.events) == 1
    await client.aclose()


@pytest.mark.parametrize("value", [0, -1, True, "60", math.inf])
def test_an_interval_is_above_zero(value: Any) -> None:
    with pytest.raises(ConfigError, match="metrics_interval"):
        AnalyticsClient(service="shop", metrics_interval=value)
