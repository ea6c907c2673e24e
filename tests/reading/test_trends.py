"""Trends equal an independent computation: from aggregates in every state, and from raw rows with any filter."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from asgi_analytics.errors import InvalidQuery
from asgi_analytics.reading import AnalyticsReader
from asgi_analytics.reading.steps import Filter, Step
from tests.kit.databases import Database
from tests.kit.states import keep_fresh, lose, refresh
from tests.reading.expected import Asked
from tests.reading.happened import Event, insert, order_events, random_events
from tests.reading.test_questions import compare, plain
from tests.schema.happenings import midnight

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
TYPES = ["order_placed", "page_view"]
AMOUNT = "data.amount"
QUOTED = 'data.it\'s "quoted"'
EVIL = "'; DROP TABLE analytics_events; --"

ANSWERED_BY_AGGREGATES: list[dict[str, Any]] = [
    {"math": math, "interval": interval, "compare": is_compared}
    for math, interval, is_compared in [
        ("total", "day", True), ("total", "hour", False), ("total", "week", False),
        ("unique_users", "day", False), ("unique_users", "week", True),
    ]
]  # fmt: skip
ANSWERED_BY_RAW_ROWS: list[dict[str, Any]] = [
    *({"math": math, "property": AMOUNT} for math in ("sum", "avg", "min", "max", "median", "p90", "p95", "p99")),
    {"math": "avg", "property": AMOUNT, "breakdown": "data.plan", "limit": 1, "compare": True},
    {"math": "p90", "property": "data.nested.amount", "interval": "week", "compare": True},
    {"math": "unique_users", "interval": "hour"},
    {"math": "unique_users", "breakdown": "data.plan", "limit": 2, "compare": True},
    {"breakdown": "data.plan"},
    {"breakdown": QUOTED, "limit": 1},
    {"breakdown": "context.environment", "interval": "month"},
    {"breakdown": "user_id", "limit": 3, "interval": "week"},
    {"breakdown": f"data.{EVIL}"},
    {"environment": "staging"},
    {"environment": "staging", "math": "unique_users", "interval": "week"},
]  # fmt: skip
FILTERS = [
    Filter("data.plan", "exact", "pro"), Filter("data.plan", "exact", "5"), Filter("data.plan", "exact", 5),
    Filter("data.plan", "exact", True), Filter("data.plan", "is_not", "pro"), Filter("data.plan", "is_not", 5),
    Filter("data.plan", "in", ["pro", 5, False]), Filter("data.plan", "in", []), Filter("data.plan", "contains", "r"),
    Filter("data.plan", "not_contains", "r"), Filter("data.plan", "is_set"), Filter("data.plan", "is_not_set"),
    Filter(AMOUNT, "greater_than", 0), Filter(AMOUNT, "less_than", -0.5), Filter(AMOUNT, "between", [-5, 5]),
    Filter(AMOUNT, "exact", 2.0), Filter(AMOUNT, "exact", "2"), Filter("data.nothing", "is_not_set"),
    Filter("data.nothing", "is_not", "x"), Filter("data.nothing", "less_than", 5), Filter("data.tags.1", "exact", "b"),
    Filter(QUOTED, "exact", "\\'\""), Filter(f"data.{EVIL}", "contains", EVIL), Filter("data.plan", "exact", EVIL),
    Filter("context.environment", "exact", "staging"), Filter("context.environment", "is_not_set"),
    Filter("service", "is_not", "shop"), Filter("session_id", "is_set"), Filter("session_id", "in", ["s1"]),
    Filter("user_id", "exact", "00000000-0000-0000-0000-000000000003"), Filter("user_id", "is_not_set"),
    Filter("event_type", "contains", "order"),
]  # fmt: skip


async def compare_all(
    reader: AnalyticsReader, events: list[Event], variants: list[dict[str, Any]], *ranges: tuple[str, date, date]
) -> None:
    for variant in variants:
        for key, first, last in ranges:
            zone = ZoneInfo(key)
            start, end = (datetime.combine(day, time.min, zone).astimezone(UTC) for day in (first, last + DAY))
            arguments = {"start": first, "end": last, "timezone": key}
            asked = Asked(start, end, zone, end, environment=variant.get("environment"))
            await compare(reader, "query_trends", events, {"series": TYPES} | variant | arguments, asked)


def recent(days: int) -> tuple[date, date]:
    today = datetime.now(UTC).date()
    return today - days * DAY, today


async def some_orders(database: Database, number: int = 400, seed: int = 1) -> list[Event]:
    """Insert events of the last 20 days."""
    now = datetime.now(UTC)
    events = order_events(Random(seed), number, now - 20 * DAY, now - timedelta(seconds=1))
    await insert(await database.connect(), events)
    return events


async def test_aggregates_answer_in_whatever_state_they_are(database: Database, reader: AnalyticsReader) -> None:
    connection = await database.connect()
    events = await some_orders(database)
    ranges = [("UTC", *recent(9)), ("Asia/Kathmandu", *recent(4))]
    await compare_all(reader, events, ANSWERED_BY_AGGREGATES, ranges[0])

    await refresh(connection)
    await compare_all(reader, events, ANSWERED_BY_AGGREGATES, *ranges)

    now = datetime.now(UTC)
    late = order_events(Random(2), 100, now - 20 * DAY, now)
    await insert(connection, late)
    await keep_fresh(connection, database)
    await compare_all(reader, events + late, ANSWERED_BY_AGGREGATES, *ranges)


async def test_raw_rows_answer_everything_else(database: Database, reader: AnalyticsReader) -> None:
    events = await some_orders(database)
    await compare_all(reader, events, ANSWERED_BY_RAW_ROWS, ("UTC", *recent(9)), ("Asia/Kathmandu", *recent(5)))


async def test_every_filter_is_what_it_says(database: Database, reader: AnalyticsReader) -> None:
    events = await some_orders(database)
    alone = [[Step("order_placed", [one], name=f"step {number}")] for number, one in enumerate(FILTERS)]
    together = [Step("order_placed", random.sample(FILTERS, 2)) for random in map(Random, range(20))]
    for series in (*alone, together):
        await compare_all(reader, events, [{"series": series, "interval": "week"}], ("UTC", *recent(12)))
    assert await (await database.connect()).fetchval("SELECT count(*) FROM analytics_events") == len(events)


@pytest.mark.parametrize(("key", "first", "last"), [
    ("Europe/Berlin", date(2026, 10, 24), date(2026, 10, 26)),
    ("Europe/Berlin", date(2026, 3, 30), date(2026, 3, 31)),
    ("UTC", date(2026, 12, 23), date(2027, 1, 7)),
    ("Asia/Kathmandu", date(2026, 12, 30), date(2027, 1, 4)),
])  # fmt: skip
async def test_buckets_are_local_when_clocks_change_and_years_end(
    database: Database, reader: AnalyticsReader, key: str, first: date, last: date
) -> None:
    since = datetime.combine(first - 20 * DAY, time.min, UTC)
    events = order_events(Random(3), 300, since, datetime.combine(last + 2 * DAY, time.min, UTC))
    await insert(await database.connect(), events)
    variants = [
        {"math": math, "interval": interval, "compare": interval != "hour"}
        for math in ("total", "unique_users")
        for interval in ("hour", "day", "week", "month")
    ]
    await compare_all(reader, events, [*variants, {"math": "median", "property": AMOUNT}], (key, first, last))


async def test_a_range_that_is_cut_anywhere_is_compared_with_what_is_as_long(
    database: Database, reader: AnalyticsReader
) -> None:
    events = await some_orders(database)
    await refresh(await database.connect())
    end = datetime.now(UTC) - 3 * HOUR
    asked = Asked(end - 100 * HOUR, end, ZoneInfo("UTC"), end)
    for variant in ({}, {"math": "unique_users"}, {"breakdown": "data.plan"}, {"interval": "hour"}):
        arguments = {"series": TYPES, "compare": True, "start": asked.start, "end": asked.end} | variant
        await compare(reader, "query_trends", events, arguments, asked)


async def test_a_breakdown_adds_up_to_all_and_other_is_one_row(database: Database, reader: AnalyticsReader) -> None:
    events = await some_orders(database)
    assert any(e.data.get("plan") == "other" for e in events)
    whole = (await reader.query_trends(["order_placed"])).series[0]
    for limit in (1, 2, 25):
        rows = (await reader.query_trends(["order_placed"], breakdown="data.plan", limit=limit)).series
        assert [sum(numbers) for numbers in zip(*[row.data for row in rows], strict=True)] == whole.data
        assert sum(row.count or 0 for row in rows) == whole.count
        assert [row.breakdown_value for row in rows[-2:]] == ["other", None]
        assert len(rows) <= limit + 2


async def test_compare_only_adds_and_a_series_has_the_same_values_before(
    database: Database, reader: AnalyticsReader
) -> None:
    now = datetime.now(UTC)
    events = [
        order_events(Random(n), 1, now - days * DAY, now - days * DAY)[0]._replace(
            event_type="sold", data={"plan": plan}
        )
        for n, (days, plan) in enumerate([(1, "b"), (1, "b"), (1, "a"), (5, "a"), (5, "c"), (1, "c")])
    ]
    await insert(await database.connect(), events)
    asked: dict[str, Any] = {"breakdown": "data.plan", "limit": 2, "start": now.date() - 3 * DAY}
    alone = await reader.query_trends(["sold"], **asked)
    both = await reader.query_trends(["sold"], compare=True, **asked)
    assert both.series[: len(alone.series)] == alone.series
    assert [(row.label, row.breakdown_value, row.count) for row in both.series] == [
        ("sold", "b", 2), ("sold", "a", 1), ("sold", "other", 1),
        ("previous", "b", 0), ("previous", "a", 1), ("previous", "other", 1),
    ]  # fmt: skip
    assert all(len(row.data) == len(both.labels) == 4 for row in both.series)


async def test_numbers_may_be_negative_huge_or_none(database: Database, reader: AnalyticsReader) -> None:
    now = datetime.now(UTC)
    [event] = order_events(Random(1), 1, now, now)
    amounts: list[Any] = [-3, 1e200, -1e200, "7", None, [1], True]
    for number, amount in enumerate(amounts):
        at = now - timedelta(minutes=number)
        same = event._replace(id=order_events(Random(number), 1, now, now)[0].id, event_type="sold", timestamp=at)
        await insert(await database.connect(), [same._replace(data={"amount": amount})])

    async def asked(math: Any, event_type: str = "sold") -> Any:
        return (await reader.query_trends([event_type], math=math, property=AMOUNT)).series[0].count

    assert [await asked(math) for math in ("min", "median", "max")] == [-1e200, -3, 1e200]
    assert [await asked(math, "nothing") for math in ("sum", "avg", "p99")] == [None] * 3


async def test_aggregates_answer_beyond_the_retention_of_raw_rows(database: Database, reader: AnalyticsReader) -> None:
    connection = await database.connect()
    now = datetime.now(UTC)
    events = order_events(Random(4), 500, now - 40 * DAY, now - timedelta(seconds=1))
    events += random_events(Random(6), 100, now - 40 * DAY, now - timedelta(seconds=1))
    await insert(connection, events)
    await refresh(connection)
    await lose(connection, database, midnight(20))
    await refresh(connection)
    total: dict[str, Any] = {"compare": True}
    users: dict[str, Any] = {"math": "unique_users", "interval": "week", "compare": True}
    await compare_all(reader, events, [total, users], ("UTC", *recent(19)), ("UTC", *recent(35)))
    await compare_all(reader, events, [total], ("Asia/Kathmandu", *recent(18)))
    for refused in (
        {"breakdown": "data.plan"}, {"environment": "staging"}, {"math": "sum", "property": AMOUNT},
        {"series": [Step("order_placed", [Filter("data.plan", "is_set")])]},
        {"math": "unique_users", "timezone": "Europe/Berlin"}, {"math": "unique_users", "interval": "hour"},
    ):  # fmt: skip
        arguments: dict[str, Any] = {"series": TYPES, "start": recent(35)[0], **refused}
        with pytest.raises(InvalidQuery, match=r"^start: .* needs the raw rows, which are kept from"):
            await reader.query_trends(**arguments)
        assert await reader.query_trends(**{**arguments, "start": recent(15)[0]})


UNOPENED = AnalyticsReader.from_url("postgresql://localhost/none")


@pytest.mark.parametrize(("arguments", "field"), [
    ({"series": []}, "series"), ({"series": ["a"] * 21}, "series"), ({"series": "order_placed"}, "series"),
    ({"series": [""]}, "series"), ({"series": [{"event_type": "a", "filters": []}]}, "series"),
    ({"series": [Step("a", [Filter("amount", "is_set")])]}, "series"),
    ({"series": [Step("a", [Filter("data.", "is_set")])]}, "series"),
    ({"series": [Step("a", [Filter(AMOUNT, "greater_than", "5")])]}, "series"),
    ({"series": [Step("a", [Filter(AMOUNT, "between", [1])])]}, "series"),
    ({"series": [Step("a", [Filter(AMOUNT, "in", 5)])]}, "series"),
    ({"series": [{"event_type": "a", "where": [{"field": AMOUNT, "operator": "like", "value": "%"}]}]}, "series"),
    ({"interval": "minute"}, "interval"), ({"math": "mode"}, "math"), ({"math": "sum"}, "property"),
    ({"property": AMOUNT}, "property"), ({"math": "unique_users", "property": AMOUNT}, "property"),
    ({"math": "sum", "property": "amount"}, "property"), ({"math": "sum", "property": "user_id"}, "property"),
    ({"breakdown": "plan"}, "breakdown"), ({"breakdown": "id"}, "breakdown"), ({"breakdown": ""}, "breakdown"),
    ({"compare": "yes"}, "compare"), ({"limit": 0}, "limit"), ({"limit": 1001}, "limit"),
    ({"start": date(2020, 1, 1), "end": date(2022, 1, 1), "interval": "hour"}, "start"),
    ({"series": ["a"] * 20, "compare": True, "start": date(2026, 1, 1), "end": date(2026, 9, 10)}, "start"),
])  # fmt: skip
async def test_what_cannot_be_asked_is_refused_by_its_name(arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidQuery, match=f"^{field}: ") as caught:
        await UNOPENED.query_trends(**{"series": ["order_placed"], **arguments})
    assert caught.value.field == field


async def test_an_answer_is_never_cut(database: Database, reader: AnalyticsReader) -> None:
    now = datetime.now(UTC)
    events = order_events(Random(5), 300, now - 25 * DAY, now)
    events = [e._replace(event_type="sold", data={"number": n}) for n, e in enumerate(events)]
    await insert(await database.connect(), events)
    answer = await reader.query_trends(["sold"], breakdown="data.number", limit=290)
    assert len(plain(answer)[0]) == 291
    assert sum(row.count or 0 for row in answer.series) == 300
    with pytest.raises(InvalidQuery, match=r"^start: the answer has more than 10,000 points: narrow the range"):
        await reader.query_trends(["sold"], breakdown="data.number", limit=1000, start=now.date() - 40 * DAY)
