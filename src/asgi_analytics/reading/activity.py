"""What one user did, day by day. Durations are milliseconds."""

from __future__ import annotations

from datetime import datetime

import msgspec

from asgi_analytics.encoding.users import user_uuid
from asgi_analytics.reading.question import Text, User, question
from asgi_analytics.reading.ranges import Moment
from asgi_analytics.reading.source import Source
from asgi_analytics.reading.statements import Statements

SQL = Statements("activity")


class UserActivity(msgspec.Struct, frozen=True):
    """One local day of a user."""

    date: datetime
    session_count: int
    """Sessions that began on it."""
    event_count: int
    """All events of the user, captured ones too."""
    total_duration_ms: float
    """Of these sessions."""
    first_seen_at: datetime | None
    """On this day, as the last; null if a session began before it was known whose it is, and nothing followed."""
    last_seen_at: datetime | None
    events_breakdown: dict[str, int]
    """Events by type."""


@question("/users/{user_id}/activity")
async def get_user_activity(
    source: Source,
    user_id: User,
    *,
    start: Moment | None = None,
    end: Moment | None = None,
    timezone: str | None = None,
    service: Text | None = None,
) -> list[UserActivity]:
    """Count the events of a user by type, and the sessions that began, in each local day; oldest first.

    Days on which the user did nothing have no row. Reads raw rows, and raises `InvalidQuery` for a range whose rows are
    gone.
    """
    days = source.range(start, end, timezone).buckets("day")
    async with source.snapshot() as snapshot:
        await snapshot.require_raw([(days.edges[0], days.edges[-1])], "this question")
        return await snapshot.rows(
            _activity, SQL["days"], days.edges, user_uuid(user_id)[0], service, snapshot.limit(), buckets=days
        )


def _activity(
    date: datetime,
    session_count: int,
    event_count: int,
    total_duration_ms: float,
    first_seen_at: datetime | None,
    last_seen_at: datetime | None,
    events_breakdown: str,
) -> UserActivity:
    return UserActivity(
        date=date,
        session_count=session_count,
        event_count=event_count,
        total_duration_ms=total_duration_ms,
        first_seen_at=first_seen_at,
        last_seen_at=last_seen_at,
        events_breakdown=msgspec.json.decode(events_breakdown, type=dict[str, int]),
    )
