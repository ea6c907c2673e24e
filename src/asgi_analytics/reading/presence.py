"""When users were there, by any event or by one of a type: what retention, stickiness and the lifecycle are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from asgi_analytics.database.blocks import load
from asgi_analytics.reading.ranges import DAY, EARLIEST, QUARTER, floor
from asgi_analytics.reading.source import Snapshot

SQL = load(__package__, "presence.sql")
EVER = datetime(EARLIEST.year, EARLIEST.month, EARLIEST.day, tzinfo=UTC)
"""Before all that is known."""


def of_presence(sql: str) -> str:
    """Return a statement that reads the relation ``presence``: ``user_id``, ``at``, and ``event_type``, null for any.

    `presence_parameters` are its first eleven, and its own follow.
    """
    return f"WITH presence AS (\n{SQL['presence']}\n)\nSELECT * FROM (\n{sql}\n) AS answer"


async def presence_parameters(
    snapshot: Snapshot, since: datetime, edges: Iterable[datetime], events: Sequence[str | None], service: str | None
) -> tuple[Any, ...]:
    """Return what to look at from ``since`` up to the last of the edges, for some types of events, or None for any.

    Raises `InvalidQuery` if raw rows are needed, for a day or a quarter hour that an edge lies within, and are gone.
    """
    inner = sorted(set(edges))
    end = inner[-1]
    is_any, types = None in events, [event for event in events if event is not None]
    is_by_day = is_any and service is None
    views = ["analytics_user_days"] * is_by_day + ["analytics_user_types_daily"] * bool(types)
    filled_until = await snapshot.filled_until(*views) if views else EVER
    until = floor(filled_until, DAY)
    cut_days = _cut(inner, DAY)
    cut_quarters = _cut(inner, QUARTER)
    looked_up: list[tuple[datetime, datetime]] = []
    if types:
        parts = [(max(day, since), min(day + DAY, end)) for day in cut_days if day < until]
        looked_up = _joined([*parts, (max(until, since), end)])
        await snapshot.require_raw(
            looked_up, "a time zone other than UTC, or a part of a day, for the events of one type"
        )
    if is_any:
        await snapshot.require_raw(
            [(max(quarter, since), min(quarter + QUARTER, end)) for quarter in cut_quarters], "a part of a quarter hour"
        )
    return (
        types,
        is_any,
        is_by_day,
        service,
        since,
        end,
        until,
        cut_days,
        cut_quarters,
        [start for start, _ in looked_up],
        [stop for _, stop in looked_up],
    )


def _cut(edges: Sequence[datetime], step: timedelta) -> list[datetime]:
    """Return where the steps begin that an edge lies within."""
    return sorted({floor(edge, step) for edge in edges if edge != floor(edge, step)})


def _joined(parts: Sequence[tuple[datetime, datetime]]) -> list[tuple[datetime, datetime]]:
    """Return the parts, oldest first, of those that touch one."""
    found: list[tuple[datetime, datetime]] = []
    for start, end in parts:
        if start >= end:
            continue
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found
