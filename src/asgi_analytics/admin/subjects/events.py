"""Where a person is: in the raw events, a day and a transaction at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

    from asgi_analytics.admin.subjects.report import Exported
    from asgi_analytics.admin.subjects.work import Work

EVENTS = "analytics_events"
BATCH = 1_000
"""Events whose JSON is in memory at once."""


class Events:
    """The raw events: rows and columns. What they change is noted, so that a refresh lets the aggregates follow."""

    async def export(self, work: Work) -> AsyncIterator[Exported]:
        """Yield the events, by time."""
        for since, until in await _days(work):
            async for one in work.rows(EVENTS, work.sql["export_events"], work.subject.uuid, since, until):
                yield one

    async def erase(self, work: Work) -> None:
        """Delete them."""
        for since, until in await _days(work):

            async def delete(since: Any = since, until: Any = until) -> None:
                await work.execute(EVENTS, work.sql["erase_events"], work.subject.uuid, since, until)

            await work.run(delete)

    async def anonymise(self, work: Work) -> None:
        """Take the person out of them."""
        for since, until in await _days(work):

            async def change(since: Any = since, until: Any = until) -> None:
                sql = work.sql["find_events"]
                while found := await work.connection.fetch(sql, work.subject.uuid, since, until, BATCH):
                    await _anonymise(work, found)
                    since = found[-1]["timestamp"]

            await work.run(change)


async def remove(work: Work, event_id: Any, timestamp: datetime) -> None:
    """Erase or anonymise one event that is the person's by its ``user_key`` alone."""

    async def change() -> None:
        if work.request.kind == "erase":
            await work.execute(EVENTS, work.sql["erase_event"], event_id, timestamp)
        else:
            await _anonymise(work, await work.connection.fetch(work.sql["find_event"], event_id, timestamp))

    await work.run(change)


async def _days(work: Work) -> list[tuple[Any, Any]]:
    """Return the begin and the end of each day with events of the person, as the database has times."""
    days = []
    async with work.reading():
        for row in await work.connection.fetch(work.sql["days"], work.subject.uuid):
            days.append((row["since"], row["until"]))
            for key in msgspec.json.decode(row["keys"] or "[]"):
                work.subject.learn(key)
    return days


async def _anonymise(work: Work, found: list[Any]) -> None:
    if not found:
        return
    await work.execute(
        EVENTS,
        work.sql["anonymise_events"],
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
