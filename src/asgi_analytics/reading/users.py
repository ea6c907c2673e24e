"""Active users by day, week and month, in every time zone."""

from __future__ import annotations

from datetime import datetime

import msgspec

from asgi_analytics.reading.question import Text, question
from asgi_analytics.reading.ranges import DAY, QUARTER, Buckets, Moment, Range, Step, floor, midnight
from asgi_analytics.reading.source import Source
from asgi_analytics.reading.statements import Statements

SQL = Statements("users")
NEWEST_FIRST, OLDEST_FIRST = -1, 1
LOOK_BACK = 29
"""Days before the first one whose users are still among its monthly ones."""


class DailyActiveUsers(msgspec.Struct, frozen=True):
    """The users of one local day."""

    day: datetime
    active_users: int
    total_events: int
    """All events of the day, with a user or without."""
    weekly_active_users: int
    """Of the 7 days to this one."""
    monthly_active_users: int
    """Of the 30 days to this one."""


class ActiveUsers(msgspec.Struct, frozen=True):
    """The users of one local week or month."""

    day: datetime
    """The first of the week or month."""
    active_users: int
    total_events: int


@question("/users/daily", bare=True)
async def get_daily_active_users(
    source: Source,
    *,
    start: Moment | None = None,
    end: Moment | None = None,
    timezone: str | None = None,
    service: Text | None = None,
) -> list[DailyActiveUsers]:
    """Count the distinct users with an event in each local day, and in the 7 and the 30 days to it; newest day first.

    Days without an event have no row. The 7 and 30 days are whole days, and may begin before the range.
    """
    asked = source.range(start, end, timezone)
    days = asked.buckets("day")
    first = asked.start.astimezone(asked.zone).date()
    before = tuple(midnight(first - n * DAY, asked.zone) for n in range(LOOK_BACK, -1, -1))
    split, by_day = days.split(QUARTER), _is_by_day(days, service)
    since = floor(asked.start, QUARTER)
    async with source.snapshot() as snapshot:
        filled_until = await snapshot.filled_until("analytics_user_days")
        whole_days = days.split(DAY, known=by_day, filled_until=filled_until)
        await snapshot.require_parts(split)
        await snapshot.require_raw([(since, asked.start)], "a part of a quarter hour")
        edges = (*before, *days.edges[1:])
        return await snapshot.rows(
            lambda number, *counts: DailyActiveUsers(days.labels[number - LOOK_BACK - 1], *counts),
            SQL["daily"],
            *split.around(whole_days),
            edges,
            service,
            before[0],
            since,
            by_day and filled_until >= since,
            snapshot.limit(),
        )


@question("/users/weekly", bare=True)
async def get_weekly_active_users(
    source: Source,
    *,
    start: Moment | None = None,
    end: Moment | None = None,
    timezone: str | None = None,
    service: Text | None = None,
) -> list[ActiveUsers]:
    """Count the distinct users with an event in each local week from Monday on; newest week first.

    Of a week that the range cuts, only what is in the range counts.
    """
    return await _active_users(source, source.range(start, end, timezone), "week", service, NEWEST_FIRST)


@question("/users/monthly", bare=True)
async def get_monthly_active_users(
    source: Source,
    *,
    start: Moment | None = None,
    end: Moment | None = None,
    timezone: str | None = None,
    service: Text | None = None,
) -> list[ActiveUsers]:
    """Count the distinct users with an event in each local calendar month; oldest month first.

    Of a month that the range cuts, only what is in the range counts.
    """
    return await _active_users(source, source.range(start, end, timezone), "month", service, OLDEST_FIRST)


async def _active_users(source: Source, asked: Range, step: Step, service: str | None, order: int) -> list[ActiveUsers]:
    buckets = asked.buckets(step)
    split, by_day = buckets.split(QUARTER), _is_by_day(buckets, service)
    async with source.snapshot() as snapshot:
        whole_days = buckets.split(DAY, known=by_day, filled_until=await snapshot.filled_until("analytics_user_days"))
        await snapshot.require_parts(split)
        return await snapshot.rows(
            ActiveUsers,
            SQL["by_bucket"],
            *split.around(whole_days),
            buckets.edges,
            service,
            order,
            snapshot.limit(),
            buckets=buckets,
        )


def _is_by_day(buckets: Buckets, service: str | None) -> bool:
    """Tell whether days of UTC will do, which are fewer rows than quarter hours."""
    return service is None and not buckets.split(DAY).raw
