"""Where a person is: in tables with the JSON of events as they were sent, such as dead letters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from asgi_analytics.admin.subjects.events import EVENTS
from asgi_analytics.admin.subjects.report import Exported
from asgi_analytics.admin.subjects.subject import decoded
from asgi_analytics.admin.subjects.work import PREFETCH

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asgi_analytics.admin.subjects.work import Table, Work


class Payloads:
    """Rows with the JSON of an event. What nobody can read, and quotes the id, is taken for the person's."""

    async def export(self, work: Work) -> AsyncIterator[Exported]:
        """Yield the rows."""
        for table, column in _places(work):
            number = 0
            async with work.reading():
                async for row in _own_rows(work, table, column):
                    number += 1
                    yield Exported(table=table.name, timestamp=None, id=None, row=msgspec.Raw(row["row"].encode()))
            await work.count(table.name, number)

    async def erase(self, work: Work) -> None:
        """Delete the rows."""
        for table, column in _places(work):

            async def delete(table: Table = table, column: str = column) -> None:
                async for row in _own_rows(work, table, column):
                    await work.execute(table.name, table.sql("erase_payloads"), [row["place"]])

            await work.run(delete)

    async def anonymise(self, work: Work) -> None:
        """Take the person out of the JSON; delete what nobody can read."""
        for table, column in _places(work):

            async def change(table: Table = table, column: str = column) -> None:
                sql = table.sql("anonymise_payload", column=column, type=table.columns[column])
                async for row in _own_rows(work, table, column):
                    try:
                        left = work.anonymous.event(row["payload"].encode()).decode()
                    except (ValueError, msgspec.MsgspecError, RecursionError):
                        await work.execute(table.name, table.sql("erase_payloads"), [row["place"]])
                    else:
                        await work.execute(table.name, sql, row["place"], left)

            await work.run(change)


def _places(work: Work) -> list[tuple[Table, str]]:
    return [(table, column) for table in work.tables if table.name != EVENTS for column in table.columns_of("event")]


async def _own_rows(work: Work, table: Table, column: str) -> AsyncIterator[Any]:
    sql = table.sql("payloads", column=column)
    async for row in work.connection.cursor(sql, *work.subject.needles(), prefetch=PREFETCH):
        if is_own(work, row["payload"]):
            yield row


def is_own(work: Work, payload: str | bytes) -> bool:
    """Tell whether the JSON of an event is the person's."""
    try:
        event = decoded(payload)
    except (ValueError, RecursionError):
        return work.subject.is_in(payload if isinstance(payload, str) else payload.decode("utf-8", "replace"))
    return work.subject.owns(event)
