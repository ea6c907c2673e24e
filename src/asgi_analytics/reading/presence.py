"""When users were there, by any event or by one of a type: what retention, stickiness and the lifecycle are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from asgi_analytics.errors import InvalidQuery
from asgi_analytics.reading.ranges import DAY, EARLIEST, QUARTER, floor
from asgi_analytics.reading.source import Snapshot
from asgi_analytics.reading.statements import Dialect, Statement, Statements

SQL = Statements("presence")
EVER = datetime(EARLIEST.year, EARLIEST.month, EARLIEST.day, tzinfo=UTC)
"""Before all that is known."""

Part = tuple[datetime, datetime]


def of_presence(subject: str, name: str) -> Statement:
    """Return the statement of a subject that reads the relation ``presence``.

    Its columns are ``user_id``, ``at``, and ``event_type``, null for any.

    `presence_parameters` are its first fifteen, and its own follow.
    """

    def made(dialect: Dialect) -> str:
        sql = Statements(subject).blocks(dialect)[name]
        presence = SQL.blocks(dialect)["presence"]
        return f"WITH presence AS (\n{presence}\n)\nSELECT * FROM (\n{sql}\n) AS answer"

    return Statement(made)


async def presence_parameters(
    snapshot: Snapshot, since: datetime, edges: Iterable[datetime], events: Sequence[str | None], service: str | None
) -> tuple[Any, ...]:
    """Return what to look at from ``since`` up to the last of the edges, for some types of events, or None for any.

    Raises `InvalidQuery` if raw rows are needed, for a day or a quarter hour that an edge lies within, and are gone.
    """
    inner = sorted(set(edges))
    end = inner[-1]
    types = [event for event in events if event is not None]
    is_any = None in events
    cut_days, cut_quarters = _cut(inner, DAY), _cut(inner, QUARTER)
    days_until = quarters_since = quarters_until = types_until = since
    raw: list[Part] = []
    raw_of_types: list[Part] = []
    if is_any:
        # Days know no service.
        by_day = floor(await snapshot.filled_until("analytics_user_days"), DAY) if service is None else EVER
        days_until = max(since, by_day)
        quarters_since = min([days_until, *(max(day, since) for day in cut_days)])
        quarters_until = await snapshot.filled_until("analytics_user_quarters")
        cut = _parts(cut_quarters, QUARTER, since, end)
        not_filled = [(max(day, quarters_until), until) for day, until in _parts(cut_days, DAY, since, end)]
        raw = _joined([*cut, *not_filled, (max(days_until, quarters_until), end)])
        await _require(snapshot, raw, "a part of a quarter hour")
    if types:
        types_until = floor(await snapshot.filled_until("analytics_user_types_daily"), DAY)
        raw_of_types = _joined([*_parts(cut_days, DAY, since, end), (max(types_until, since), end)])
        why = "a time zone other than UTC, or a part of a day, for the events of one type,"
        await _require(snapshot, raw_of_types, why)
    return (
        types, is_any, service, since, end, cut_days, cut_quarters,
        days_until, quarters_since, quarters_until, *_ends(raw),
        types_until, *_ends(raw_of_types),
    )  # fmt: skip


async def _require(snapshot: Snapshot, parts: Sequence[Part], why: str) -> None:
    """Raise `InvalidQuery` unless the raw rows of all parts are kept; asked once if everything between them is, too."""
    try:
        await snapshot.require_raw([(parts[0][0], parts[-1][1])] if parts else [], why)
    except InvalidQuery:
        await snapshot.require_raw(parts, why)


def _cut(edges: Sequence[datetime], step: timedelta) -> list[datetime]:
    """Return where the steps begin that an edge lies within."""
    return sorted({floor(edge, step) for edge in edges if edge != floor(edge, step)})


def _parts(steps: Sequence[datetime], step: timedelta, since: datetime, end: datetime) -> list[Part]:
    return [(max(at, since), min(at + step, end)) for at in steps]


def _joined(parts: Sequence[Part]) -> list[Part]:
    """Return the parts that are not empty, oldest first, and of those that touch one."""
    found: list[Part] = []
    for start, end in sorted(part for part in parts if part[0] < part[1]):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def _ends(parts: Sequence[Part]) -> tuple[list[datetime], list[datetime]]:
    return [start for start, _ in parts], [end for _, end in parts]
