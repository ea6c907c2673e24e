"""Sessions: what people did in one go, ended by more than 30 minutes of silence. Durations are milliseconds.

A session belongs to the service and the environment of its first event.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec

from asgi_analytics.encoding.users import user_uuid
from asgi_analytics.errors import InvalidQuery
from asgi_analytics.events.base import EnrichedEvent
from asgi_analytics.reading.events import PageSize, event_of
from asgi_analytics.reading.question import Text, User, question
from asgi_analytics.reading.ranges import HALF_HOUR, MICROSECOND, Moment
from asgi_analytics.reading.source import MOST_ROWS, Snapshot, Source
from asgi_analytics.reading.statements import Statements

SQL = Statements("sessions")

Value = Literal[
    "landing_page", "exit_page", "referrer", "channel", "utm_source", "utm_medium", "utm_campaign", "browser", "os",
    "device_type", "country",
]  # fmt: skip
MostValues = Annotated[int, msgspec.Meta(ge=1, le=1000)]


class Session(msgspec.Struct, frozen=True):
    """One visit. What it came from is that of its first page view, null for one without page views."""

    id: str
    """The ``session_id`` that the application gave, else one that is made of the visitor and the start."""
    user_id: UUID | None
    """The last one that is known in it, as the visitor."""
    visitor: str | None
    started_at: datetime
    ended_at: datetime
    """Of the last event, or the last that was heard of a page that is looked at."""
    duration_ms: float
    event_count: int
    """Page views and tracked events."""
    page_views: int
    device_type: str | None
    browser: str | None
    os: str | None
    country: str | None
    city: str | None
    referrer: str | None
    """The host that it came from."""
    channel: str | None
    utm_source: str | None
    utm_medium: str | None
    utm_campaign: str | None
    landing_page: str | None
    exit_page: str | None
    is_bounce: bool | None
    """One page view, no other event, and looked at for less than 10 seconds; null without page views."""


class Sessions(msgspec.Struct, frozen=True):
    """One page of sessions."""

    sessions: list[Session]
    total: int | None
    """Of all pages: exact up to 10,000, null beyond."""
    limit: int
    has_more: bool
    next: str | None
    """The ``cursor`` of the next page; null on the last one."""


class SessionDetails(Session, frozen=True):
    """One visit with what happened in it."""

    events: list[EnrichedEvent] | None
    """Oldest first: its events, and the requests, queries and errors within it; null if raw rows are gone."""


class SessionSummary(msgspec.Struct, frozen=True):
    """The sessions that began in a range."""

    sessions: int
    visitors: int
    """Distinct users, and visitors who are not known as one."""
    page_views: int
    bounce_rate: float | None
    """Of the sessions that have a page view."""
    avg_duration_ms: float | None
    median_duration_ms: float | None
    page_views_per_session: float | None


class SessionBucket(msgspec.Struct, frozen=True):
    """The sessions of one local hour, day, week or month."""

    bucket: datetime
    active_sessions: int
    """Those with an event in it, so that one over midnight counts on both days."""
    visitors: int
    page_views: int


class SessionShare(msgspec.Struct, frozen=True):
    """The sessions of one value."""

    value: str | None
    """``other`` stands for all values beyond the limit, null for sessions without one."""
    sessions: int
    visitors: int
    bounce_rate: float | None
    """Of the sessions that have a page view."""
    avg_duration_ms: float


@question("/sessions")
async def query_sessions(
    source: Source,
    *,
    user_id: User | None = None,
    visitor: Text | None = None,
    landing_page: Text | None = None,
    exit_page: Text | None = None,
    referrer: Text | None = None,
    channel: Text | None = None,
    utm_source: Text | None = None,
    utm_medium: Text | None = None,
    utm_campaign: Text | None = None,
    device_type: Text | None = None,
    browser: Text | None = None,
    os: Text | None = None,
    country: Text | None = None,
    is_bounce: bool | None = None,
    limit: PageSize = 50,
    cursor: Text | None = None,
    start: Moment | None = None,
    end: Moment | None = None,
    timezone: str | None = None,
    service: Text | None = None,
    environment: Text | None = None,
) -> Sessions:
    """List the sessions that began in the range and match all filters, newest first.

    A page follows the one whose ``next`` is given as its ``cursor``; nothing is shown twice or skipped while others
    begin.
    """
    asked = source.range(start, end, timezone)
    filters = (
        asked.start, asked.end, None if user_id is None else user_uuid(user_id)[0], visitor, landing_page, exit_page,
        referrer, channel, utm_source, utm_medium, utm_campaign, device_type, browser, os, country, is_bounce, service,
        environment,
    )  # fmt: skip
    after = (None, None) if cursor is None else _position(cursor)
    async with source.snapshot() as snapshot:
        rows = await snapshot.records(SQL["page"], *filters, *after, limit + 1)
        [(total,)] = await snapshot.records(SQL["total"], *filters)
    sessions = [Session(*row) for row in rows[:limit]]
    has_more = len(rows) > limit
    return Sessions(
        sessions=sessions,
        total=total if total <= MOST_ROWS else None,
        limit=limit,
        has_more=has_more,
        next=_cursor(sessions[-1]) if has_more else None,
    )


@question("/sessions/{id}")
async def get_session(source: Source, id: Text, *, service: Text | None = None) -> SessionDetails:
    """Return one session with its events, and the requests, queries and errors that were captured within it.

    Raises `InvalidQuery` for an id that no session has, and for a session of more than 10,000 events.
    """
    async with source.snapshot() as snapshot:
        found = await snapshot.records(SQL["session"], id, service)
        if not found:
            raise InvalidQuery("id", "no session has it: use one that query_sessions() returns")
        [(key, given, *columns)] = found
        session = Session(*columns)
        events = await _events(snapshot, session, key, given)
    return SessionDetails(**msgspec.structs.asdict(session), events=events)


async def _events(snapshot: Snapshot, session: Session, key: str, given: bool) -> list[EnrichedEvent] | None:
    try:
        await snapshot.require_raw([(session.started_at, session.ended_at + MICROSECOND)], "a session")
    except InvalidQuery:
        return None
    rows = await snapshot.records(
        SQL["events"], session.started_at, session.ended_at, key, given, session.user_id, MOST_ROWS + 1
    )
    if len(rows) > MOST_ROWS:
        raise InvalidQuery("id", f"the session has more than {MOST_ROWS:,} events: use query_events(), page by page")
    return [event_of(*row) for row in rows]


@question("/sessions/summary")
async def get_session_summary(
    source: Source,
    *,
    start: Moment | None = None,
    end: Moment | None = None,
    timezone: str | None = None,
    service: Text | None = None,
    environment: Text | None = None,
) -> SessionSummary:
    """Sum up the sessions that began in the range: their visitors, page views, bounces and durations."""
    asked = source.range(start, end, timezone)
    async with source.snapshot() as snapshot:
        return await snapshot.row(SessionSummary, SQL["summary"], asked.start, asked.end, service, environment)


@question("/sessions/series")
async def get_session_series(
    source: Source,
    *,
    bucket: Literal["hour", "day", "week", "month"] = "day",
    start: Moment | None = None,
    end: Moment | None = None,
    timezone: str | None = None,
    service: Text | None = None,
    environment: Text | None = None,
) -> list[SessionBucket]:
    """Count the sessions with an event in each local hour, day, week or month, their visitors and page views there.

    Every bucket of the range has a row, oldest first.
    """
    buckets = source.range(start, end, timezone).buckets(bucket)
    split = buckets.split(HALF_HOUR)
    async with source.snapshot() as snapshot:
        await snapshot.require_parts(split)
        [(filled_until,)] = await snapshot.records(SQL["filled_until"])
        return await snapshot.rows(
            SessionBucket,
            SQL["series"],
            *split.bounds,
            buckets.edges,
            service,
            environment,
            filled_until,
            snapshot.limit(),
            buckets=buckets,
        )


@question("/sessions/breakdown")
async def get_session_breakdown(
    source: Source,
    *,
    by: Value = "landing_page",
    limit: MostValues = 100,
    start: Moment | None = None,
    end: Moment | None = None,
    timezone: str | None = None,
    service: Text | None = None,
    environment: Text | None = None,
) -> list[SessionShare]:
    """Count the sessions that began in the range by a value of theirs, the most frequent first.

    The rows add up to all sessions: values beyond the ``limit`` are in one row, ``other``, and sessions without a value
    in a row without one.
    """
    asked = source.range(start, end, timezone)
    async with source.snapshot() as snapshot:
        return await snapshot.rows(
            SessionShare, SQL["breakdown"], asked.start, asked.end, by, service, environment, snapshot.limit(limit)
        )


def _cursor(session: Session) -> str:
    text = f"{session.started_at.astimezone(UTC).isoformat()}/{session.id}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _position(cursor: str) -> tuple[datetime, str]:
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
        moment, slash, session_id = text.partition("/")
        started_at = datetime.fromisoformat(moment)
        if started_at.utcoffset() is None or not slash or "\0" in session_id:
            raise ValueError
    except ValueError:  # a UnicodeError and a binascii.Error are ones too
        raise InvalidQuery("cursor", "must be the next of the page before") from None
    return started_at, session_id
