"""How long raw rows are kept, by category: ``analytics-migrate retention``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, get_args

import asyncpg
import msgspec

from asgi_analytics.database.blocks import load
from asgi_analytics.database.sqlite.times import to_text
from asgi_analytics.database.sqlite.url import is_sqlite
from asgi_analytics.errors import ConfigError, MigrationError
from asgi_analytics.events.base import Category
from asgi_analytics.migrate import sqlite
from asgi_analytics.migrate.report import Store
from asgi_analytics.migrate.session import open_session

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any, Unpack

    from asgi_analytics.migrate.session import Options

SQL = load("asgi_analytics.admin", "retention.sql")
SHORTEST, LONGEST = 1, 36_500
"""Days for which rows can be kept."""
FIRST_STEP = 212
"""The migration after which rows are kept by category."""
LOCKS = 6 * 5
"""For each part of the table: itself and its indexes, in as many questions at once as a dashboard asks."""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """How long the raw rows of one category are kept."""

    category: str
    days: int
    previous_days: int | None
    """Before this run, which changed it or with ``dry_run`` would; otherwise null."""
    due: int
    """Rows whose time is over with ``days``; they are dropped within a day."""
    drops: int
    """How many of these the change adds; 0 without a change, or if rows are kept longer."""


class RetentionReport(msgspec.Struct, frozen=True, kw_only=True):
    """How long raw rows are kept, and what a change of it drops."""

    flavour: Store
    database: str
    schema: str
    categories: tuple[Kept, ...]
    """The one that is kept for the shortest time first."""
    changed: bool
    drops: int
    """Rows that the change drops, of all categories."""
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


async def retention(
    target: str | asyncpg.Connection,
    *,
    change: Mapping[str, int] | None = None,
    dry_run: bool = False,
    **options: Unpack[Options],
) -> RetentionReport:
    """Return for how many days raw rows are kept, by category, after changing it where ``change`` names a category.

    Nothing is dropped here: the hourly upkeep drops rows within a day after their time is over. With ``dry_run``
    nothing is changed, only what the change would drop is counted. The other arguments are those of `migrate`. Raises
    `ConfigError` for an unknown category, or days that are not from 1 to 36,500; `MigrationError` if the schema is not
    installed, or too old.
    """
    change = dict(change or {})
    for category, days in change.items():
        check(category, days)
    if isinstance(target, str) and is_sqlite(target):
        return await _retention_on_sqlite(target, change, dry_run, options)
    names, keeps = list(change), [timedelta(days=days) for days in change.values()]
    async with open_session(target, in_one_transaction=True, **options) as session:
        await session.load()
        session.require_aggregates()
        if not any(row.version >= FIRST_STEP for row in session.rows):
            raise MigrationError("the schema keeps all rows alike: run analytics-migrate all first")
        found = await session.find(keep=False)
        flavour, warnings, notes = session.decide_flavour(found)
        await session.use(found.extension_schema)
        rows = await session.connection.fetch(SQL["retention"], names, keeps)
        parts, locks, transactions = await session.connection.fetchrow(SQL["locks"])
        if parts * LOCKS > locks * transactions:
            needed = parts * LOCKS // transactions + 1
            warnings += (
                f"the events lie in {parts} chunks or partitions, and one question may lock each with its indexes: "
                f"set max_locks_per_transaction in postgresql.conf to {needed} or more, and restart the server",
            )
        if change and not dry_run:
            async with session.connection.transaction():
                await session.connection.execute(SQL["change"], names, keeps)
                await session.connection.execute(SQL["change_schemas"], names, list(change.values()))
        return RetentionReport(
            flavour=flavour,
            database=found.text,
            schema=session.schema,
            **_of(map(_kept, rows), changed=bool(change) and not dry_run),
            warnings=warnings,
            notes=notes,
        )


async def _retention_on_sqlite(
    target: str, change: Mapping[str, int], dry_run: bool, options: Options
) -> RetentionReport:
    def work(connection: sqlite3.Connection) -> list[Kept]:
        found = []
        for category, keep in connection.execute(SQL["keep_on_sqlite"]).fetchall():
            days, new_days = (timedelta(days=one) for one in (keep, change.get(category, keep)))
            now = datetime.now(UTC)
            values = {
                "category": category,
                "until": to_text(now - days),
                "new_until": to_text(now - new_days),
            }
            counts = connection.execute(SQL["over_on_sqlite"], values).fetchone()
            found.append(_kept((category, days, new_days if category in change else None, *counts)))
        if not dry_run:
            for values in ({"category": category, "days": days} for category, days in change.items()):
                connection.execute(SQL["change_on_sqlite"], values)
                connection.execute(SQL["change_schemas_on_sqlite"], values)
        return found

    is_changed = bool(change) and not dry_run
    report, found = await sqlite.run_on(
        target, work, needs=FIRST_STEP, lacks="keeps all rows alike", options=options, writes=is_changed
    )
    return RetentionReport(
        flavour=report.flavour, database=report.database, schema=report.schema, **_of(found, changed=is_changed)
    )


def _of(categories: Iterable[Kept], *, changed: bool) -> dict[str, Any]:
    found = sorted(categories, key=lambda one: (one.days, one.category))
    return {"categories": tuple(found), "changed": changed, "drops": sum(one.drops for one in found)}


def check(category: str, days: Any) -> None:
    """Raise `ConfigError` unless rows of the category can be kept for so many days."""
    if category not in get_args(Category):
        raise ConfigError(f"{category!r} is not a category: use one of {', '.join(get_args(Category))}")
    if isinstance(days, bool) or not isinstance(days, int) or not SHORTEST <= days <= LONGEST:
        raise ConfigError(
            f"{category} cannot be kept for {days!r} days: use a whole number from {SHORTEST} to {LONGEST}"
        )


def _kept(row: Sequence[Any]) -> Kept:
    category, keep, new_keep, due, would_be_due = row
    return Kept(
        category=category,
        days=(keep if new_keep is None else new_keep).days,
        previous_days=None if new_keep is None else keep.days,
        due=would_be_due,
        drops=max(0, would_be_due - due),
    )
