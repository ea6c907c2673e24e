"""Bring the aggregates of an installation up to date: ``analytics-migrate refresh``."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import asyncpg
import msgspec

from asgi_analytics.admin.conversions import fill_conversions
from asgi_analytics.database.blocks import load
from asgi_analytics.database.sqlite.url import is_sqlite
from asgi_analytics.errors import ConfigError
from asgi_analytics.migrate import sqlite
from asgi_analytics.migrate.aggregates import Refreshed as Refreshed
from asgi_analytics.migrate.aggregates import refresh_pending
from asgi_analytics.migrate.report import Store
from asgi_analytics.migrate.session import open_session

if TYPE_CHECKING:
    from typing import Unpack

    from asgi_analytics.migrate.session import Options

SQL = load("asgi_analytics.admin", "refresh.sql")


class RefreshReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a refresh did."""

    flavour: Store
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

    The other arguments are those of `migrate`. Raises `MigrationError` if the schema is not installed, and as `migrate`
    does.
    """
    if isinstance(target, str) and is_sqlite(target):
        _check_range(since, until)
        report, filled = await sqlite.refresh(target, since, until, options=options)
        if since is None and until is None:
            await fill_conversions(target)
        return RefreshReport(
            flavour=report.flavour, database=report.database, schema=report.schema, refreshed=tuple(filled)
        )
    async with open_session(target, **options) as session:
        await session.load()
        session.require_aggregates()
        found = await session.find(keep=False)
        flavour, warnings, notes = session.decide_flavour(found)
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

    The schema, and that of the extension, must be in the connection's ``search_path``. Only buckets that are complete,
    have changed, and whose events are all still there are computed; each range in a transaction of its own, so an
    interrupted refresh is simply run again. Without a range, plain PostgreSQL gets its whole upkeep: partitions and
    retention as well. Raises `ConfigError` for an invalid range, and `MigrationError` if another refresh of the same
    range does not end within a minute.
    """
    _check_range(since, until)
    if connection.is_in_transaction():
        raise ConfigError("the connection is inside a transaction: a refresh has to commit range by range")
    refreshed = await refresh_pending(connection, since, until)
    if since is None and until is None:
        await connection.execute(SQL["upkeep"])
    return refreshed


def _check_range(since: datetime | None, until: datetime | None) -> None:
    for name, moment in (("since", since), ("until", until)):
        if moment is not None and moment.utcoffset() is None:
            raise ConfigError(f"{name} has no time zone: write {moment.isoformat()}Z for UTC")
    if since is not None and until is not None and since >= until:
        raise ConfigError(f"since {since.isoformat()} is not before until {until.isoformat()}: swap them")
