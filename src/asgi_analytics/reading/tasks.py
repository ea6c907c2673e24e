"""Tasks by day, and of a whole range. Durations are milliseconds, rates fractions from 0 to 1."""

from __future__ import annotations

from datetime import datetime

import msgspec

from asgi_analytics.reading.question import Text, question
from asgi_analytics.reading.ranges import DAY, QUARTER, Moment
from asgi_analytics.reading.source import Source
from asgi_analytics.reading.statements import Statements

SQL = Statements("tasks")


class TaskStatsDaily(msgspec.Struct, frozen=True):
    """The tasks of one local day."""

    day: datetime
    created: int
    started: int
    completed: int
    failed: int
    cancelled: int
    avg_duration_ms: float | None
    """Of the completed tasks, as the percentile."""
    p95_duration_ms: float | None
    success_rate: float | None
    """completed / (completed + failed)."""


class TaskStatsOverview(msgspec.Struct, frozen=True):
    """The tasks of a range."""

    total_created: int
    total_completed: int
    total_failed: int
    total_cancelled: int
    success_rate: float | None
    """completed / (completed + failed)."""
    avg_duration_ms: float | None
    """Of all completed tasks."""


@question("/tasks/daily", bare=True)
async def get_task_stats_daily(
    source: Source,
    *,
    start: Moment | None = None,
    end: Moment | None = None,
    timezone: str | None = None,
    service: Text | None = None,
) -> list[TaskStatsDaily]:
    """Count the task events of each local day by state, with the durations of the completed ones; newest day first."""
    days = source.range(start, end, timezone).buckets("day")
    split = days.split(QUARTER)
    whole_days = days.split(DAY, known=service is None)
    async with source.snapshot() as snapshot:
        await snapshot.require_parts(whole_days)  # percentiles of anything else need the raw rows
        return await snapshot.rows(
            TaskStatsDaily,
            SQL["daily"],
            *split.around(whole_days),
            days.edges,
            service,
            snapshot.limit(),
            buckets=days,
        )


@question("/tasks/overview", bare=True)
async def get_task_stats_overview(
    source: Source,
    *,
    start: Moment | None = None,
    end: Moment | None = None,
    timezone: str | None = None,
    service: Text | None = None,
) -> TaskStatsOverview:
    """Count the task events of the range by state, with the average duration of all completed ones."""
    split = source.range(start, end, timezone).buckets(None).split(QUARTER)
    async with source.snapshot() as snapshot:
        await snapshot.require_parts(split)
        return await snapshot.row(TaskStatsOverview, SQL["overview"], *split.bounds, service)
