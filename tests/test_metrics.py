"""What is recorded is stored, once, in one row per series and interval, or counted as dropped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import random
import signal
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_analytics import AnalyticsClient, AnalyticsWorker, MemorySink, metrics
from asgi_analytics.encoding.metric_record import GROWTH, MIDDLE, bin_of
from asgi_analytics.errors import ConfigError, EventNotAccepted
from asgi_analytics.pipeline.stats import Stats
from tests.kit.scripts import run_script

NUMBERS = st.floats(min_value=-1e300, max_value=1e300, allow_nan=False)


@pytest.fixture
def client() -> Iterator[AnalyticsClient]:
    """Give a client with a sink in memory."""
    client = AnalyticsClient.from_url("memory://", service="shop", flush_interval=3600)
    yield client
    client.close()


def stored(client: AnalyticsClient) -> list[dict[str, Any]]:
    """Return the data of all rows."""
    assert client.flush(30)
    return [event.data for event in client.sink.events]


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


def test_a_hundred_thousand_calls_are_one_row(client: AnalyticsClient) -> None:
    for _ in range(100_000):
        client.metrics.counter("orders", 2, unit="{order}", shop="Köln")
    [row] = stored(client)
    assert row == {
        "name": "orders",
        "metric_type": "counter",
        "unit": "{order}",
        "tags": {"shop": "Köln"},
        "count": 100_000,
        "sum": 200_000.0,
        "min": 2.0,
        "max": 2.0,
        "last": 2.0,
    }
    assert client.stats().accepted == 1


def test_type_name_unit_and_each_tag_with_its_type_tell_series_apart(client: AnalyticsClient) -> None:
    ours = client.metrics
    ours.counter("n")
    ours.histogram("n", 1)
    ours.counter("n", unit="s")
    for value in ("1", 1, True):
        ours.counter("n", tag=value)
    ours.counter("n", a="x", b="y")
    ours.counter("n", b="y", a="x")
    assert sorted(row["count"] for row in stored(client)) == [1, 1, 1, 1, 1, 1, 2]


def test_a_gauge_keeps_its_last_value_and_a_row_is_a_delta(client: AnalyticsClient) -> None:
    for value in (3, 9, -4.5):
        client.metrics.gauge("level", value)
    client.metrics.counter("orders", 5)
    assert client.flush(10)
    client.metrics.counter("orders", -2)
    level, five, two = stored(client)
    assert [level[name] for name in ("last", "min", "max", "count", "sum")] == [-4.5, -4.5, 9.0, 3, 7.5]
    assert (five["sum"], two["sum"]) == (5.0, -2.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e301, 10**400, "3", b"3", None, object(), [1]])
def test_what_is_no_number_is_dropped_and_counted(client: AnalyticsClient, value: Any) -> None:
    for record in (client.metrics.counter, client.metrics.gauge, client.metrics.histogram, client.metrics.timing):
        record("n", value)
        record("n", 1.5)
    assert client.stats().dropped["invalid"] == 4
    assert [(row["count"], row["sum"]) for row in stored(client)] == [(1, 1.5)] * 4


@pytest.mark.parametrize(
    ("name", "tags"),
    [
        ("", {}),
        (" ", {}),
        ("n" * 256, {}),
        (7, {}),
        (None, {}),
        ([], {}),
        ("n", {"tag": 1.5}),
        ("n", {"tag": None}),
        ("n", {"tag": ["x"]}),
        ("n", {"tag": 2**63}),
        ("n", {"tag": "x" * 1001}),
        ("n", {"t" * 256: "x"}),
        ("n", {f"tag{number}": "x" for number in range(21)}),
    ],
)
def test_what_no_series_can_be_named_by_is_dropped_and_counted(
    client: AnalyticsClient, name: Any, tags: dict[str, Any]
) -> None:
    client.metrics.counter(name, **tags)
    client.metrics.counter(name, **tags)
    assert client.stats().dropped["invalid"] == 2
    assert stored(client) == []


def test_any_number_and_any_text_is_stored(client: AnalyticsClient) -> None:
    names = ["n'; DROP TABLE analytics_metrics; --", "\x00", "\ud800", "📈", "{}", "a" * 255, "$metric"]
    for name in names:
        tags: dict[str, Any] = {name: name, "self": name, "": "", "int": -(2**63), "yes": True}
        client.metrics.counter(name, Fraction(1, 2), **tags)  # type: ignore[arg-type]  # any number will do
    rows = stored(client)
    assert [row["name"] for row in rows] == [
        name.replace("\x00", "\ufffd").replace("\ud800", "\ufffd") for name in names
    ]
    assert {row["sum"] for row in rows} == {0.5}
    assert all(row["tags"]["self"] == row["name"] and row["tags"]["yes"] is True for row in rows)


def test_sums_that_are_too_large_stay_numbers(client: AnalyticsClient) -> None:
    for _ in range(3):
        client.metrics.counter("float", 1e300)
        client.metrics.counter("int", -(10**300))
    assert [row["sum"] for row in stored(client)] == [1e300, -1e300]


def test_in_strict_mode_a_refused_call_raises() -> None:
    client = AnalyticsClient(service="shop", strict=True)
    client.metrics.counter("n")
    with pytest.raises(EventNotAccepted, match=r"use a str, an int or a bool"):
        client.metrics.counter("n", tag=1.5)  # type: ignore[arg-type]
    client.close(0)


def test_a_client_that_is_disabled_records_nothing() -> None:
    client = AnalyticsClient(service="shop", enabled=False)
    for _ in range(1000):
        client.metrics.counter("n")
    assert (client.flush(1), client.stats().accepted, client.stats().dropped.total()) == (True, 0, 0)
    client.close()


@given(NUMBERS)
def test_what_stands_for_a_bin_is_within_two_percent(value: float) -> None:
    number = bin_of(value)
    if abs(value) > 1e-300:
        middle = math.copysign(2 * GROWTH ** (abs(number) - MIDDLE) / (GROWTH + 1), number)
        assert abs(middle - value) <= 0.0197 * abs(value)
    else:
        assert (number > 0, number < 0) == (value > 0, value < 0)


@given(NUMBERS, NUMBERS)
def test_bins_are_in_the_order_of_values(one: float, other: float) -> None:
    assert (bin_of(one) <= bin_of(other)) or one > other


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


@pytest.fixture
def restless() -> Iterator[None]:
    """Let threads come in between any two steps."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


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


async def test_timers_measure_blocks_and_calls_of_every_kind(client: AnalyticsClient) -> None:
    timer = client.metrics.timer

    with pytest.raises(KeyError), timer("block", ms="a tag", value="another"):
        raise KeyError
    async with timer("async block"), timer("async block"):
        await asyncio.sleep(0)

    @timer("function", kind="sync")
    def plain(value: int) -> int:
        return value + 1

    @timer("coroutine")
    async def waits() -> str:
        await asyncio.sleep(0.01)
        return "done"

    @timer("generator")
    def generates() -> Iterator[int]:
        yield 1
        yield 2

    @timer("failing")
    async def fails() -> None:
        raise ValueError

    assert (plain(1), plain(2), plain.__name__) == (2, 3, "plain")
    assert [await waits(), await waits()] == ["done", "done"]
    assert list(generates()) == [1, 2]
    with pytest.raises(ValueError, match=r"^$"):
        await fails()
    client.metrics.timing("measured elsewhere", 12.5)
    await client.aflush(10)
    rows = {row["name"]: row for row in stored(client)}
    assert {name: row["count"] for name, row in rows.items()} == {
        "block": 1, "async block": 2, "function": 2, "coroutine": 2, "generator": 1, "failing": 1,
        "measured elsewhere": 1,
    }  # fmt: skip
    assert {(row["metric_type"], row["unit"]) for row in rows.values()} == {("timer", "ms")}
    assert 5 < rows["coroutine"]["min"] < 5_000
    assert rows["block"]["tags"] == {"ms": "a tag", "value": "another"}
    assert rows["measured elsewhere"]["sum"] == 12.5


def test_the_predefined_metrics(client: AnalyticsClient) -> None:
    for metric in (
        metrics.api_request("/tasks/{id}", 12.5, 200),
        metrics.active_users(42),
        metrics.missions_created(),
        metrics.database_query("SELECT", 0.5),
        metrics.Metric("histogram", "own", 3.0, tags={"a": "b"}),
    ):
        client.metrics.record(metric)
    assert [(row["metric_type"], row["name"], row["last"], row["unit"], row["tags"]) for row in stored(client)] == [
        ("timer", "api_request", 12.5, "ms", {"endpoint": "/tasks/{id}", "status": 200}),
        ("gauge", "active_users", 42.0, None, {}),
        ("counter", "missions_created", 1.0, None, {}),
        ("timer", "database_query", 0.5, "ms", {"query_type": "SELECT"}),
        ("histogram", "own", 3.0, None, {"a": "b"}),
    ]


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


@pytest.mark.parametrize("value", [0, -1, True, "60", math.inf])
def test_an_interval_is_above_zero(value: Any) -> None:
    with pytest.raises(ConfigError, match="metrics_interval"):
        AnalyticsClient(service="shop", metrics_interval=value)
