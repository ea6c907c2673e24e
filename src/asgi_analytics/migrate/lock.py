"""One migration at a time in one schema, over every process and machine: an advisory lock.

PostgreSQL releases it when the session ends, however it ends. It is polled instead of waited for inside the server: a
waiting statement holds a snapshot, and a CREATE INDEX CONCURRENTLY by the holder would wait for that for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from asgi_analytics.database import blocks
from asgi_analytics.database.failures import DRIVER_ERRORS
from asgi_analytics.errors import MigrationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from asgi_analytics.database.connection import Connection

SQL = blocks.load("asgi_analytics.migrate", "lock.sql")


class LockNotHad(MigrationError):
    """Another run held the lock longer than this one was told to wait."""


def key(schema: str) -> int:
    """Return the lock's number for a schema, as PostgreSQL takes it: a signed 64-bit integer."""
    digest = hashlib.sha256(f"asgi-analytics migrations in {schema}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


@asynccontextmanager
async def advisory_lock(
    connection: Connection, schema: str, deadline: float | None, tell: Callable[[str], None]
) -> AsyncIterator[None]:
    """Hold the lock inside the block; inside a transaction, until its end.

    ``tell`` gets a line if another run has it. Raises `LockNotHad` at the deadline (monotonic); None waits for ever.
    """
    number = key(schema)
    in_transaction = connection.is_in_transaction()
    take = SQL["try_transaction_lock" if in_transaction else "try_lock"]
    pause = 0.05
    told = False
    while not await connection.fetchval(take, number):
        if deadline is not None and time.monotonic() >= deadline:
            raise LockNotHad(
                f"another run is migrating the schema {schema}{await _holder(connection, number)}: "
                "run again when it is done, or give more seconds with --wait"
            )
        if not told:
            told = True
            tell(f"another run is migrating the schema {schema}{await _holder(connection, number)}; waiting for it")
        left = pause if deadline is None else max(0.0, min(pause, deadline - time.monotonic()))
        await asyncio.sleep(left)
        pause = min(pause * 1.5, 1.0)
    try:
        yield
    finally:
        if not in_transaction:
            # A broken connection needs no unlocking, and what broke it is the error to be told.
            with contextlib.suppress(*DRIVER_ERRORS):
                await connection.execute(SQL["unlock"], number)


async def _holder(connection: Connection, number: int) -> str:
    pid = await connection.fetchval(SQL["holder"], number)
    return f" (server process {pid})" if pid else ""
