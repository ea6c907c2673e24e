"""The numbers at the top of a dashboard."""

from __future__ import annotations

from datetime import UTC

import msgspec

from asgi_analytics.reading.question import Text, question
from asgi_analytics.reading.ranges import DAY, EARLIEST, floor, midnight
from asgi_analytics.reading.source import Source
from asgi_analytics.reading.statements import Statements

SQL = Statements("overview")


class OverviewStats(msgspec.Struct, frozen=True):
    """Totals of all that the aggregates know, also of days whose raw rows are gone, and what is active now."""

    total_users: int
    """With an event, ever."""
    active_users_today: int
    active_users_week: int
    """In the 7 days to today."""
    active_users_month: int
    """In the 30 days to today."""
    total_tasks: int
    """Created, ever."""
    tasks_today: int
    """Created today."""
    task_success_rate: float | None
    """completed / (completed + failed), of all that ended."""
    total_cocoons: int
    """Distinct ones that were registered or connected."""
    active_cocoons: int
    """Distinct ones that were connected in the last 24 hours."""
    total_integrations: int
    """Distinct ones that were connected."""


@question("/overview", bare=True)
async def get_overview_stats(
    source: Source, *, timezone: str | None = None, service: Text | None = None
) -> OverviewStats:
    """Count all users, tasks, cocoons and integrations ever known, and those of the day, week and month to today."""
    now, zone = source.now(), source.zone_of(timezone)
    today = now.astimezone(zone).date()
    begins = [midnight(today - days * DAY, zone) for days in (0, 6, 29)]
    ends = midnight(today + DAY, zone)
    async with source.snapshot() as snapshot:
        # Days of UTC are fewer rows, but do not know the service, nor where the days of other zones begin.
        by_day_until = floor(await snapshot.filled_until("analytics_user_days"), DAY)
        if begins[0] != floor(begins[0], DAY):
            by_day_until = min(by_day_until, floor(begins[2], DAY))
        if service is not None:
            by_day_until = midnight(EARLIEST, UTC)
        return await snapshot.row(OverviewStats, SQL["overview"], *begins, ends, now - DAY, service, by_day_until)
