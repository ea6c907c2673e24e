"""The application's own queries: what is slow, and what is repeated within one request. Durations are milliseconds."""

from __future__ import annotations

import msgspec

from asgi_analytics.reading.question import Limit, Text, question
from asgi_analytics.reading.ranges import DAY, HOUR, Moment
from asgi_analytics.reading.source import Source
from asgi_analytics.reading.statements import Statements

SQL = Statements("queries")


class SlowQuery(msgspec.Struct, frozen=True):
    """The calls of one statement in a range."""

    fingerprint: str | None
    query_type: str | None
    table: str | None
    statement: str | None
    call_count: int
    total_duration_ms: float
    avg_duration_ms: float | None
    p95_duration_ms: float | None
    error_count: int
    endpoints: list[str]
    """Whose requests made them, in alphabetical order."""


class RepeatedQuery(msgspec.Struct, frozen=True):
    """How many queries the requests to one endpoint make: to repeat a statement many times is an N+1 problem."""

    endpoint: str | None
    method: str | None
    request_count: int
    avg_db_queries: float | None
    """Per request that tells how many it made."""
    max_db_repeats: int | None
    """The most repeats of one statement in one request."""


@question("/queries/slow", approximates=True)
async def list_slow_queries(
    source: Source,
    *,
    endpoint: Text | None = None,
    limit: Limit = 100,
    start: Moment | None = None,
    end: Moment | None = None,
    timezone: str | None = None,
    service: Text | None = None,
    environment: Text | None = None,
) -> list[SlowQuery]:
    """List the captured queries by fingerprint, with calls, durations and errors, the greatest total duration first.

    Percentiles come from a histogram and are within 2 %. Type, table and statement are those of the newest call, or
    null if its raw row is gone.
    """
    buckets = source.range(start, end, timezone).buckets(None)
    view = "analytics_statement_days" if endpoint is None else "analytics_query_days"
    async with source.snapshot() as snapshot:
        split = buckets.split(DAY, filled_until=await snapshot.filled_until(view))
        await snapshot.require_parts(split)
        return await snapshot.rows(
            SlowQuery, SQL["slow"], *split.bounds, service, environment, endpoint, snapshot.limit(limit)
        )


@question("/queries/repeated")
async def list_repeated_queries(
    source: Source,
    *,
    limit: Limit = 100,
    start: Moment | None = None,
    end: Moment | None = None,
    timezone: str | None = None,
    service: Text | None = None,
    environment: Text | None = None,
) -> list[RepeatedQuery]:
    """List the endpoints whose requests query the database, by the most repeats of one statement in one request."""
    buckets = source.range(start, end, timezone).buckets(None)
    split = buckets.split(HOUR)
    async with source.snapshot() as snapshot:
        await snapshot.require_parts(split)
        filled_until = await snapshot.filled_until("analytics_endpoint_days")
        # Which do not know the environment.
        days = buckets.split(DAY, known=environment is None, filled_until=filled_until)
        return await snapshot.rows(
            RepeatedQuery, SQL["repeated"], *split.around(days), service, environment, snapshot.limit(limit)
        )
