"""The flavour of a database: TimescaleDB with its full licence, or plain PostgreSQL and why it is not the former."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import asyncpg
import msgspec

from asgi_analytics.database import blocks
from asgi_analytics.database.names import quoted
from asgi_analytics.errors import MigrationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asgi_analytics.database.connection import Connection

Flavour = Literal["timescaledb", "postgresql"]
FLAVOURS: tuple[Flavour, ...] = get_args(Flavour)

SQL = blocks.load("asgi_analytics.database", "flavour.sql")

INSTALL = "TimescaleDB is not installed on this server: install it to have compression and continuous aggregates"
PRELOAD = (
    "TimescaleDB is installed but not preloaded: add timescaledb to shared_preload_libraries and restart the server"
)
LICENCE = (
    "TimescaleDB {version} runs with the licence '{licence}', which has no continuous aggregates: "
    "install its community edition, or set timescaledb.license = 'timescale' and restart the server"
)
RIGHTS = (
    "TimescaleDB is available but the role {role} may not create it: as a superuser run CREATE EXTENSION timescaledb "
    "in this database, or GRANT CREATE ON DATABASE {database} TO {role}"
)
USAGE = (
    "TimescaleDB is in the schema {schema}, which the role {role} may not use: as the schema's owner or a superuser "
    "run GRANT USAGE ON SCHEMA {schema} TO {role}, then this again"
)


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A database as it is now."""

    flavour: Flavour
    server: str
    """PostgreSQL's version."""
    timescaledb: str | None
    """TimescaleDB's version, if it can be used."""
    extension_schema: str | None = None
    """Where the extension lives, or would."""
    create_sql: str | None = None
    """The SQL that would create the extension, if it does not exist yet."""
    warning: str | None = None
    """Why TimescaleDB cannot be used and what to do about it."""
    obstacle: str | None = None
    """Why this role cannot take a step for TimescaleDB, although the database could, and what to do about it."""

    @property
    def text(self) -> str:
        """``TimescaleDB 2.29.2 on PostgreSQL 18.6``, or ``PostgreSQL 18.6``."""
        server = f"PostgreSQL {self.server}"
        return f"TimescaleDB {self.timescaledb} on {server}" if self.timescaledb else server


async def inspect_server(connection: Connection, schema: str) -> Found:
    """Return what the database is, without trying anything: a preloaded extension counts as usable before it exists."""
    facts = await connection.fetchrow(SQL["facts"])
    server, version = facts["server"], facts["installed"] or facts["available"]

    def plain(warning: str) -> Found:
        return Found(
            flavour="postgresql",
            server=server,
            timescaledb=None,
            extension_schema=facts["extension_schema"],
            warning=warning,
        )

    if version is None:
        return plain(INSTALL)
    if not facts["preloaded"]:
        return plain(PRELOAD)
    if facts["installed"] and facts["licence"] != "timescale":
        return plain(LICENCE.format(version=version, licence=facts["licence"]))
    create_sql, home = None, facts["extension_schema"]
    if not facts["installed"]:
        create_sql, home = SQL["create_extension"], "public"
        if not facts["has_public"]:
            create_sql, home = SQL["create_extension_in_schema"].replace("{schema}", quoted(schema)), schema
    obstacle = None
    if facts["installed"] and not facts["may_use_extension"]:
        obstacle = USAGE.format(schema=quoted(facts["extension_schema"]), role=quoted(facts["role"]))
    return Found(
        flavour="timescaledb",
        server=server,
        timescaledb=version,
        extension_schema=home,
        create_sql=create_sql,
        obstacle=obstacle,
    )


async def try_extension(
    connection: Connection, schema: str, second: Callable[[], Awaitable[Any]], *, keep: bool
) -> Found:
    """Return what the database is, by creating the extension if that has to be tried.

    ``second`` opens another connection for the attempt: a server that was not told to preload the library answers with
    FATAL. With ``keep`` the extension stays if its licence is the full one; without, everything is rolled back.
    """
    found = await inspect_server(connection, schema)
    if found.create_sql is None:
        return found
    trial = await second()
    try:
        transaction = trial.transaction()
        await transaction.start()
        commit = False
        try:
            warning, is_there = await _try(trial, found)
            commit = keep and warning is None and not is_there
        finally:
            if not trial.is_closed():
                await (transaction.commit() if commit else transaction.rollback())
    finally:
        if trial is not connection:
            await trial.close()
    if warning is not None:
        return Found(flavour="postgresql", server=found.server, timescaledb=None, warning=warning)
    return await inspect_server(connection, schema) if keep or is_there else found


async def _try(trial: Connection, found: Found) -> tuple[str | None, bool]:
    """Create the extension; return why it cannot be used, if so, and whether another process created it meanwhile."""
    assert found.create_sql is not None
    facts = await trial.fetchrow(SQL["facts"])
    try:
        await trial.execute(found.create_sql)
        licence = await trial.fetchval(SQL["licence"])
    except (asyncpg.InsufficientPrivilegeError, asyncpg.FeatureNotSupportedError) as exc:
        text = RIGHTS.format(role=quoted(facts["role"]), database=quoted(facts["database"]))
        return (text if isinstance(exc, asyncpg.InsufficientPrivilegeError) else f"{text} ({exc})"), False
    except (asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
        return None, True
    except (asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError) as exc:
        if trial.is_closed():
            return PRELOAD, False
        raise MigrationError(
            f"the extension timescaledb cannot be created: {exc}; "
            "run CREATE EXTENSION timescaledb by hand, then this again"
        ) from exc
    if licence != "timescale":
        return LICENCE.format(version=found.timescaledb, licence=licence), False
    return None, False
