"""Where an export is: read from the database and noted there, so that any process on any machine can go on with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from asgi_analytics.exports import snapshots
from asgi_analytics.exports.pages import Key
from asgi_analytics.exports.session import SQL

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from asgi_analytics.exports.base import Row
    from asgi_analytics.exports.pages import Lane
    from asgi_analytics.exports.snapshots import Snapshot

EVENT_ID, TIMESTAMP = 0, 11
"""Where a row has its id and its time."""


class OtherProcess(Exception):
    """Another process has gone on with the export meanwhile: this one has lost its lock, with its connection."""


class Export(msgspec.Struct, frozen=True):
    """One export."""

    name: str
    url: str
    identity: str
    exported: Snapshot
    window_until: Snapshot | None
    backfill_seen: Snapshot
    backfill_range: tuple[datetime, datetime] | None
    has_backfill: bool


class Place(msgspec.Struct, frozen=True):
    """Where a lane is."""

    lane: Lane
    sequence: int
    page_rows: int
    refusals: int
    after: Key | None
    until: Key | None
    """The last key of the page that is fixed; None if none is."""
    timeline: str | None = None
    """Of the server when the page was fixed."""


class State:
    """Reads and notes where one export is, on a connection that holds its lock."""

    def __init__(self, connection: Any, name: str) -> None:
        self._connection = connection
        self.name = name

    async def export(self) -> Export | None:
        """Return the export; None if there is none of that name."""
        row = await self._connection.fetchrow(SQL["state"], self.name)
        if row is None:
            return None
        window_until, part = row["window_until"], row["backfill_range"]
        return Export(
            name=row["name"],
            url=row["url"],
            identity=row["identity"],
            exported=_snapshot(row["exported"]),
            window_until=None if window_until is None else _snapshot(window_until),
            backfill_seen=_snapshot(row["backfill_seen"]),
            backfill_range=None if part is None else (part.lower, part.upper),
            has_backfill=part is not None or bool(row["backfill_left"]),
        )

    async def place(self, lane: Lane) -> Place:
        """Return where a lane is."""
        row = await self._connection.fetchrow(SQL["lane"], self.name, lane)
        after, until = (
            None if row[f"{end}_xid"] is None else Key(row[f"{end}_xid"], row[f"{end}_timestamp"], row[f"{end}_id"])
            for end in ("after", "until")
        )
        return Place(lane, row["sequence"], row["page_rows"], row["refusals"], after, until, row["timeline"])

    async def fix(self, place: Place, until: Key, timeline: str, last: Row, token: str, kind: str) -> None:
        """Fix a page, before it is loaded: up to a key."""
        async with self._connection.transaction():
            await self._change("fix_page", place, *until, timeline)
            await self._note_batch(token, kind, last)

    async def shrink(self, place: Place, until: Key, timeline: str, page_rows: int) -> None:
        """Let a smaller page, under the next token, take the place of one that was refused."""
        await self._change("shrink_page", place, *until, page_rows, timeline)

    async def note_batch(self, token: str, kind: str, last: Row) -> None:
        """Note a batch that takes the place of a larger one."""
        await self._note_batch(token, kind, last)

    async def refuse_again(self, place: Place) -> int:
        """Return how often the page of a single row was refused, this time included."""
        refusals = await self._connection.fetchval(SQL["refuse_again"], self.name, place.lane, place.sequence)
        if refusals is None:
            raise OtherProcess
        return int(refusals)

    async def advance(
        self, place: Place, page_rows: int, rows: Sequence[Row], *, refusal: tuple[str, str] | None = None
    ) -> None:
        """Note that a page is done: it is stored, or its only row is kept with the reason and token of its refusal."""
        async with self._connection.transaction():
            await self._change("advance", place, page_rows)
            stored = 0 if refusal is not None else len(rows)
            done = len(rows) if place.lane == "window" else 0
            await self._connection.execute(SQL["count_events"], self.name, stored, done)
            if refusal is not None:
                [row] = rows
                reason, token = refusal
                await self._connection.execute(
                    SQL["keep_refusal"], self.name, row[EVENT_ID], row[TIMESTAMP], reason, token
                )
            elif place.lane == "retry":
                times, ids = [row[TIMESTAMP] for row in rows], [row[EVENT_ID] for row in rows]
                await self._connection.execute(SQL["forget_refusals"], self.name, times, ids)

    async def do(self, statement: str, *arguments: Any) -> Any:
        """Run a statement about this export; return its first value."""
        return await self._connection.fetchval(SQL[statement], self.name, *arguments)

    async def batch_sent(self, token: str) -> None:
        """Note that a batch is on its way."""
        await self._connection.execute(SQL["batch_sent"], token)

    async def batch_done(self, token: str, status: str, events: int, duration_ms: int, error: str | None) -> None:
        """Note what became of a batch."""
        await self._connection.execute(SQL["batch_done"], token, status, events, duration_ms, error)

    async def forget_batches(self) -> None:
        """Forget the batches of more than 30 days ago, of all exports."""
        await self._connection.execute(SQL["forget_batches"])

    async def erasures(self) -> tuple[list[str], datetime | None]:
        """Return users who are still to be erased, at most a thousand, and when the last of them was asked for."""
        rows = await self._connection.fetch(SQL["erasures"], self.name)
        return [str(row["user_id"]) for row in rows], rows[-1]["requested_at"] if rows else None

    async def _note_batch(self, token: str, kind: str, last: Row) -> None:
        await self._connection.execute(SQL["batch_fixed"], token, kind, last[EVENT_ID], last[TIMESTAMP])

    async def _change(self, statement: str, place: Place, *arguments: Any) -> None:
        done = await self._connection.execute(SQL[statement], self.name, place.lane, place.sequence, *arguments)
        if done != "UPDATE 1":
            raise OtherProcess


def _snapshot(value: Any) -> Snapshot:
    """Read what asyncpg returns of a pg_snapshot: xmin, xmax and what was under way."""
    return (
        snapshots.read(str(value))
        if isinstance(value, str)
        else snapshots.Snapshot(int(value[0]), int(value[1]), frozenset(map(int, value[2])))
    )
