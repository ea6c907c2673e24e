"""What a database is: TimescaleDB with its full licence, or PostgreSQL, and why not the former."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncpg
import msgspec

from asgi_analytics.database.names import quoted
from asgi_analytics.errors import MigrationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asgi_analytics.migrate.files import Flavour

FACTS = """
SELECT split_part(current_setting('server_version'), ' ', 1) AS server,
       current_user AS role,
       current_database() AS database,
       to_regnamespace('public') IS NOT NULL AS has_public,
       (SELECT default_version FROM pg_catalog.pg_available_extensions WHERE name = 'timescaledb') AS available,
       (SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'timescaledb') AS installed,
       (SELECT nspname FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
         WHERE extname = 'timescaledb') AS extension_schema,
       -- its loader defines settings; shared_preload_libraries itself is hidden from all but superusers
       EXISTS (SELECT FROM pg_catalog.pg_settings WHERE name LIKE 'timescaledb.%') AS preloaded,
       current_setting('timescaledb.license', true) AS licence
"""
CREATE = "CREATE EXTENSION timescaledb SCHEMA public"
CREATE_WITHOUT_PUBLIC = "CREATE SCHEMA IF NOT EXISTS {schema};\nCREATE EXTENSION timescaledb SCHEMA {schema}"

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


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A database as it is now."""

    flavour: Flavour
    server: str
    """PostgreSQL's version."""
    timescaledb: str | None
    """TimescaleDB's version, when it can be used."""
    extension_schema: str | None = None
    """Where the extension lives, or would."""
    create_sql: str | None = None
    """What would install the extension, when it is not there yet and may be."""
    warning: str | None = None
    """Why TimescaleDB cannot be used and what to do about it."""

    @property
    def text(self) -> str:
        """``TimescaleDB 2.29.2 on PostgreSQL 18.6``, or ``PostgreSQL 18.6``."""
        server = f"PostgreSQL {self.server}"
        return f"TimescaleDB {self.timescaledb} on {server}" if self.timescaledb else server


async def look(connection: Any, schema: str) -> Found:
    """Say what the database is, without trying anything: a preloaded extension that is not created counts as usable."""
    facts = await connection.fetchrow(FACTS)
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
        create_sql, home = CREATE, "public"
        if not facts["has_public"]:
            create_sql, home = CREATE_WITHOUT_PUBLIC.format(schema=quoted(schema)), schema
    return Found(
        flavour="timescaledb", server=server, timescaledb=version, extension_schema=home, create_sql=create_sql
    )


async def probe(connection: Any, schema: str, second: Callable[[], Awaitable[Any]], *, keep: bool) -> Found:
    """Say what the database is, by creating the extension where that has to be tried.

    ``second`` opens another connection for the attempt: a server that was not told to preload the library answers with
    FATAL. With ``keep`` the extension stays when its licence is the full one; without, all is rolled back.
    """
    found = await look(connection, schema)
    if found.create_sql is None:
        return found
    trial = await second()
    try:
        transaction = trial.transaction()
        await transaction.start()
        commit = False
        try:
            warning, lost = await _try(trial, found)
            commit = keep and warning is None and not lost
        finally:
            if not trial.is_closed():
                await (transaction.commit() if commit else transaction.rollback())
    finally:
        if trial is not connection:
            await trial.close()
    if warning is not None:
        return Found(flavour="postgresql", server=found.server, timescaledb=None, warning=warning)
    return await look(connection, schema) if keep or lost else found


async def _try(trial: Any, found: Found) -> tuple[str | None, bool]:
    """Create the extension; return why it is of no use, if so, and whether somebody else was faster."""
    assert found.create_sql is not None
    facts = await trial.fetchrow(FACTS)
    try:
        await trial.execute(found.create_sql)
        licence = await trial.fetchval("SELECT current_setting('timescaledb.license', true)")
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
