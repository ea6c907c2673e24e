"""Read every table from end to end: nothing of the person may be left, and who else quotes the id is listed."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from asgi_analytics.admin.subjects.events import EVENTS, remove
from asgi_analytics.admin.subjects.exports import Exports
from asgi_analytics.admin.subjects.report import Mention
from asgi_analytics.admin.subjects.subject import decoded
from asgi_analytics.admin.subjects.work import PREFETCH

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asgi_analytics.admin.subjects.work import Table, Work

MOST_MENTIONS = 1_000
"""How many are listed; the others are counted."""

UNREADABLE = "row"
"""The column of a row whose JSON is nested too deeply to be looked through."""


class Mentions:
    """What was found by reading everything."""

    def __init__(self) -> None:
        self.listed: list[Mention] = []
        self.more = 0
        self.is_left = False
        """A table still holds the person: a refresh was at work meanwhile, or an event has come."""

    def _add(self, mention: Mention) -> None:
        if len(self.listed) < MOST_MENTIONS:
            self.listed.append(mention)
        else:
            self.more += 1

    async def find(self, work: Work) -> None:
        """Read every table. An event that is the person's by its ``user_key`` alone goes at once."""
        self.listed, self.more, self.is_left = [], 0, False
        for table in work.tables:
            if table.name == EVENTS:
                await self._look_at_events(work, table)
                continue
            async for line in _lines(work, table.sql("quoting_rows")):
                self._look_at(work, table, line)

    async def _look_at_events(self, work: Work, table: Table) -> None:
        for day in await work.connection.fetch(work.sql["all_days"]):
            own = []
            async for line in _lines(work, work.sql["quoting_events"], day["since"], day["until"]):
                event = _decoded(line)
                if work.subject.owns(event) and event["user_id"] is None:
                    own.append((UUID(event["id"]), datetime.fromisoformat(event["timestamp"])))
                else:
                    self._look_at(work, table, line)
            for event_id, timestamp in own:
                await remove(work, event_id, timestamp)

    def _look_at(self, work: Work, table: Table, line: str) -> None:
        row = _decoded(line)
        if row is None:
            self._add(Mention(table=table.name, timestamp=None, id=None, column=UNREADABLE))
            return
        places = list(work.subject.quoted_in(row))
        if not places:
            return
        if self._holds(work, table, row):
            self.is_left = True
            return
        when = next((str(row[name]) for name in table.times if row.get(name) is not None), None)
        row_id = row.get("id")
        for place in places:
            self._add(
                Mention(
                    table=table.name,
                    timestamp=when,
                    id=None if row_id is None else work.subject.masked(str(row_id)),
                    column=place,
                )
            )

    def _holds(self, work: Work, table: Table, row: dict[str, Any]) -> bool:
        """Tell whether a row is the person's by one of the columns that say so."""
        if table.name in Exports.tables:
            return False  # it goes when the warehouse has erased the person, and is listed until then
        ids = {str(work.subject.uuid), str(work.subject.hash)}
        return any(row.get(column.strip('"')) in ids for column in table.columns_of("user", "owner", "hash", "session"))


async def _lines(work: Work, sql: str, *bounds: Any) -> AsyncIterator[str]:
    async with work.reading():
        async for row in work.connection.cursor(sql, *work.subject.needles(), *bounds, prefetch=PREFETCH):
            yield row["line"]


def _decoded(line: str) -> Any:
    try:
        return decoded(line)
    except (ValueError, RecursionError):
        return None
