"""Take an installation away: every table, view, function and job that the steps have made, and nothing else."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import asyncpg
import msgspec

from asgi_analytics.database.blocks import load
from asgi_analytics.database.names import quoted
from asgi_analytics.database.sqlite.connection import open_connection, transaction
from asgi_analytics.database.sqlite.failures import explain
from asgi_analytics.database.sqlite.url import SqliteUrl, is_sqlite, read_sqlite_url
from asgi_analytics.errors import ConfigError, MigrationError
from asgi_analytics.migrate.lock import advisory_lock
from asgi_analytics.migrate.report import Store
from asgi_analytics.migrate.session import open_session
from asgi_analytics.migrate.sqlite import SCHEMA, sqlite_migrations

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Unpack

    from asgi_analytics.migrate.files import MigrationFile
    from asgi_analytics.migrate.session import Options

SQL = load("asgi_analytics.migrate", "drop.sql")
LEDGER = "analytics_migrations"
_OURS = re.compile(r"\banalytics_[a-z0-9_]+")
_MADE = re.compile(
    r"\bCREATE\s+(?:OR\s+REPLACE\s+)?(?:MATERIALIZED\s+)?(?:TABLE|VIEW|FUNCTION|PROCEDURE|AGGREGATE|TYPE|TRIGGER)\s+"
    r"(?:IF\s+NOT\s+EXISTS\s+)?([a-z][a-z0-9_]*)",
    re.IGNORECASE,
)


class DropReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `drop` took away."""

    flavour: Store
    database: str
    schema: str
    dropped: tuple[str, ...]
    """``table analytics_events``, in the order in which they went."""
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


async def drop(target: str | asyncpg.Connection, *, yes: bool, **options: Unpack[Options]) -> DropReport:
    """Drop all that the steps made, with all events and aggregates, in one transaction.

    Other tables of the schema stay, the schema too, and TimescaleDB, and roles. An SQLite file that holds nothing else
    is deleted. Without ``yes`` nothing is dropped, and `ConfigError` says what would be. The other arguments are those
    of `migrate`. Raises `MigrationError` if nothing is installed, or an object that is not ours depends on one that is.
    """
    if isinstance(target, str) and is_sqlite(target):
        url = read_sqlite_url(target)
        try:
            return await asyncio.to_thread(_drop_sqlite, url, yes)
        except (sqlite3.Error, OSError) as error:
            raise MigrationError(explain(error, url).text) from error
    async with (
        open_session(target, **options) as session,
        advisory_lock(session.connection, session.schema, session.deadline, session.tell),
    ):
        await session.load()
        if not session.has_ledger:
            raise MigrationError(f"nothing is installed in the schema {session.schema}: check --schema")
        found = await session.find(keep=False)
        flavour, _, _ = session.decide_flavour(found)
        await session.use(found.extension_schema)
        connection, names = session.connection, _names(session.files)
        continuous: list[str] = []
        if found.timescaledb is not None and flavour == "timescaledb":
            rows = await connection.fetch(SQL["continuous_aggregates"], session.schema)
            continuous = [row[0] for row in rows]
        objects = await connection.fetch(SQL["objects"], session.schema, names, continuous)
        if not yes:
            raise _refusal(f"the schema {quoted(session.schema)}", [row["kind"] for row in objects])
        async with connection.transaction():
            if continuous:
                await connection.execute("SET LOCAL client_min_messages = error")
                await connection.fetch(SQL["delete_jobs"], session.schema, names)
            dropped = await _drop_all(connection, [tuple(row) for row in objects])
        return DropReport(
            flavour=flavour,
            database=found.text,
            schema=session.schema,
            dropped=tuple(dropped),
            notes=("Roles and the schema itself stay: DROP ROLE and DROP SCHEMA take them away",),
        )


async def _drop_all(connection: Any, objects: list[tuple[str, str, str]]) -> list[str]:
    """Drop one after the other, and what others need when those are gone."""
    dropped: list[str] = []
    left = objects
    while left:
        stuck: list[tuple[str, str, str]] = []
        needs: list[str] = []
        for kind, name, statement in left:
            try:
                async with connection.transaction():
                    await connection.execute(statement)
                dropped.append(f"{kind} {name}")
            except asyncpg.DependentObjectsStillExistError as error:
                stuck.append((kind, name, statement))
                needs += str(getattr(error, "detail", None) or error).splitlines()
        if len(stuck) == len(left):
            ours = re.compile("|".join(rf"\b{re.escape(name)}\b" for _, name, _ in left))
            theirs = [need for need in needs if not ours.search(need.partition(" depends on ")[0])]
            said = "; ".join(dict.fromkeys(theirs or needs))
            raise MigrationError(f"something that is not ours needs what is to be dropped; drop that first: {said}")
        left = stuck
    return dropped


def _drop_sqlite(url: SqliteUrl, yes: bool) -> DropReport:
    names = set(_names(sqlite_migrations()))
    dropped: list[str] = []
    with closing(open_connection(url, "rw", busy_seconds=60.0)) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        with transaction(connection):
            everything = connection.execute(SQL["sqlite_objects"]).fetchall()
            objects = [(kind, name) for kind, name in everything if name in names]
            if (("table", LEDGER)) not in objects:
                raise MigrationError(f"nothing is installed in {url}")
            if not yes:
                raise _refusal(str(url), [kind for kind, _ in objects])
            for kind, name in objects:
                connection.execute(f'DROP {kind} IF EXISTS "{name}"')
                dropped.append(f"{kind} {name}")
            is_empty = len(everything) == len(objects)
        if not is_empty:
            connection.execute("VACUUM")
    if is_empty:
        for path in (url.path, *(url.path.with_name(url.path.name + suffix) for suffix in ("-wal", "-shm"))):
            path.unlink(missing_ok=True)
    return DropReport(
        flavour="sqlite",
        database=f"SQLite {sqlite3.sqlite_version}, {url.path}",
        schema=SCHEMA,
        dropped=tuple(dropped),
        notes=(
            "The file held nothing else, and is deleted" if is_empty else "The file stays, for it holds other tables",
        ),
    )


def _names(files: Iterable[MigrationFile]) -> list[str]:
    """Return every name that the steps make, and others of ours that they mention."""
    found = {LEDGER}
    for file in files:
        for statements in file.statements.values():
            for statement in statements:
                found.update(_OURS.findall(statement.text), _MADE.findall(statement.text))
    return sorted(found)


def _refusal(where: str, kinds: list[str]) -> ConfigError:
    tables, views = kinds.count("table"), kinds.count("view")
    return ConfigError(
        f"this would drop {tables} tables and {views} views of {where}, with all events and aggregates: "
        "give --yes to do it; nothing was changed"
    )
