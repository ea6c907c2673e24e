"""Bring the aggregates up to date: the database knows what is pending, and this goes through it."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from typing import Any

import asyncpg
import msgspec

from asgi_analytics.database.blocks import load
from asgi_analytics.errors import MigrationError

SQL = load("asgi_analytics.migrate", "aggregates.sql")
PATIENCE = 60.0
"""Seconds to wait for another refresh of the same range, for instance a policy's, before giving up."""


class Refreshed(msgspec.Struct, frozen=True):
    """One view, brought up to date over a range."""

    view: str
    start: datetime | None
    end: datetime | None
    duration_ms: float


async def refresh_pending(
    connection: Any, since: datetime | None = None, until: datetime | None = None
) -> list[Refreshed]:
    """Compute what is pending, of all time or of the buckets that touch ``since`` up to ``until``; return the ranges.

    Each range has a transaction of its own, so an interrupted run is simply run again. The connection must not be in a
    transaction. Raises `MigrationError` if another refresh of the same range does not end within a minute.
    """
    await connection.execute(SQL["collect"])
    refreshed = []
    for view, start, end in await connection.fetch(SQL["pending"], since, until):
        started = time.perf_counter()
        await _fill(connection, view, start, end)
        duration_ms = round((time.perf_counter() - started) * 1000, 3)
        refreshed.append(Refreshed(view=view, start=start, end=end, duration_ms=duration_ms))
    return refreshed


def script() -> str:
    """Return what `refresh_pending` does, for psql."""
    return f"{SQL['collect']};\n{SQL['fill_script']}\n\\gexec"


async def _fill(connection: Any, view: str, start: datetime, end: datetime) -> None:
    """Compute one range; try again while another refresh holds it."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            await connection.execute(SQL["fill"], view, start, end)
            return
        except asyncpg.LockNotAvailableError as exc:
            if time.monotonic() > deadline:
                raise MigrationError(
                    f"another process is refreshing {view} from {start.isoformat()} to {end.isoformat()}: "
                    "run this again when it is done"
                ) from exc
        await asyncio.sleep(0.5)
