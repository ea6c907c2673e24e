"""How far behind the exports are, and what went wrong."""

from __future__ import annotations

from datetime import datetime

import msgspec

from asgi_analytics.errors import ConfigError
from asgi_analytics.exports.session import SQL, open_session
from asgi_analytics.exports.setup import place_of


class ExportStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One export."""

    name: str
    warehouse: str
    """Where to, without a password."""
    events: int
    """Copied so far."""
    events_behind: int
    """Committed and not copied yet, without those of a backfill."""
    seconds_behind: float
    """No event waits for longer."""
    backfill_from: datetime | None
    """How far a backfill is; None if there is none to be done."""
    backfill_until: datetime | None
    dead_letters: int
    erasures: int
    """Users who are still to be erased in the warehouse."""
    attempts: int
    """That failed since something was copied."""
    succeeded_at: datetime | None
    failed_at: datetime | None
    last_error: str | None


class StatusReport(msgspec.Struct, frozen=True, kw_only=True):
    """All exports, or one."""

    exports: tuple[ExportStatus, ...]


async def export_status(database_url: str, name: str | None = None, *, schema: str | None = None) -> StatusReport:
    """Return how each export is doing, or the one of that name. Raises `ConfigError` without it, and `SinkError`."""
    async with open_session(database_url, schema) as connection:
        rows = await connection.fetch(SQL["status"], name)
    if name is not None and not rows:
        raise ConfigError(f"there is no export {name}")
    return StatusReport(
        exports=tuple(
            ExportStatus(
                **{**{key: value for key, value in row.items() if key != "url"}, "warehouse": place_of(row["url"])}
            )
            for row in rows
        )
    )
