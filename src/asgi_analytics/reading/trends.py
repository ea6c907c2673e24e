"""Trends: how often events happened, how many users they are of, and what their numbers are, by bucket."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from asgi_analytics.errors import InvalidQuery
from asgi_analytics.reading.question import Text, question
from asgi_analytics.reading.ranges import DAY, QUARTER, Buckets, Moment
from asgi_analytics.reading.source import MOST_ROWS, Snapshot, Source
from asgi_analytics.reading.statements import Dialect, Statement, Statements
from asgi_analytics.reading.steps import (
    MOST_STEPS,
    AnyStep,
    Parameters,
    Step,
    as_steps,
    condition,
    json_of,
    parameters_of,
    text_of,
)

SQL = Statements("trends")
TYPES = ("analytics_type_days", "analytics_service_type_days")
USERS = (*TYPES, "analytics_user_types_daily")

PREVIOUS, OTHER = "previous", "other"

Series = Annotated[Sequence[AnyStep], msgspec.Meta(min_length=1, max_length=MOST_STEPS)]
Math = Literal["total", "unique_users", "sum", "avg", "min", "max", "median", "p90", "p95", "p99"]
MostValues = Annotated[int, msgspec.Meta(ge=1, le=1000)]

COUNTS: tuple[Math, ...] = ("total", "unique_users")
"""What is zero where nothing happened."""
QUANTILES: dict[Math, float] = {"median": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
NUMBERS: tuple[Math, ...] = ("sum", "avg", "min", "max", *QUANTILES)
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
    interval: Literal["hour", "day", "week", "month"] = "day",
    *,
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
    periods = [buckets, period.previous_buckets(buckets)] if compare else [buckets]
    found: list[list[Trend]] = [[] for _ in periods]
    async with source.snapshot() as snapshot:
        counted = [await _from_aggregates(snapshot, steps, asked, one) for one in periods]
        for step in steps:
            lines: Lines | None = None
            for number, one in enumerate(periods):
                if _is_counted(step, asked):
                    lines = counted[number].get(step.event_type, {None: Line()})
                else:
                    lines = await _from_raw_rows(snapshot, step, asked, one, like=lines)
                found[number] += _trends(step, PREVIOUS if number else step.label, math, one, lines)
            _refuse_too_many(sum(map(len, found)), buckets)
    return Trends([trend for trends in found for trend in trends], list(buckets.labels))


def _is_counted(step: Step, asked: Asked) -> bool:
    """Tell whether aggregates know what is asked of a step."""
    return not (step.where or asked.property or asked.breakdown or asked.environment)


async def _from_aggregates(
    snapshot: Snapshot, steps: list[Step], asked: Asked, buckets: Buckets
) -> dict[str | None, Lines]:
    """Return what is found of each type of the steps that aggregates know: for all in one statement."""
    types = sorted({step.event_type for step in steps if _is_counted(step, asked)})
    if not types:
        return {}
    if asked.math == "total":
        split = buckets.split(QUARTER)
        await snapshot.require_parts(split)
        bounds = split.around(buckets.split(DAY, filled_until=await snapshot.filled_until(*TYPES)))
        return await _lines(snapshot, SQL["types"], buckets.edges, asked.service, types, *bounds)
    split = buckets.split(DAY, filled_until=await snapshot.filled_until(*USERS))
    await snapshot.require_parts(split)
    by_day = all(after - before <= DAY for before, after in itertools.pairwise(buckets.edges))
    return await _lines(snapshot, SQL["users"], buckets.edges, by_day, asked.service, types, *split.bounds)


async def _from_raw_rows(
    snapshot: Snapshot, step: Step, asked: Asked, buckets: Buckets, *, like: Lines | None
) -> Lines:
    """Return what is found of each value of a step, in the order of the answer.

    The values that are told apart are the most frequent ones, or those that this is to be ``like``, also where there is
    nothing of them.
    """
    start, end = buckets.edges[0], buckets.edges[-1]
    why = "a filter, a property, a breakdown or an environment"
    await snapshot.require_raw([(start, end)], why, [step.event_type])
    values = None if like is None else [value for value in like if value not in (None, OTHER)]
    parameters = parameters_of(
        snapshot.dialect, buckets.edges, asked.limit, values, asked.service, start, end, asked.environment
    )  # fmt: skip
    hits = _raw_rows(step, asked, parameters)
    blocks = SQL.blocks(parameters.dialect)
    computed = blocks["counted" if asked.math in COUNTS else "measured"]
    sql = f"{blocks['labelled'].format(hits=hits)} {computed.format(math=_math(asked.math, parameters.dialect))}"
    found = (await _lines(snapshot, sql, *parameters.values)).get(None, {})
    lines: Lines = {value: Line() for value in like or ([None] if asked.breakdown is None else [])} | found
    order: list[str | None] = list(lines)
    if like is None:
        order.sort(key=lambda value: (-lines[value].events, value or ""))
    return {value: lines[value] for value in sorted(order, key=lambda value: (value is None, value == OTHER))}


def _raw_rows(step: Step, asked: Asked, parameters: Parameters) -> str:
    """Return what reads the raw rows of a step. Raises `InvalidQuery` for a field or a filter that cannot be asked."""
    matches = condition("series", step, parameters)
    blocks = SQL.blocks(parameters.dialect)
    value = parameters.null("text") if asked.breakdown is None else text_of("breakdown", asked.breakdown, parameters)
    if asked.property is not None:
        found = json_of("property", asked.property, parameters)
        return blocks["numbers"].format(step=matches, value=value, property=found)
    user = "e.user_id" if asked.math == "unique_users" else parameters.null("uuid")
    return blocks["events"].format(step=matches, value=value, user=user)


def _math(math: Math, dialect: Dialect) -> str:
    """Return what computes it, of ``u`` for counts and of ``h`` for numbers."""
    match math:
        case "total":
            return "sum(u.events)" if dialect == "sqlite" else "sum(u.events)::bigint"
        case "unique_users":
            return "count(u.user_id)"
        case "avg":
            return "sum(h.number) / nullif(count(h.number), 0)"  # avg() sums up squares, too, which may overflow
        case "sum" | "min" | "max":
            return f"{math}(h.number)"
    if dialect == "sqlite":
        return f"analytics_quantile(h.number, {QUANTILES[math]})"
    return f"percentile_cont({QUANTILES[math]}) WITHIN GROUP (ORDER BY h.number)"


async def _lines(snapshot: Snapshot, sql: Statement | str, *parameters: Any) -> dict[str | None, Lines]:
    """Return what a statement finds of each type and value; the type is None where there is one step only."""
    rows = await snapshot.records(sql, *parameters)
    if len(rows) > 2 * MOST_ROWS:  # each value has a row for each bucket, and one more
        raise _too_many()
    found: dict[str | None, Lines] = {}
    for event_type, value, bucket, events, number in rows:
        line = found.setdefault(event_type, {}).setdefault(value, Line())
        if bucket is None:
            line.events, line.whole = events, number
        else:
            line.by_bucket[bucket] = number
    return found


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
