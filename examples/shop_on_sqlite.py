"""The shop's own tables in a file: as much of an asyncpg pool as the shop needs, on the standard library's sqlite3.

shows:   capture_query, for a driver that is not instrumented
needs:   nothing
install: pip install asgi-analytics
run:     by shop.py, where DATABASE_URL is sqlite:///…
see:     SELECT * FROM analytics_query_days
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from asgi_analytics import AnalyticsClient, capture_query


class SqlitePool:
    """One connection, for one query at a time."""

    def __init__(self, url: str, client: AnalyticsClient) -> None:
        path = url.removeprefix("sqlite:///") + ".shop"
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.row_factory = sqlite3.Row
        self._client = client
        self._buying = asyncio.Lock()
        self._at_once = threading.Lock()

    async def __aenter__(self) -> SqlitePool:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._connection.close()

    async def fetch(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        kind, table = sql.split()[0].upper(), re.search(r"shop_\w+", sql)

        def run() -> list[sqlite3.Row]:
            with self._at_once:
                return self._connection.execute(re.sub(r"\$(\d)", r"?\1", sql), values).fetchall()

        async def query() -> list[sqlite3.Row]:
            return await asyncio.to_thread(run)

        query.__qualname__ = " ".join(sql.split())
        return [dict(row) for row in await capture_query(self._client, kind, table and table[0])(query)()]

    async def fetchrow(self, sql: str, *values: Any) -> dict[str, Any] | None:
        rows = await self.fetch(sql, *values)
        return rows[0] if rows else None

    async def fetchval(self, sql: str, *values: Any) -> Any:
        row = await self.fetchrow(sql, *values)
        return None if row is None else next(iter(row.values()))

    async def execute(self, sql: str, *values: Any) -> None:
        await self.fetch(sql, *values)

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[SqlitePool]:
        async with self._buying:
            yield self

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")
