"""Metrics: their rows, what they add up to, and by hour, day, week and month."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec

from asgi_analytics.encoding.metric_record import MAX_TAGS
from asgi_analytics.errors import InvalidQuery
from asgi_analytics.reading.question import Tags, Text, question
from asgi_analytics.reading.ranges import DAY, HOUR, Moment, Step
from asgi_analytics.reading.source import Snapshot, Source
from asgi_analytics.reading.statements import Statements

SQL = Statements("metrics")

PeriodType = Literal["hourly", "daily", "weekly", "monthly"]
STEPS: dict[PeriodType, Step] = {"hourly": "hour", "daily": "day", "weekly": "week", "monthly": "month"}
TagNames = Annotated[list[Text], msgspec.Meta(max_length=MAX_TAGS)]


class MetricRow(msgspec.Struct, frozen=True):
    """What was recorded of one series in one interval."""

    id: UUID
    name: str
    metric_type: str
    """counter, gauge, histogram or timer."""
    value: float
    """The sum of a counter, the last of a gauge, the mean of the others."""
    timestamp: datetime
    """The end of the interval."""
    tags: dict[str, str | int | bool]
    unit: str | None
    service: str
    count: int
    """How many calls there were."""
    sum: float
    min: float
    max: float
    last: float


class MetricStats(msgspec.Struct, frozen=True):
    """What the values of a range add up to; null without any."""

    count: int
    """How many calls there were."""
    sum: float | None
    min: float | None
    max: float | None
    avg: float | None


class MetricAggregate(msgspec.Struct, frozen=True):
    """One metric in one period."""

    name: str
    period_start: datetime
    """The local hour, midnight, Monday or first of the month that it begins with."""
    period_type: str
    count: int
    """How many calls there were."""
    sum: float
    min: float
    max: float
    avg: float
    p50: float | None
    """Null for counters, as the other percentiles."""
    p90: float | None
    p99: float | None
    tags: dict[str, str | int | bool]
    """Those that ``group_by`` names, or all."""
    metric_type: str
    unit: str | None
    rate_per_second: float | None
    """Of a counter, its sum by the seconds of the period that are over and within the range; null for the others."""


@question("/metrics")
async def query_metrics(
    source: Source,
    *,
    name: Text | None = None,
    name_prefix: Text | None = None,
    tags: Tags | None = None,
    start: Moment | None = None,
    end: Moment | None = None,
    timezone: str | None = None,
    service: Text | None = None,
) -> list[MetricRow]:
    """List the rows of metrics, one per series and interval, oldest first.

    ``name`` or ``name_prefix`` choose the metrics; ``tags`` are what a row must have among its tags.
    """
    _refuse_both(name, name_prefix)
    found = source.range(start, end, timezone)

    def made(id: UUID, name: str, kind: str, value: float, timestamp: datetime, tags: str, *rest: Any) -> MetricRow:
        return MetricRow(id, name, kind, value, timestamp, msgspec.json.decode(tags), *rest)

    async with source.snapshot() as snapshot:
        await _require_rows(snapshot, [(found.start, found.end)], "a list of rows")
        return await snapshot.rows(
            made, SQL["rows"], found.start, found.end, name, name_prefix, _json(tags), service, snapshot.limit()
        )


@question("/metrics/stats")
async def metric_stats(
    source: Source,
    *,
    name: Text | None = None,
    name_prefix: Text | None = None,
    tags: Tags | None = None,
    start: Moment | None = None,
    end: Moment | None = None,
    timezone: str | None = None,
    service: Text | None = None,
) -> MetricStats:
    """Count the calls of metrics in the range, with the sum, the least, the greatest and the mean of their values."""
    _refuse_both(name, name_prefix)
    buckets = source.range(start, end, timezone).buckets(None)
    split = buckets.split(HOUR)
    async with source.snapshot() as snapshot:
        await _require_rows(snapshot, split.raw, "a part of an hour")
        return await snapshot.row(
            MetricStats, SQL["stats"], *split.around(buckets.split(DAY)), name, name_prefix, _json(tags), service
        )


@question("/metrics/aggregates", approximates=True)
async def query_metric_aggregates(
    source: Source,
    *,
    name: Text | None = None,
    name_prefix: Text | None = None,
    period_type: PeriodType = "hourly",
    tags: Tags | None = None,
    group_by: TagNames | None = None,
    start: Moment | None = None,
    end: Moment | None = None,
    timezone: str | None = None,
    service: Text | None = None,
) -> list[MetricAggregate]:
    """Describe metrics by hour, day, week or month and by their tags, oldest first; percentiles are within 2 %.

    ``group_by`` names the tags to tell apart, the others are merged; with none of them there is one row per metric and
    period. Without it there is one row per tags.
    """
    _refuse_both(name, name_prefix)
    now = source.now()
    buckets = source.range(start, end, timezone).buckets(STEPS[period_type])
    split = buckets.split(HOUR)
    edges = buckets.edges
    seconds = [
        ((min(now, until) if now > since else until) - since).total_seconds()
        for since, until in itertools.pairwise(edges)
    ]

    def made(bucket: int, name: str, kind: str, unit: str | None, tags: str, *values: Any) -> MetricAggregate:
        *described, rate = values
        described = [name, buckets.labels[bucket - 1], period_type, *described]
        return MetricAggregate(*[*described, msgspec.json.decode(tags), kind, unit, rate])

    async with source.snapshot() as snapshot:
        await _require_rows(snapshot, split.raw, "a time zone that is no whole hours from UTC, or a part of an hour,")
        return await snapshot.rows(
            made,
            SQL["aggregates"],
            *split.around(buckets.split(DAY)),
            name,
            name_prefix,
            _json(tags),
            service,
            edges,
            seconds,
            group_by,
            snapshot.limit(),
        )


def _refuse_both(name: str | None, name_prefix: str | None) -> None:
    if name is not None and name_prefix is not None:
        raise InvalidQuery("name_prefix", "must not be given together with name")


def _json(tags: dict[str, Any] | None) -> str | None:
    return None if tags is None else msgspec.json.encode(tags).decode()


async def _require_rows(snapshot: Snapshot, parts: Iterable[tuple[datetime, datetime]], why: str) -> None:
    """Raise `InvalidQuery` unless the rows of metrics of each part of a range are still kept."""
    for start, end in parts:
        [(kept_from, is_lost)] = await snapshot.records(SQL["lost_rows"], start, end)
        if is_lost:
            since = f"{kept_from:%Y-%m-%dT%H:%MZ}"
            raise InvalidQuery("start", f"{why} needs the rows of metrics, which are kept from {since} on")
