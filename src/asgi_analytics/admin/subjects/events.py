"""Where a person is: in the raw events, a day and a transaction at a time."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from asgi_analytics.admin.subjects.work import SQL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asgi_analytics.admin.subjects.report import Exported
    from asgi_analytics.admin.subjects.work import Work

EVENTS = "analytics_events"
DAY = timedelta(days=1)
BATCH = 1_000
"""Events whose JSON is in memory at once."""


class Events:
    """The raw events: rows and columns. What they change is noted, so that a refresh lets the aggregates follow."""

    async def export(self, work: Work) -> AsyncIterator[Exported]:
        """Yield the events, by time."""
        for day in await _days(work):
            async for one in work.rows(EVENTS, SQL["export_events"], work.subject.uuid, day, day + DAY):
                yield one

    async def erase(self, work: Work) -> None:
        """Delete them."""
        for day in await _days(work):

            async def delete(day: datetime = day) -> None:
                await work.execute(EVENTS, SQL["erase_events"], work.subject.uuid, day, day + DAY)

            await work.run(delete)

    async def anonymise(self, work: Work) -> None:
        """Take the person out of them."""
        for day in await _days(work):

            async def change(day: datetime = day) -> None:
                since, until = day, day + DAY
                while found := await work.connection.fetch(SQL["find_events"], work.subject.uuid, since, until, BATCH):
                    await _anonymise(work, found)
                    since = found[-1]["timestamp"]

            await work.run(change)


async def remove(work: Work, event_id: Any, timestamp: datetime) -> None:
    """Erase or anonymise one event that is the person's by its ``user_key`` alone."""

    async def change() -> None:
        if work.request.kind == "erase":
            await work.execute(EVENTS, SQL["erase_event"], event_id, timestamp)
        else:
            await _anonymise(work, await work.connection.fetch(SQL["find_event"], event_id, timestamp))

    await work.run(change)


async def _days(work: Work) -> list[datetime]:
    days = []
    async with work.transaction():
        for row in await work.connection.fetch(SQL["days"], work.subject.uuid):
            days.append(row["day"])
            for key in row["keys"] or ():
                work.subject.learn(key)
    return days


async def _anonymise(work: Work, found: list[Any]) -> None:
    if not found:
        return
    await work.execute(
        EVENTS,
        SQL["anonymise_events"],
        [row["id"] for row in found],
        [row["timestamp"] for row in found],
        [_changed(work, row, "data") for row in found],
        [_changed(work, row, "context") for row in found],
        found[0]["timestamp"],
        found[-1]["timestamp"],
    )


def _changed(work: Work, row: Any, column: str) -> str | None:
    value = row[column]
    if value is None:
        return None
    try:
        if column == "data":
            return work.anonymous.data(row["event_type"], value.encode()).decode()
        return work.anonymous.context(value.encode()).decode()
    except (ValueError, msgspec.MsgspecError, RecursionError):
        return "{}"  # nothing can be said of what is nested so deeply
