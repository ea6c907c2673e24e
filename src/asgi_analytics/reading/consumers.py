"""Who calls the API. Durations are milliseconds."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec

from asgi_analytics.reading.question import Limit, Text, question
from asgi_analytics.reading.ranges import DAY, Moment
from asgi_analytics.reading.source import Source
from asgi_analytics.reading.statements import Statements

SQL = Statements("consumers")


class ApiConsumer(msgspec.Struct, frozen=True):
    """The requests of one user in a range."""

    user_id: UUID
    request_count: int
    error_4xx_count: int
    error_5xx_count: int
    p95_duration_ms: float | None
    first_seen_at: datetime
    """In the range, as the last."""
    last_seen_at: datetime


@question("/api/consumers")
async def get_api_consumers(
    source: Source,
    *,
    limit: Limit = 100,
    start: Moment | None = None,
    end: Moment | None = None,
    timezone: str | None = None,
    service: Text | None = None,
) -> list[ApiConsumer]:
    """Count the requests of each known user in the range, with their errors and durations; the most requests first.

    Percentiles are exact.
    """
    buckets = source.range(start, end, timezone).buckets(None)
    async with source.snapshot() as snapshot:
        split = buckets.split(DAY, filled_until=await snapshot.filled_until("analytics_consumer_days"))
        await snapshot.require_parts(split)
        return await snapshot.rows(ApiConsumer, SQL["consumers"], *split.bounds, service, snapshot.limit(limit))
