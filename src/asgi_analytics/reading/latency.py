"""How fast endpoints answer. Durations are milliseconds, rates fractions from 0 to 1."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec

from asgi_analytics.reading.question import Limit, Text, question
from asgi_analytics.reading.ranges import DAY, HOUR, Moment
from asgi_analytics.reading.source import Source
from asgi_analytics.reading.statements import Statements

SQL = Statements("latency")

Milliseconds = Annotated[float, msgspec.Meta(ge=0.001, le=86_400_000)]
Requests = Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)]


class EndpointLatency(msgspec.Struct, frozen=True):
    """The requests to one endpoint in one hour, day, or range."""

    hour: datetime
    """When the hour, the day or the range begins."""
    service: str
    endpoint: str | None
    method: str | None
    request_count: int
    avg_duration_ms: float | None
    p50_duration_ms: float | None
    p95_duration_ms: float | None
    p99_duration_ms: float | None
    error_4xx_count: int
    error_5xx_count: int
    error_rate: float | None
    """error_5xx_count / request_count."""


class SlowEndpoint(EndpointLatency, frozen=True):
    """The requests to one endpoint in a range."""

    total_duration_ms: float
    """Of all its requests together: what it costs."""


class LatencyBucket(msgspec.Struct, frozen=True):
    """The requests of one local hour, day, week or month, or of a range, to all endpoints or to one."""

    bucket: datetime
    request_count: int
    avg_duration_ms: float | None
    p50_duration_ms: float | None
    p95_duration_ms: float | None
    p99_duration_ms: float | None
    error_4xx_count: int
    error_5xx_count: int
    error_rate: float | None
    """error_5xx_count / request_count."""


class Apdex(msgspec.Struct, frozen=True):
    """How satisfied the callers of one endpoint are."""

    endpoint: str | None
    method: str | None
    apdex: float
    """(satisfied + tolerating / 2) / all."""


def _is_approximate(bucket: str = "hour", **_: object) -> bool:
    return bucket != "hour"


@question("/api/latency", bare=True, approximates=_is_approximate)
async def get_endpoint_latency(
    source: Source,
    *,
    bucket: Literal["hour", "day", "all"] = "hour",
    start: Moment | None = None,
    end: Moment | None = None,
    timezone: str | None = None,
    service: Text | None = None,
) -> list[EndpointLatency]:
    """Count the requests to each endpoint in each hour, day or the range, with durations and errors; newest first.

    Percentiles of hours, and of whole days of UTC, are exact; others come from a histogram and are within 2 %.
    """
    asked = source.range(start, end, timezone)
    buckets = asked.buckets(None if bucket == "all" else bucket)
    split = buckets.split(HOUR)
    async with source.snapshot() as snapshot:
        await snapshot.require_parts(split)
        if bucket == "hour":
            return await snapshot.rows(
                EndpointLatency,
                SQL["hourly"],
                *split.bounds,
                buckets.edges,
                service,
                snapshot.limit(),
                buckets=buckets,
            )
        days = buckets.split(DAY, filled_until=await snapshot.filled_until("analytics_endpoint_days"))
        return await snapshot.rows(
            lambda *row: EndpointLatency(*row[:-1]),  # without the total duration
            SQL["merged"],
            *split.around(days),
            buckets.edges,
            service,
            1,
            False,
            bucket == "day",
            snapshot.limit(),
            buckets=buckets,
        )


@question("/api/latency/series", approximates=True)
async def get_latency_series(
    source: Source,
    *,
    bucket: Literal["hour", "day", "week", "month", "all"] = "day",
    endpoint: Text | None = None,
    method: Text | None = None,
    start: Moment | None = None,
    end: Moment | None = None,
    timezone: str | None = None,
    service: Text | None = None,
) -> list[LatencyBucket]:
    """Count the requests to all endpoints together in each local hour, day, week or month, with durations and errors.

    ``endpoint`` and ``method`` leave those of one; ``all`` makes the range one bucket. Every bucket of the range has a
    row, oldest first. Percentiles are of all requests of a bucket: they come from the sum of the histograms of its
    endpoints, and are within 2 %.
    """
    buckets = source.range(start, end, timezone).buckets(None if bucket == "all" else bucket)
    split = buckets.split(HOUR)
    async with source.snapshot() as snapshot:
        await snapshot.require_parts(split)
        days = buckets.split(DAY, filled_until=await snapshot.filled_until("analytics_endpoint_days"))
        return await snapshot.rows(
            LatencyBucket,
            SQL["series"],
            *split.around(days),
            buckets.edges,
            service,
            endpoint,
            method,
            snapshot.limit(),
            buckets=buckets,
        )


@question("/api/slowest", bare=True, approximates=True)
async def get_slowest_endpoints(
    source: Source,
    *,
    limit: Limit = 10,
    min_requests: Requests = 20,
    start: Moment | None = None,
    end: Moment | None = None,
    timezone: str | None = None,
    service: Text | None = None,
) -> list[SlowEndpoint]:
    """List endpoints with at least ``min_requests`` requests by the 99th percentile of their durations, slowest first.

    The percentile is of the whole range, by default the last 24 whole hours and the current one, and within 2 %.
    """
    buckets = source.range_of_hours(start, end, timezone).buckets(None)
    split = buckets.split(HOUR)
    async with source.snapshot() as snapshot:
        await snapshot.require_parts(split)
        days = buckets.split(DAY, filled_until=await snapshot.filled_until("analytics_endpoint_days"))
        return await snapshot.rows(
            SlowEndpoint,
            SQL["merged"],
            *split.around(days),
            buckets.edges,
            service,
            min_requests,
            True,
            False,
            snapshot.limit(limit),
            buckets=buckets,
        )


@question("/api/apdex", approximates=True)
async def get_apdex(
    source: Source,
    *,
    threshold_ms: Milliseconds = 500,
    start: Moment | None = None,
    end: Moment | None = None,
    timezone: str | None = None,
    service: Text | None = None,
) -> list[Apdex]:
    """Rate each endpoint from 0 to 1 by the requests within ``threshold_ms``, and half of those within 4 times of it.

    Requests answered with 500 or above count as frustrated, however fast. Durations are those of the histogram, so a
    request within 2 % of a threshold may be on its other side. The worst endpoint comes first.
    """
    buckets = source.range(start, end, timezone).buckets(None)
    split = buckets.split(HOUR)
    async with source.snapshot() as snapshot:
        await snapshot.require_parts(split)
        days = buckets.split(DAY, filled_until=await snapshot.filled_until("analytics_endpoint_days"))
        return await snapshot.rows(Apdex, SQL["apdex"], *split.around(days), service, threshold_ms, snapshot.limit())
