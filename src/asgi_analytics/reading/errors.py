"""Application errors: by hour, by group, and one group with what happened."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec

from asgi_analytics.errors import InvalidQuery
from asgi_analytics.reading.question import Limit, Text, question
from asgi_analytics.reading.ranges import HOUR, Buckets, Moment
from asgi_analytics.reading.source import Source
from asgi_analytics.reading.statements import Statements

SQL = Statements("errors")
GROUP = "a group of errors"
ERROR = "application_error"


class ErrorSummary(msgspec.Struct, frozen=True):
    """The errors of one fingerprint in one hour of one service."""

    hour: datetime
    service: str
    error_type: str | None
    fingerprint: str | None
    error_count: int
    affected_users: int
    sample_error_message: str | None


class ErrorGroup(msgspec.Struct, frozen=True):
    """The errors of one fingerprint in a range; type, endpoint, service and ``handled`` are those of the newest."""

    fingerprint: str | None
    error_type: str | None
    sample_error_message: str | None
    endpoint: str | None
    service: str
    error_count: int
    affected_users: int
    first_seen_at: datetime
    """In the range, as the last."""
    last_seen_at: datetime
    handled: bool | None
    trend: list[int]
    """Errors per bucket of the range, oldest first."""


class Occurrence(msgspec.Struct, frozen=True):
    """One error of a group."""

    event_id: UUID
    timestamp: datetime
    service: str
    user_id: UUID | None
    error_message: str | None
    request_id: str | None
    trace_id: str | None


class ErrorDetails(ErrorGroup, frozen=True):
    """One group with its stack and its newest errors."""

    stack: list[dict[str, Any]]
    """Of the newest error: frames as ``{file, line, function}``, innermost first."""
    occurrences: list[Occurrence]
    """The newest 20."""


@question("/errors/hourly", bare=True)
async def get_error_summary(
    source: Source,
    *,
    start: Moment | None = None,
    end: Moment | None = None,
    timezone: str | None = None,
    service: Text | None = None,
) -> list[ErrorSummary]:
    """Count application errors by hour, service, type and fingerprint, with the users they met; oldest hour first."""
    hours = source.range(start, end, timezone).buckets("hour")
    split = hours.split(HOUR)
    async with source.snapshot() as snapshot:
        await snapshot.require_parts(split)
        return await snapshot.rows(
            ErrorSummary, SQL["summary"], *split.bounds, hours.edges, service, snapshot.limit(), buckets=hours
        )


@question("/errors")
async def list_error_groups(
    source: Source,
    *,
    limit: Limit = 100,
    bucket: Literal["hour", "day"] = "day",
    start: Moment | None = None,
    end: Moment | None = None,
    timezone: str | None = None,
    service: Text | None = None,
    environment: Text | None = None,
) -> list[ErrorGroup]:
    """Count application errors by fingerprint, with users, first and last time and a trend; the most frequent first.

    The trend counts them per hour or day, as ``bucket`` says.
    """
    buckets = source.range(start, end, timezone).buckets(bucket)
    async with source.snapshot() as snapshot:
        await snapshot.require_raw([(buckets.edges[0], buckets.edges[-1])], GROUP, [ERROR])
        return await snapshot.rows(
            lambda *row: _group(buckets, *row),
            SQL["groups"],
            buckets.edges,
            service,
            environment,
            None,
            snapshot.limit(limit),
        )


@question("/errors/{fingerprint}")
async def get_error_group(
    source: Source,
    fingerprint: Text,
    *,
    bucket: Literal["hour", "day"] = "day",
    start: Moment | None = None,
    end: Moment | None = None,
    timezone: str | None = None,
    service: Text | None = None,
    environment: Text | None = None,
) -> ErrorDetails:
    """Count the application errors of one fingerprint, with the stack of the newest and the newest 20 of them.

    Raises `InvalidQuery` for a fingerprint that no error of the range has.
    """
    buckets = source.range(start, end, timezone).buckets(bucket)
    async with source.snapshot() as snapshot:
        await snapshot.require_raw([(buckets.edges[0], buckets.edges[-1])], GROUP, [ERROR])
        found = await snapshot.records(SQL["groups"], buckets.edges, service, environment, fingerprint, 1)
        if not found:
            raise InvalidQuery("fingerprint", "no error of this range has it: use one that list_error_groups() returns")
        occurrences = await snapshot.rows(
            Occurrence, SQL["occurrences"], buckets.edges[0], buckets.edges[-1], fingerprint, service, environment
        )
    [row] = found
    group = msgspec.structs.asdict(_group(buckets, *row))
    return ErrorDetails(**group, stack=_frames(row[-1]), occurrences=occurrences)


def _group(buckets: Buckets, *row: Any) -> ErrorGroup:
    *fields, numbers, counts, _ = row
    trend = [0] * len(buckets.labels)
    for number, count in zip(numbers, counts, strict=True):
        trend[number - 1] = count
    fields.append(trend)
    return ErrorGroup(*fields)


def _frames(stack: str | None) -> list[dict[str, Any]]:
    """Return the frames of a stack; what was written by hand may be anything."""
    frames = None if stack is None else msgspec.json.decode(stack)
    return [frame for frame in frames if isinstance(frame, dict)] if isinstance(frames, list) else []
