"""The numbers of dashboards, each beside what it was before, and numbers of the moment."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from asgi_analytics.reading.question import Text, question
from asgi_analytics.reading.source import Source
from asgi_analytics.reading.statements import Statements

SQL = Statements("dashboard")


class DashboardMetric(msgspec.Struct, frozen=True):
    """One number of a widget."""

    widget_id: str
    """``overview`` has the package's own numbers: of the last 7 days, beside the 7 days before."""
    metric_key: str
    value: float | None
    """Null for a mean of nothing."""
    previous_value: float | None
    change_percent: float | None
    """Null where there is nothing to compare to, or it was 0."""
    updated_at: datetime


class RealtimeMetric(msgspec.Struct, frozen=True):
    """A number of the moment, or another JSON value."""

    metric_key: str
    metric_value: Any
    time_window: str
    """hour, day, week or month."""
    calculated_at: datetime
    expires_at: datetime


@question("/dashboard")
async def get_dashboard_metrics(source: Source, *, widget_id: Text | None = None) -> list[DashboardMetric]:
    """List the numbers of dashboards, or of one widget, each beside what it was before."""
    async with source.snapshot() as snapshot:
        return await snapshot.rows(DashboardMetric, SQL["dashboard"], widget_id, snapshot.limit())


@question("/realtime")
async def get_realtime_metrics(source: Source) -> list[RealtimeMetric]:
    """List the numbers of the moment that have not expired."""

    def made(key: str, value: str, *rest: Any) -> RealtimeMetric:
        return RealtimeMetric(key, msgspec.json.decode(value), *rest)

    async with source.snapshot() as snapshot:
        return await snapshot.rows(made, SQL["realtime"], snapshot.limit())
