"""Bring the aggregates up to date: what is pending is the database's knowledge, to go through it is ours."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import asyncpg
import msgspec

from asgi_analytics.errors import ConfigError, MigrationError
from asgi_analytics.migrate.files import Flavour
from asgi_analytics.migrate.session import open_session

if TYPE_CHECKING:
    from typing import Unpack

    from asgi_analytics.migrate.session import Options

PATIENCE = 60.0
"""Seconds to wait for another refresh of the same range, for instance a policy's, before giving up."""
IS_FILLED = "SELECT to_regprocedure('analytics_fill(text, timestamptz, timestamptz)') IS NOT NULL"
PENDING = "SELECT view_name, window_start, window_end FROM analytics_pending($1, $2)"
FILL = "SELECT analytics_fill($1, $2, $3)"
REFRESH = "CALL refresh_continuous_aggregate($1::text::regclass, $2::timestamptz, $3::timestamptz)"


class Refreshed(msgspec.Struct, frozen=True):
    """One view, brought up to date over a range."""

    view: str
    start: datetime | None
    end: datetime | None
    duration_ms: float


class RefreshReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a refresh did."""

    flavour: Flavour
    database: str
    schema: str
    refreshed: tuple[Refreshed, ...]
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


async def refresh_views(
    target: str | asyncpg.Connection,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    **options: Unpack[Options],
) -> RefreshReport:
    """Bring the aggregates up to date, over all that is pending or from ``since`` up to ``until`` (aware).

    Raises `MigrationError` when the schema is not installed, and as `migrate` does.
    """
    async with open_session(target, **options) as session:
        await session.load()
        session.demand_aggregates()
        found = await session.find(keep=False)
        flavour, warnings, notes = session.judge(found)
        await session.use(found.extension_schema)
        refreshed = await refresh(session.connection, since, until)
        return RefreshReport(
            flavour=flavour,
            database=found.text,
            schema=session.schema,
            warnings=warnings,
            notes=notes,
            refreshed=tuple(refreshed),
        )


async def refresh(connection: Any, since: datetime | None = None, until: datetime | None = None) -> list[Refreshed]:
    """Refresh what is pending, of all time or of the days and hours that touch ``since`` up to ``until`` (aware).

    The schema, and that of the extension, have to be in the connection's ``search_path``. Only buckets that are
    complete, have changed, and whose events are all still there are computed; each range in a transaction of its own,
    so a refresh that was interrupted is simply run again. Without a range, plain PostgreSQL gets its whole upkeep:
    partitions and retention as well. Raises `ConfigError` for a range that is none, `MigrationError` when another
    refresh of the same range does not end within a minute.
    """
    for name, moment in (("since", since), ("until", until)):
        if moment is not None and moment.utcoffset() is None:
            raise ConfigError(f"{name} has no time zone: write {moment.isoformat()}Z for UTC")
    if since is not None and until is not None and since >= until:
        raise ConfigError(f"from {since.isoformat()} to {until.isoformat()} is no range: put the earlier time first")
    if connection.is_in_transaction():
        raise ConfigError("the connection is inside a transaction: a refresh has to commit range by range")
    filled = await connection.fetchval(IS_FILLED)
    await connection.execute("SELECT analytics_collect()" if filled else "SELECT analytics_note_gone_days()")
    refreshed = []
    for view, start, end in await connection.fetch(PENDING, since, until):
        started = time.perf_counter()
        await _patiently(connection, FILL if filled else REFRESH, view, start, end)
        duration_ms = round((time.perf_counter() - started) * 1000, 3)
        refreshed.append(Refreshed(view=view, start=start, end=end, duration_ms=duration_ms))
    if filled and since is None and until is None:
        await connection.execute("SELECT analytics_upkeep()")
    return refreshed


async def _patiently(connection: Any, statement: str, view: str, start: datetime, end: datetime) -> None:
    """Run the statement, again while another refresh holds the range."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            await connection.execute(statement, view, start, end)
            return
        except asyncpg.LockNotAvailableError as exc:
            if time.monotonic() > deadline:
                raise MigrationError(
                    f"{view} is being refreshed by somebody else, over {start.isoformat()} to {end.isoformat()}: "
                    "run this again when that has ended"
                ) from exc
        await asyncio.sleep(0.5)
