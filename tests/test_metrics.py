"""What is recorded is stored in one row per series, with its name, unit, tags and values, or counted as dropped."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_analytics import AnalyticsClient, metrics
from asgi_analytics.encoding.metric_record import GROWTH, MIDDLE, bin_of
from asgi_analytics.errors import EventNotAccepted
from tests.kit.measurements import client, stored

__all__ = ["client"]

NUMBERS = st.floats(min_value=-1e300, max_value=1e300, allow_nan=False)


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
