"""One run's connection with what it found there: the schema, the ledger, the kind of installation."""

from __future__ import annotations

import contextlib
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypedDict

import asyncpg

from asgi_analytics.database.connection import connect, explain
from asgi_analytics.database.flavour import look, probe
from asgi_analytics.database.names import checked, quoted
from asgi_analytics.database.url import DatabaseUrl, read_dsn
from asgi_analytics.errors import ConfigError, MigrationError
from asgi_analytics.migrate import ledger
from asgi_analytics.migrate.files import find_migrations

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from importlib.resources.abc import Traversable

    from asgi_analytics.database.flavour import Found
    from asgi_analytics.migrate.files import Flavour, MigrationFile
    from asgi_analytics.migrate.plan import Applied

SETTINGS = ("search_path", "timezone", "statement_timeout", "idle_in_transaction_session_timeout")
SET = "SELECT pg_catalog.set_config($1, $2, false)"
CALM = {"timezone": "UTC", "statement_timeout": "0", "idle_in_transaction_session_timeout": "0"}
"""Of every session that migrates: a file means the same on every server, and its time is its own."""


class TimescaleRequired(MigrationError):
    """TimescaleDB was demanded, or is what the schema was installed for, and cannot be used."""


class Options(TypedDict, total=False):
    """What every run takes besides its target; `migrate` says what they mean."""

    schema: str | None
    require_timescaledb: bool
    wait: float | None
    folder: Traversable | None
    tell: Callable[[str], None]


class Session:
    """A connection, what was asked of the run, and what `load` read of the schema."""

    def __init__(
        self,
        connection: Any,
        url: DatabaseUrl | None,
        schema: str,
        *,
        deadline: float | None,
        files: tuple[MigrationFile, ...],
        require_timescaledb: bool,
        tell: Callable[[str], None],
    ) -> None:
        self.connection = connection
        self.url = url
        self.schema = schema
        self.deadline = deadline
        self.files = files
        self.require_timescaledb = require_timescaledb
        self.tell = tell
        self.schema_exists = False
        self.has_ledger = False
        self.rows: list[Applied] = []
        self.recorded: Flavour | None = None

    @property
    def is_new(self) -> bool:
        """Nothing says yet what kind of database the schema is installed for."""
        return self.recorded is None

    async def load(self) -> None:
        """Read the ledger of the schema."""
        found = await self.connection.fetchval("SELECT to_regnamespace($1) IS NOT NULL", quoted(self.schema))
        self.schema_exists = bool(found)
        await self.use(None)
        state = await ledger.read(self.connection, self.schema)
        self.has_ledger = state is not None
        if state is not None:
            self.rows, self.recorded = state
            self.recorded = self.recorded or ledger.flavour_of(self.rows, self.files)

    def demand_aggregates(self) -> None:
        """Raise `MigrationError` where the schema has none yet."""
        if not any(row.phase == "post" for row in self.rows):
            raise MigrationError(f"the schema {self.schema} has no aggregates yet: run analytics-migrate all first")

    async def find(self, *, keep: bool) -> Found:
        """Say what the database is; a new installation with ``keep`` creates TimescaleDB's extension."""
        if self.is_new:
            return await probe(self.connection, self.schema, self.second, keep=keep)
        return await look(self.connection, self.schema)

    def judge(self, found: Found) -> tuple[Flavour, tuple[str, ...], tuple[str, ...]]:
        """Return the kind of installation, warnings and notes. What an installation was made for never changes."""
        missing = f"The schema {self.schema} is installed for TimescaleDB, which cannot be used now. {found.warning}"
        if self.recorded == "timescaledb":
            if found.flavour == "postgresql" and self.require_timescaledb:
                raise TimescaleRequired(missing)
            return "timescaledb", ((missing,) if found.flavour == "postgresql" else ()), ()
        if self.recorded == "postgresql":
            note = f"The schema {self.schema} is installed for plain PostgreSQL"
            if found.flavour == "timescaledb":
                note += f" and stays so, although TimescaleDB {found.timescaledb} is available now"
            if self.require_timescaledb:
                raise TimescaleRequired(f"{note}: use another --schema or database to have TimescaleDB")
            return "postgresql", (), (note,)
        if found.flavour == "postgresql" and self.require_timescaledb:
            raise TimescaleRequired(f"{found.warning} (--require-timescaledb refuses plain PostgreSQL)")
        plain = f"{found.warning}; without it the schema is installed for plain PostgreSQL, and stays so"
        return found.flavour, ((plain,) if found.warning else ()), ()

    def demand(self, flavour: Flavour, found: Found, steps: Sequence[MigrationFile]) -> None:
        """Raise `TimescaleRequired` when there are steps for TimescaleDB and none to run them on."""
        if steps and flavour == "timescaledb" and found.flavour == "postgresql":
            raise TimescaleRequired(
                f"{steps[0].name} is for TimescaleDB, which cannot be used now: {found.warning}, then run this again"
            )

    async def prepare(self, found: Found, flavour: Flavour) -> None:
        """Make the schema and the ledger where they are missing."""
        if not self.schema_exists:
            await self.connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(self.schema)}")
        await self.use(found.extension_schema)
        if not self.has_ledger or self.is_new:
            await ledger.create(self.connection, flavour)

    async def use(self, extension_schema: str | None) -> None:
        """Let unqualified names mean this schema, then the one of the extension."""
        await self.connection.fetchval(SET, "search_path", self.search_path(extension_schema))

    def search_path(self, extension_schema: str | None) -> str:
        """Return the path, quoted. Functions keep it: last is pg_temp, which would else hide our tables from them."""
        names = [quoted(name) for name in dict.fromkeys([self.schema, extension_schema]) if name]
        return ", ".join([*names, "pg_temp"])

    async def second(self) -> Any:
        """Return another connection to the same database, or this one when it was handed in and no URL is known."""
        return self.connection if self.url is None else await connect(self.url, None, lambda _: None)


def _silent(text: str) -> None:
    """Say nothing."""


@asynccontextmanager
async def open_session(
    target: str | asyncpg.Connection,
    *,
    schema: str | None = None,
    require_timescaledb: bool = False,
    wait: float | None = None,
    folder: Traversable | None = None,
    tell: Callable[[str], None] = _silent,
) -> AsyncIterator[Session]:
    """Give a session on a URL, or on an open connection that gets its settings back. Errors leave it explained."""
    files = find_migrations(folder)
    if wait is not None and not 0 <= wait < float("inf"):
        raise ConfigError(f"wait is {wait!r}: use seconds from 0")
    if schema is not None:
        checked(schema, "schema")
    deadline = None if wait is None else time.monotonic() + wait
    url = read_dsn(target) if isinstance(target, str) else None
    connection: Any = target if url is None else await connect(url, deadline, tell)
    before: dict[str, str] = {}
    try:
        if url is None and connection.is_in_transaction():
            raise ConfigError("the connection is inside a transaction: hand in one that is not, or a database URL")
        before = {name: await connection.fetchval("SELECT current_setting($1)", name) for name in SETTINGS}
        for name, value in CALM.items():
            await connection.fetchval(SET, name, value)
        if schema is None:
            schema = await connection.fetchval("SELECT current_schema()")
        if schema is None:
            raise ConfigError("no schema of the search_path exists: name one with --schema, it is made when missing")
        yield Session(
            connection,
            url,
            schema,
            deadline=deadline,
            files=files,
            require_timescaledb=require_timescaledb,
            tell=tell,
        )
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as exc:
        raise explain(exc, url) from exc
    finally:
        await (_close(connection) if url is not None else _restore(connection, before))


async def _close(connection: Any) -> None:
    try:
        await connection.close(timeout=5)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        connection.terminate()


async def _restore(connection: Any, before: dict[str, str]) -> None:
    with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        for name, value in before.items():
            await connection.fetchval(SET, name, value)
