"""How the application's features are used. Durations are milliseconds.

A feature is an event type that the application tracks: not a page view, nor what is captured without its doing. Whether
it succeeded is told by the field ``success`` of its events, else by ``…_failed`` beside ``…_completed``.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from asgi_analytics.events.base import known_categories
from asgi_analytics.reading.question import Limit, Text, question
from asgi_analytics.reading.ranges import DAY, Buckets, Moment
from asgi_analytics.reading.source import Source
from asgi_analytics.reading.statements import Statements

SQL = Statements("features")
VIEWS = ("analytics_type_days", "analytics_service_type_days", "analytics_user_types_daily")

COMPLETED, FAILED = "_completed", "_failed"


class FeatureUsage(msgspec.Struct, frozen=True):
    """The use of one feature on one local day, or in a range."""

    feature_name: str
    date: datetime
    """Local midnight of the day; of a range its start."""
    usage_count: int
    unique_users: int
    avg_duration_ms: float | None
    """Of the events that have a ``duration_ms``."""
    success_rate: float | None
    """Null if nothing tells whether it succeeded."""


@question("/features")
async def get_feature_usage(
    source: Source,
    *,
    feature_name: Text | None = None,
    start: Moment | None = None,
    end: Moment | None = None,
    timezone: str | None = None,
    service: Text | None = None,
) -> list[FeatureUsage]:
    """Count the uses and the distinct users of each feature, or of one, by local day; oldest first.

    Days without a use have no row. Days of time zones other than UTC need the raw rows.
    """
    buckets = source.range(start, end, timezone).buckets("day")
    return await _usage(source, buckets, feature_name, service, by_day=True)


@question("/features/top")
async def top_features(
    source: Source,
    *,
    limit: Limit = 10,
    start: Moment | None = None,
    end: Moment | None = None,
    timezone: str | None = None,
    service: Text | None = None,
) -> list[FeatureUsage]:
    """Count the uses and the distinct users of each feature over the range, the most used first."""
    buckets = source.range(start, end, timezone).buckets(None)
    return await _usage(source, buckets, None, service, by_day=False, limit=limit)


async def _usage(
    source: Source,
    buckets: Buckets,
    name: str | None,
    service: str | None,
    *,
    by_day: bool,
    limit: int | None = None,
) -> list[FeatureUsage]:
    def made(feature_name: str, bucket: int, *counts: Any) -> FeatureUsage:
        return FeatureUsage(feature_name, buckets.labels[bucket - 1], *counts)

    async with source.snapshot() as snapshot:
        split = buckets.split(DAY, filled_until=await snapshot.filled_until(*VIEWS))
        await snapshot.require_parts(split)
        return await snapshot.rows(
            made,
            SQL["usage"],
            *split.bounds,
            buckets.edges,
            service,
            None if name is None else [name],
            None if name is None else _with_other_half(name),
            [known.removesuffix(FAILED) for known in known_categories() if known.endswith(FAILED)],
            by_day,
            snapshot.limit() if limit is None else snapshot.limit(limit),
        )


def _with_other_half(name: str) -> list[str]:
    """Return a type, and the one beside it that tells its success."""
    for suffix, other in ((COMPLETED, FAILED), (FAILED, COMPLETED)):
        if name.endswith(suffix):
            return [name, name.removesuffix(suffix) + other]
    return [name]
