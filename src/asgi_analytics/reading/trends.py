"""Trends: how often events happened, how many users they are of, and what their numbers are, by bucket."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Annotated, Literal

import msgspec

from asgi_analytics.database.blocks import load
from asgi_analytics.errors import InvalidQuery
from asgi_analytics.reading.question import Text, question
from asgi_analytics.reading.ranges import DAY, QUARTER, Buckets, Moment
from asgi_analytics.reading.source import MOST_ROWS, Snapshot, Source
from asgi_analytics.reading.steps import MOST_STEPS, AnyStep, Parameters, Step, as_steps, condition, number_of, text_of

SQL = load(__package__, "trends.sql")
TYPES = ("analytics_type_days", "analytics_service_type_days")
USERS = "analytics_user_types_daily"

PREVIOUS, OTHER = "previous", "other"

Series = Annotated[list[AnyStep], msgspec.Meta(min_length=1, max_length=MOST_STEPS)]
Math = Literal["total", "unique_users", "sum", "avg", "min", "max", "median", "p90", "p95", "p99"]
MostValues = Annotated[int, msgspec.Meta(ge=1, le=1000)]

COUNTS: dict[Math, str] = {"total": "sum(h.events)::bigint", "unique_users": "count(DISTINCT h.user_id)"}
"""What is zero where nothing happened."""
NUMBERS: dict[Math, str] = {
    "sum": "sum(h.number)",
    "avg": "sum(h.number) / nullif(count(h.number), 0)",  # avg() sums up squares, too, which may overflow
    "min": "min(h.number)",
    "max": "max(h.number)",
    "median": "percentile_cont(0.5) WITHIN GROUP (ORDER BY h.number)",
    "p90": "percentile_cont(0.9) WITHIN GROUP (ORDER BY h.number)",
    "p95": "percentile_cont(0.95) WITHIN GROUP (ORDER BY h.number)",
    "p99": "percentile_cont(0.99) WITHIN GROUP (ORDER BY h.number)",
}
"""What is computed of a property, and null where it was not measured."""


class Trend(msgspec.Struct, frozen=True):
    """One line of a chart: the events of a step, or those with one value."""

    event: str
    """The type of the step."""
    label: str
    """The name of the step, else its type; ``previous`` for the period before."""
    data: list[float | None]
    """One number per bucket. Where nothing happened it is 0 for ``total`` and ``unique_users``, else null."""
    breakdown_value: str | None
    """``other`` stands for all values beyond the limit, null for events without one."""
    count: float | None
    """The same over the whole range: its distinct users or its average, for instance, not those of the buckets."""


class Trends(msgspec.Struct, frozen=True):
    """The lines of a chart."""

    series: list[Trend]
    """In the order of the steps, of each the most frequent value first; then, in the same order, those before."""
    labels: list[datetime]
    """The local hour, midnight, Monday or first of the month of every bucket of the range."""


class Asked(msgspec.Struct, frozen=True):
    """What is asked of each step."""

    math: Math
    property: str | None
    breakdown: str | None
    limit: int
    service: str | None
    environment: str | None


class Line(msgspec.Struct):
    """What was found of one value of a step."""

    events: int = 0
    whole: float | None = None
    by_bucket: dict[int, float | None] = {}


Lines = dict[str | None, Line]
"""By the value."""


@question("/trends")
async def query_trends(
    source: Source,
    series: Series,
    *,
    interval: Literal["hour", "day", "week", "month"] = "day",
    math: Math = "total",
    property: Text | None = None,
    breakdown: Text | None = None,
    compare: bool = False,
    limit: MostValues = 25,
    start: Moment | None = None,
    end: Moment | None = None,
    timezone: str | None = None,
    service: Text | None = None,
    environment: Text | None = None,
) -> Trends:
    """Count the events of each step, their distinct users, or what a property of theirs amounts to, by local bucket.

    ``math`` other than ``total`` and ``unique_users`` is of the ``property`` of those events whose value is a number.
    ``breakdown`` names a field: each step has a series for each of the ``limit`` most frequent values, one for all
    ``other`` values, and one for events without. ``compare`` adds the series of the period before: as many local days
    if the range is made of whole ones, else as long.

    Filters, a property, a breakdown and an environment need the raw rows, and so do distinct users in buckets that are
    not made of whole days of UTC. Raises `InvalidQuery` for more than 10,000 points.
    """
    if (math in NUMBERS) != (property is not None):
        numbers = ", ".join(NUMBERS)
        raise InvalidQuery("property", f"must be named for {numbers}, and for these only: what they are computed of")
    asked = Asked(math, property, breakdown, limit, service, environment)
    steps = as_steps(series)
    for step in steps:
        _raw_rows(step, asked, Parameters())  # refuses what cannot be asked
    period = source.range(start, end, timezone)
    buckets = period.buckets(interval)
    if breakdown is None:
        _refuse_too_many(len(steps) * (1 + compare), buckets)
    now: list[Trend] = []
    then: list[Trend] = []
    async with source.snapshot() as snapshot:
        for step in steps:
            lines = await _read(snapshot, step, asked, buckets)
            now += _trends(step, step.label, math, buckets, lines)
            if compare:
                lines = await _read(snapshot, step, asked, period.previous_buckets(buckets), like=lines)
                then += _trends(step, PREVIOUS, math, buckets, lines)
            _refuse_too_many(len(now) + len(then), buckets)
    return Trends(now + then, list(buckets.labels))


async def _read(
    snapshot: Snapshot, step: Step, asked: Asked, buckets: Buckets, like: Collection[str | None] | None = None
) -> Lines:
    """Return what is found of each value of a step, in the order of the answer.

    The values that are told apart are the most frequent ones, or those that this is to be ``like``, also where there is
    nothing of them.
    """
    values = None if like is None else [value for value in like if value not in (None, OTHER)]
    parameters = Parameters(buckets.edges, asked.limit, values, asked.service)
    if step.where or asked.property or asked.breakdown or asked.environment:
        hits = await _from_raw_rows(snapshot, step, asked, buckets, parameters)
    elif asked.math == "total":
        hits = await _from_types(snapshot, step, buckets, parameters)
    else:
        hits = await _from_users(snapshot, step, buckets, parameters)
    sql = SQL["trend"].format(hits=hits, math=(COUNTS | NUMBERS)[asked.math])
    rows = await snapshot.records(sql, *parameters.values)
    if len(rows) > 2 * MOST_ROWS:  # each value has a row for each bucket, and one more
        raise _too_many()
    lines: Lines = {value: Line() for value in like or ()}
    if asked.breakdown is None:
        lines[None] = Line()
    for value, bucket, events, number in rows:
        line = lines.setdefault(value, Line())
        if bucket is None:
            line.events, line.whole = events, number
        else:
            line.by_bucket[bucket] = number
    order: list[str | None] = list(lines)
    if like is None:
        order.sort(key=lambda value: (-lines[value].events, value or ""))
    return {value: lines[value] for value in sorted(order, key=lambda value: (value is None, value == OTHER))}


async def _from_raw_rows(snapshot: Snapshot, step: Step, asked: Asked, buckets: Buckets, parameters: Parameters) -> str:
    start, end = buckets.edges[0], buckets.edges[-1]
    await snapshot.require_raw([(start, end)], "a filter, a property, a breakdown or an environment")
    parameters.values += [start, end, asked.environment]
    return _raw_rows(step, asked, parameters)


def _raw_rows(step: Step, asked: Asked, parameters: Parameters) -> str:
    """Return what reads the raw rows of a step. Raises `InvalidQuery` for a field or a filter that cannot be asked."""
    matches = condition("series", step, parameters)
    value = "NULL::text" if asked.breakdown is None else text_of("breakdown", asked.breakdown, parameters)
    if asked.property is not None:
        number = number_of("property", asked.property, parameters)
        return SQL["numbers"].format(step=matches, value=value, number=number)
    user = "e.user_id" if asked.math == "unique_users" else "NULL::uuid"
    return SQL["events"].format(step=matches, value=value, user=user)


async def _from_types(snapshot: Snapshot, step: Step, buckets: Buckets, parameters: Parameters) -> str:
    split = buckets.split(QUARTER)
    await snapshot.require_parts(split)
    days = buckets.split(DAY, filled_until=await snapshot.filled_until(*TYPES))
    parameters.values += [step.event_type, *split.around(days)]
    return SQL["types"]


async def _from_users(snapshot: Snapshot, step: Step, buckets: Buckets, parameters: Parameters) -> str:
    split = buckets.split(DAY, filled_until=await snapshot.filled_until(USERS))
    await snapshot.require_parts(split)
    parameters.values += [step.event_type, *split.bounds]
    return SQL["users"]


def _trends(step: Step, label: str, math: Math, buckets: Buckets, lines: Lines) -> list[Trend]:
    empty = 0 if math in COUNTS else None
    numbers = range(1, len(buckets.labels) + 1)
    return [
        Trend(
            event=step.event_type,
            label=label,
            data=[line.by_bucket.get(number, empty) for number in numbers],
            breakdown_value=value,
            count=empty if line.whole is None else line.whole,
        )
        for value, line in lines.items()
    ]


def _refuse_too_many(series: int, buckets: Buckets) -> None:
    if series * len(buckets.labels) > MOST_ROWS:
        raise _too_many()


def _too_many() -> InvalidQuery:
    return InvalidQuery(
        "start",
        f"the answer has more than {MOST_ROWS:,} points: narrow the range, or use a longer interval or a lower limit",
    )
