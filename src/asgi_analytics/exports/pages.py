"""Read the rows of a page: of a window, of the backfill, or of what is tried again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from uuid import UUID

import msgspec

from asgi_analytics.exports.base import PLACE
from asgi_analytics.exports.enrichment import OTHERWISE, entity_fields
from asgi_analytics.exports.session import SQL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asgi_analytics.exports.base import Row
    from asgi_analytics.exports.snapshots import Snapshot, Transactions

Lane = Literal["window", "backfill", "retry"]

PAGE_BYTES = 16 * 1024 * 1024
"""A page ends after the block of rows whose data and metadata reach this size."""

BLOCK_ROWS = 5_000
"""What is asked for at once: the server rests until the next block is. Their texts are in memory twice for a moment."""
LAST_ID = UUID(int=2**128 - 1)
NEVER, ALWAYS = datetime(1999, 1, 1, tzinfo=UTC), datetime(2101, 1, 1, tzinfo=UTC)
"""Times before and after those of all events."""
TICK = timedelta(microseconds=1)
DATA, METADATA, KEY_XID = 7, 8, 14
"""Where a row of the statements has what is looked at here."""


class Key(NamedTuple):
    """What rows are ordered by; the transaction is 0 where it has no part in the order."""

    xid: int
    timestamp: datetime
    id: UUID


class Page(NamedTuple):
    """Rows in their order, and the transaction of each."""

    rows: list[Row]
    xids: list[int]

    def key(self, place: int) -> Key:
        """Return the key of a row."""
        row = self.rows[place]
        return Key(self.xids[place], row[PLACE["timestamp"]], UUID(row[PLACE["event_id"]]))


def _statement(rows: str, fields: int, order: str) -> str:
    return (
        SQL["enriched"].replace("{rows}", SQL[rows]).replace("{fields}", f"${fields}::text").replace("{order}", order)
    )


STATEMENTS: dict[Lane, str] = {
    "window": _statement("window_rows", 12, "e.export_xid, e.timestamp, e.id"),
    "backfill": _statement("backfill_rows", 11, "e.timestamp, e.id"),
    "retry": _statement("retry_rows", 9, "e.timestamp, e.id"),
}


class PageReader:
    """Reads pages of at most ``limit`` rows: after a key, and up to another one where the page is fixed."""

    def __init__(self, connection: Any, categories: Mapping[str, str]) -> None:
        self._connection = connection
        self._categories = categories
        self._fields = msgspec.json.encode(entity_fields()).decode()

    async def window(self, ranges: list[Transactions], after: Key | None, until: Key | None, limit: int) -> Page:
        """Return rows of these transactions, all of one range: the first that has any after the key."""
        for one in ranges:
            if after is None or after.xid < one.end:
                first = after if after is not None and after.xid >= one.start else Key(one.start - 1, ALWAYS, LAST_ID)
                last = until or Key(one.end, ALWAYS, LAST_ID)
                page = await self._read(
                    "window",
                    first,
                    last,
                    (one.start, one.end, one.among, one.without),
                    limit,
                    is_fixed=until is not None,
                )
                if page.rows:
                    return page
        return Page([], [])

    async def backfill(
        self, seen: Snapshot, since: datetime, before: datetime, after: Key | None, until: Key | None, limit: int
    ) -> Page:
        """Return rows of a range of time that a snapshot saw, or that are from before the column."""
        first = after or Key(0, since - TICK, LAST_ID)
        last = until or Key(0, before - TICK, LAST_ID)
        return await self._read(
            "backfill", first, last, (seen.xmin, seen.xmax, sorted(seen.under_way)), limit, is_fixed=until is not None
        )

    async def retry(self, name: str, after: Key | None, until: Key | None, limit: int) -> Page:
        """Return rows that were refused and are to be tried again."""
        first, last = after or Key(0, NEVER, LAST_ID), until or Key(0, ALWAYS, LAST_ID)
        return await self._read("retry", first, last, (name,), limit, is_fixed=until is not None)

    async def _read(
        self, lane: Lane, after: Key, until: Key, arguments: tuple[Any, ...], limit: int, *, is_fixed: bool
    ) -> Page:
        if is_fixed:  # to its end, whatever was stored or erased meanwhile
            limit = 2**31 - 1
        rows: list[Row] = []
        xids: list[int] = []
        size = 0
        known = self._categories.get
        ingested_at = datetime.now(UTC)
        async with self._connection.transaction(readonly=True):
            cursor = await self._connection.cursor(STATEMENTS[lane], *after, *until, *arguments, limit, self._fields)
            while block := await cursor.fetch(BLOCK_ROWS):
                # A block at a time, so that the page is in memory once.
                rows += [
                    (id, kind, known(kind, OTHERWISE), user, role, tenure, entity, entity_id, data, metadata, source,
                     at, session, geo, device, ingested_at)
                    for id, kind, user, role, tenure, entity, entity_id, data, metadata, source, at, session, geo,
                    device, _ in block
                ]  # fmt: skip
                xids += [record[KEY_XID] for record in block]
                size += sum(len(record[DATA]) + len(record[METADATA] or "") for record in block)
                if len(block) < BLOCK_ROWS or (size >= PAGE_BYTES and not is_fixed):
                    break
        return Page(rows, xids if lane == "window" else [0] * len(rows))
