"""How often each type of event happened, by hour, day or week."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from asgi_analytics.reading.categories import CategoryName, category_of, stored_categories, types_of
from asgi_analytics.reading.question import Text, question
from asgi_analytics.reading.ranges import DAY, Moment, Step, local
from asgi_analytics.reading.source import Source, refuse_too_many
from asgi_analytics.reading.statements import Statements

SQL = Statements("aggregations")

VIEWS = ("analytics_type_days", "analytics_service_type_days", "analytics_user_types_daily", "analytics_user_days")

STEPS: dict[str, Step] = {"hourly": "hour", "daily": "day", "weekly": "week"}


class Metrics(msgspec.Struct, frozen=True):
    """What is counted of one type in one bucket."""

    count: int
    unique_users: int


class Aggregation(msgspec.Struct, frozen=True):
    """The events of one type in one bucket."""

    time_bucket: datetime
    """The local hour, midnight or Monday."""
    event_category: str
    event_type: str
    metrics: Metrics


class TimeRange(msgspec.Struct, frozen=True):
    """From ``start`` up to but without ``end``."""

    start: datetime
    end: datetime


class Aggregations(msgspec.Struct, frozen=True):
    """The events of a range."""

    aggregations: list[Aggregation]
    """Oldest bucket first."""
    total_events: int
    unique_users: int
    """Distinct over the range, so not the sum of the buckets."""
    time_range: TimeRange


@question("/aggregations")
async def query_aggregations(
    source: Source,
    *,
    aggregation_type: Literal["hourly", "daily", "weekly"] = "daily",
    event_category: CategoryName | None = None,
    event_type: Text | None = None,
    start: Moment | None = None,
    end: Moment | None = None,
    timezone: str | None = None,
    service: Text | None = None,
) -> Aggregations:
    """Count the events and the distinct users of each type in each local hour, day or week; oldest first.

    Hours, and days of time zones other than UTC, need the raw rows.
    """
    asked = source.range(start, end, timezone)
    buckets = asked.buckets(STEPS[aggregation_type])
    async with source.snapshot() as snapshot:
        known = await stored_categories(snapshot)
        only, but = types_of(
            None if event_category is None else [event_category], None if event_type is None else [event_type], known
        )
        split = buckets.split(DAY, filled_until=await snapshot.filled_until(*VIEWS))
        await snapshot.require_parts(split)
        # The last row is that of all: the one without a bucket and a type.
        *rows, (_, _, total_events, unique_users) = await snapshot.records(
            SQL["types"],
            *split.bounds,
            buckets.edges,
            only,
            but,
            service,
            aggregation_type == "daily",
        )
    refuse_too_many(rows)
    return Aggregations(
        aggregations=[
            Aggregation(buckets.labels[bucket - 1], category_of(name, known), name, Metrics(events, users))
            for bucket, name, events, users in rows
        ],
        total_events=total_events,
        unique_users=unique_users,
        time_range=TimeRange(local(asked.start, asked.zone), local(asked.end, asked.zone)),
    )
