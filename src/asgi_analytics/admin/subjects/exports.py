"""Where a person is: in the warehouses of exports, which the next run of each erases."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asgi_analytics.admin.subjects.report import Exported
    from asgi_analytics.admin.subjects.work import Work

ERASURES = "analytics_export_erasures"


class Exports:
    """Copies of events in warehouses. They are erased for either request: a copy has the id in every row.

    Only what runs an export may reach its warehouse, so the erasure is noted here, with the id, until it is done.
    """

    tables = (ERASURES,)

    async def export(self, work: Work) -> AsyncIterator[Exported]:
        """Yield nothing: a warehouse has copies of the events."""
        return
        yield  # makes this a generator

    async def erase(self, work: Work) -> None:
        """Note that each export has to erase the person."""
        if not any(table.name == ERASURES for table in work.tables):
            return  # SQLite: nothing is exported from it

        async def note() -> None:
            await work.connection.execute(work.sql["erase_from_exports"], work.subject.uuid)

        await work.run(note)
        for row in await work.connection.fetch(work.sql["exports_to_erase_from"], work.subject.uuid):
            work.warnings.append(
                f"the warehouse of the export {row['name']} holds the person until the next run: "
                f"analytics-export run {row['name']}"
            )

    anonymise = erase
