"""Make an export, have it copy what is old, and remove it."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import asyncpg
import msgspec

from asgi_analytics.errors import ConfigError, OperatorError, SinkError
from asgi_analytics.exports import scheme_of, warehouse_from_url
from asgi_analytics.exports.base import SCHEMA
from asgi_analytics.exports.exporter import FIRST_ROWS
from asgi_analytics.exports.pages import ALWAYS, NEVER
from asgi_analytics.exports.session import SQL, export_lock, open_session
from asgi_analytics.log import failure

if TYPE_CHECKING:
    from datetime import datetime

    from asgi_analytics.exports.base import Warehouse

NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
ATTEMPTS = 120
"""How often the index is tried while writers are at the tables."""
WAIT = 60.0
"""Seconds for a run of the same export to end."""


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """What `init_export` did."""

    name: str
    warehouse: str
    """Where to, without a password."""
    is_new: bool
    """Made by this call; otherwise it existed, and has the URL now."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked of an export."""

    name: str
    action: Literal["backfill", "remove", "rebase"]
    is_done: bool = True


async def init_export(database_url: str, name: str, url: str, *, schema: str | None = None) -> Made:
    """Make an export that copies every event that is committed from now on; `want_backfill` adds those of before.

    The table is made in the warehouse, and in the database the index that finds what is new, without blocking writers
    (on TimescaleDB for as long as one chunk takes). An export of that name to the same place gets the URL, for instance
    with another password. Raises `ConfigError` for a name that cannot be one, or that has another place already, and
    `SinkError`.
    """
    if NAME.fullmatch(name) is None:
        raise ConfigError(
            f"{name!r} cannot be the name of an export: use up to 63 lower case letters, digits, _ and -, and begin "
            "with a letter"
        )
    warehouse = warehouse_from_url(url)
    async with open_session(database_url, schema) as connection:
        known = await connection.fetchrow(SQL["state"], name)
        if known is not None and place_of(known["url"]) != place_of(url):
            raise ConfigError(
                f"the export {name} copies to {place_of(known['url'])}: use another name, or analytics-export remove"
            )
        await _prepare(warehouse)
        await _make_index(connection)
        if known is not None:
            await connection.execute("UPDATE analytics_exports SET url = $2 WHERE name = $1", name, url)
        else:
            await connection.fetchval(SQL["make_export"], name, url)
            await connection.execute(SQL["make_lanes"], name, FIRST_ROWS)
    return Made(name=name, warehouse=place_of(url), is_new=known is None)


async def want_backfill(
    database_url: str,
    name: str,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    schema: str | None = None,
) -> Wanted:
    """Have an export copy the events of before it was made, from ``since`` up to ``until`` (aware), or all of them.

    Its next run does it, the oldest first. What was asked for before is not copied twice. Raises `ConfigError` if there
    is no such export, and `SinkError`.
    """
    async with open_session(database_url, schema) as connection:
        done = await connection.execute(SQL["want_backfill"], name, since or NEVER, until or ALWAYS)
        _demand(done == "UPDATE 1", name)
    return Wanted(name=name, action="backfill")


async def remove_export(database_url: str, name: str, *, schema: str | None = None) -> Wanted:
    """Forget an export and its dead letters: the retention waits for it no longer. The warehouse keeps its copy.

    Raises `ConfigError` if there is no such export, and `SinkError`.
    """
    async with open_session(database_url, schema) as connection, export_lock(connection, name, WAIT):
        _demand(await connection.fetchval(SQL["drop_export"], name) == name, name)
    return Wanted(name=name, action="remove")


async def rebase(database_url: str, *, schema: str | None = None) -> Wanted:
    """Let all exports go on in another cluster: after a dump was restored, or after pg_upgrade. It needs the owner.

    What the old cluster has exported after the dump, and what is stored again here, may be there twice afterwards.
    Raises `SinkError`.
    """
    async with open_session(database_url, schema) as connection:
        return Wanted(name="", action="rebase", is_done=await connection.fetchval(SQL["rebase"]))


def place_of(url: str) -> str:
    """Return where a URL leads, without user, password and parameters."""
    parts = urlsplit(url.strip())
    return f"{scheme_of(url)}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")


def _demand(is_there: bool, name: str) -> None:
    if not is_there:
        raise ConfigError(f"there is no export {name}: analytics-export init {name} URL makes it")


async def _prepare(warehouse: Warehouse) -> None:
    try:
        await asyncio.to_thread(warehouse.prepare, SCHEMA)
    except SinkError:
        raise
    except Exception as error:
        raise OperatorError(f"the warehouse failed: {failure(error)}") from error
    finally:
        await asyncio.to_thread(warehouse.close)


async def _make_index(connection: Any) -> None:
    """Make the index that finds what is new, unless it is there."""
    if await connection.fetchval(SQL["has_index"]):
        return
    if await connection.fetchval(SQL["is_hypertable"]):
        await connection.execute(SQL["make_index_by_chunk"])
        return
    for row in await connection.fetch(SQL["full_partitions_without_index"]):
        await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {row['index']}")
        await connection.execute(f"CREATE INDEX CONCURRENTLY {row['index']} ON {row['partition']} (export_xid)")
    for left in reversed(range(ATTEMPTS)):
        try:
            async with connection.transaction():
                await connection.execute(SQL["make_index_of_partitions"])
            return
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            if not left:
                raise
        await asyncio.sleep(0.2)
