"""Where a person is: in sessions, and the parts of half an hour that they are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asgi_analytics.admin.subjects.report import Exported
    from asgi_analytics.admin.subjects.work import Work

PARTS, SESSIONS = "analytics_session_parts_filled", "analytics_sessions_filled"


class Sessions:
    """Sessions and their parts go in both cases: they are what connects events, which anonymising takes away.

    A session of which parts are left, for instance those before the user logged in, is joined again from them.
    """

    tables = (PARTS, SESSIONS)

    async def export(self, work: Work) -> AsyncIterator[Exported]:
        """Yield the sessions, those of a moment ago too."""
        async for one in work.rows("analytics_sessions", work.sql["export_sessions"], work.subject.uuid):
            yield one

    async def erase(self, work: Work) -> None:
        """Delete them, a day at a time."""
        who = work.subject.uuid, str(work.subject.uuid)
        parts, sessions = (next(table for table in work.tables if table.name == name) for name in self.tables)
        for day in await work.connection.fetch(work.sql["session_ranges"], *who):

            async def delete(since: Any = day["since"], until: Any = day["until"]) -> None:
                await work.connection.execute(parts.sql("lock"))
                await work.connection.execute(sessions.sql("lock"))
                before = await work.connection.fetchval(work.sql["count_sessions"], *who)
                gone = await work.connection.fetch(work.sql["erase_parts"], *who, since, until)
                await work.count(PARTS, len(gone))
                await work.join_sessions(gone, since, until)
                after = await work.connection.fetchval(work.sql["count_sessions"], *who)
                await work.count(SESSIONS, max(before - after, 0))

            await work.run(delete)

        async def delete_rest() -> None:
            await work.connection.execute(sessions.sql("lock"))
            await work.execute(SESSIONS, work.sql["erase_sessions"], *who)

        await work.run(delete_rest)

    async def anonymise(self, work: Work) -> None:
        """Delete them."""
        await self.erase(work)
