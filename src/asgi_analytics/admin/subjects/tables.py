"""Where a person is: in any other table that says so, such as aggregates, and what is known of each user."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_analytics.admin.subjects.events import EVENTS
from asgi_analytics.admin.subjects.exports import Exports
from asgi_analytics.admin.subjects.sessions import Sessions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

    from asgi_analytics.admin.subjects.report import Exported
    from asgi_analytics.admin.subjects.work import Table, Work


class Tables:
    """Tables with a column that has the user's UUID, or its hash; one transaction for each."""

    async def export(self, work: Work) -> AsyncIterator[Exported]:
        """Yield their rows."""
        for table, column, value in self._places(work):
            async for one in work.rows(table.name, table.sql("export_rows", column=column), value):
                yield one

    async def erase(self, work: Work) -> None:
        """Delete the rows; put asterisks for the id where a table has words out of anybody's events."""
        await self._change(work, is_erased=True)

    async def anonymise(self, work: Work) -> None:
        """Empty the columns, and put asterisks for the id in words out of events; delete rows about the user alone."""
        await self._change(work, is_erased=False)

    async def _change(self, work: Work, *, is_erased: bool) -> None:
        for table in _others(work):

            async def change(table: Table = table) -> None:
                if table.is_filled():
                    await work.connection.execute(table.sql("lock"))
                for _, column, value in self._places(work, table):
                    if is_erased or table.forms[column] == "owner":
                        await work.execute(table.name, table.sql("erase_rows", column=column), value)
                        continue
                    for text in table.columns_of("text"):
                        for pattern in work.subject.patterns():
                            sql = table.sql("mask_own_rows", column=column, text=text)
                            await work.connection.execute(sql, value, pattern)
                    for session in table.columns_of("session"):
                        sql = table.sql("disconnect_rows", column=column, session=session)
                        await work.connection.execute(sql, value)
                    await work.execute(table.name, table.sql("anonymise_rows", column=column), value)
                if not table.columns_of("user", "owner", "hash"):
                    for text in table.columns_of("text"):
                        for pattern in work.subject.patterns():
                            await work.execute(table.name, table.sql("mask_rows", text=text), pattern)

            if table.columns_of("user", "owner", "hash", "text"):
                await work.run(change)

    def _places(self, work: Work, only: Table | None = None) -> list[tuple[Table, str, UUID]]:
        """Return each table with a column that has the person, and what stands there."""
        return [
            (table, column, work.subject.hash if table.forms[column] == "hash" else work.subject.uuid)
            for table in ([only] if only else _others(work))
            for column in table.columns_of("owner", "user", "hash")
        ]


def _others(work: Work) -> list[Table]:
    """Return the tables that have no file of their own here."""
    return [table for table in work.tables if table.name not in (EVENTS, *Sessions.tables, *Exports.tables)]
