"""One migration at a time in one schema, over every process and machine: an advisory lock of the session.

PostgreSQL releases it when the session ends, however it ends. It is polled, never waited for inside the server: a
waiting statement holds a snapshot, and CREATE INDEX CONCURRENTLY by the holder would wait for that for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg

from asgi_analytics.errors import MigrationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

HOLDER = """
SELECT pid FROM pg_catalog.pg_locks
WHERE locktype = 'advisory' AND granted AND objsubid = 1
  AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
  AND (classid::bigint << 32) | objid::bigint = $1
"""


class LockNotHad(MigrationError):
    """Another run held the lock longer than this one was told to wait."""


def key(schema: str) -> int:
    """Return the lock's number for a schema, as PostgreSQL takes it: a signed 64-bit integer."""
    digest = hashlib.sha256(f"asgi-analytics migrations in {schema}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


@asynccontextmanager
async def held(
    connection: Any, schema: str, deadline: float | None, tell: Callable[[str], None]
) -> AsyncIterator[None]:
    """Hold the lock inside the block. Raises `LockNotHad` at the deadline (monotonic); None waits for ever."""
    number = key(schema)
    pause = 0.05
    told = False
    while not await connection.fetchval("SELECT pg_catalog.pg_try_advisory_lock($1)", number):
        if deadline is not None and time.monotonic() >= deadline:
            raise LockNotHad(
                f"another run is migrating the schema {schema}{await _by_whom(connection, number)}: "
                "run again when it is done, or give more seconds with --wait"
            )
        if not told:
            told = True
            tell(f"another run is migrating the schema {schema}{await _by_whom(connection, number)}; waiting for it")
        left = pause if deadline is None else max(0.0, min(pause, deadline - time.monotonic()))
        await asyncio.sleep(left)
        pause = min(pause * 1.5, 1.0)
    try:
        yield
    finally:
        # a connection that broke needs no unlocking, and what broke it is the error to be told
        with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            await connection.execute("SELECT pg_catalog.pg_advisory_unlock($1)", number)


async def _by_whom(connection: Any, number: int) -> str:
    pid = await connection.fetchval(HOLDER, number)
    return f" (server process {pid})" if pid else ""
