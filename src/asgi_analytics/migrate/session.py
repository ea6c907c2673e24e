"""The connection of one run, and what it found there: the schema, the ledger, the flavour of the installation."""

from __future__ import annotations

import contextlib
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

import asyncpg

from asgi_analytics.database import blocks
from asgi_analytics.database.connection import command_error, connect, is_direct, shares_sessions
from asgi_analytics.database.failures import DRIVER_ERRORS
from asgi_analytics.database.flavour import inspect_server, try_extension
from asgi_analytics.database.names import checked, quoted
from asgi_analytics.database.url import read_dsn
from asgi_analytics.errors import ConfigError, MigrationError
from asgi_analytics.migrate import ledger
from asgi_analytics.migrate.files import find_migrations

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from importlib.resources.abc import Traversable

    from asgi_analytics.database.connection import Connection
    from asgi_analytics.database.flavour import Flavour, Found
    from asgi_analytics.database.url import DatabaseUrl
    from asgi_analytics.migrate.files import MigrationFile
    from asgi_analytics.migrate.plan import Applied

SQL = blocks.load("asgi_analytics.migrate", "session.sql")

STEADY = {
    "timezone": "UTC",
    "statement_timeout": "0",
    "transaction_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
}
"""Settings of every session that migrates: a file means the same on every server, and no timeout ends it half-way."""

NOTICE_LOST_CLIENT = {"client_connection_check_interval": "2s"}
"""Lets the server look for its client while a statement runs: a run that is killed would leave its statement running,
and with it the lock. Not every system can look."""

SETTINGS = ["search_path", *STEADY, *NOTICE_LOST_CLIENT]

POOLER = (
    "{where} is behind a transaction pooler, which lends a server session for one transaction only; this command needs "
    "a session of its own: connect to the database itself, or to a pooler in session mode"
)


class TimescaleRequired(MigrationError):
    """TimescaleDB cannot be used, although it is required or the schema is installed for it."""


class TransactionPooler(MigrationError):
    """Between this client and the server there is a pooler that lends sessions for one transaction only."""


class Options(TypedDict, total=False):
    """What every run takes besides its target; see `migrate`."""

    schema: str | None
    require_timescaledb: bool
    wait: float | None
    folder: Traversable | None
    tell: Callable[[str], None]


class Decision(NamedTuple):
    """What a schema is, or will be, installed for, and what to tell about it."""

    flavour: Flavour
    warnings: tuple[str, ...] = ()
    """What the operator should act on."""
    notes: tuple[str, ...] = ()


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
        """Whether nothing says yet what flavour the schema is installed for."""
        return self.recorded is None

    async def load(self) -> None:
        """Read the ledger of the schema."""
        self.schema_exists = bool(await self.connection.fetchval(SQL["schema_exists"], quoted(self.schema)))
        await self.use(None)
        state = await ledger.read(self.connection, self.schema)
        self.has_ledger = state is not None
        if state is not None:
            self.rows, self.recorded = state
            self.recorded = self.recorded or ledger.flavour_of(self.rows, self.files)

    def require_aggregates(self) -> None:
        """Raise `MigrationError` if the schema has none yet."""
        if not any(row.phase == "post" for row in self.rows):
            raise MigrationError(f"the schema {self.schema} has no aggregates yet: run analytics-migrate all first")

    async def find(self, *, keep: bool) -> Found:
        """Return what the database is; ``keep`` creates TimescaleDB's extension for a new installation."""
        if self.is_new:
            return await try_extension(self.connection, self.schema, self.second, keep=keep)
        return await inspect_server(self.connection, self.schema)

    def decide_flavour(self, found: Found) -> Decision:
        """Return what the schema is or will be installed for. An installation keeps its flavour for ever.

        Raises `TimescaleRequired`.
        """
        if self.recorded == "timescaledb":
            if found.flavour == "timescaledb":
                return Decision("timescaledb")
            missing = (
                f"The schema {self.schema} is installed for TimescaleDB, which cannot be used now. {found.warning}"
            )
            if self.require_timescaledb:
                raise TimescaleRequired(missing)
            return Decision("timescaledb", warnings=(missing,))
        if self.recorded == "postgresql":
            note = f"The schema {self.schema} is installed for plain PostgreSQL"
            if found.flavour == "timescaledb":
                note += f" and stays so, although TimescaleDB {found.timescaledb} is available now"
            if self.require_timescaledb:
                raise TimescaleRequired(f"{note}: use another --schema or database to have TimescaleDB")
            return Decision("postgresql", notes=(note,))
        if found.flavour == "postgresql" and self.require_timescaledb:
            raise TimescaleRequired(f"{found.warning} (--require-timescaledb refuses plain PostgreSQL)")
        plain = f"{found.warning}; without it the schema is installed for plain PostgreSQL, and stays so"
        return Decision(found.flavour, warnings=(plain,) if found.warning else ())

    def require_server(self, flavour: Flavour, found: Found, steps: Sequence[MigrationFile]) -> None:
        """Raise `TimescaleRequired` if there are steps for TimescaleDB and it, or its schema, cannot be used."""
        if steps and flavour == "timescaledb" and found.flavour == "postgresql":
            raise TimescaleRequired(
                f"{steps[0].name} is for TimescaleDB, which cannot be used now: {found.warning}, then run this again"
            )
        if steps and flavour == "timescaledb" and found.obstacle is not None:
            raise TimescaleRequired(found.obstacle)

    async def prepare(self, found: Found, flavour: Flavour) -> None:
        """Create the schema and the ledger if they are missing."""
        if not self.schema_exists:
            await self.connection.execute(SQL["create_schema"].replace("{schema}", quoted(self.schema)))
        await self.use(found.extension_schema)
        if not self.has_ledger or self.is_new:
            await ledger.create(self.connection, flavour)

    async def use(self, extension_schema: str | None) -> None:
        """Let unqualified names mean this schema, then the one of the extension."""
        await _set(self.connection, {"search_path": self.search_path(extension_schema)})

    def search_path(self, extension_schema: str | None) -> str:
        """Return the path, quoted. Functions keep it: last is pg_temp, which would else hide our tables from them."""
        names = [quoted(name) for name in dict.fromkeys([self.schema, extension_schema]) if name]
        return ", ".join([*names, "pg_temp"])

    async def second(self) -> Any:
        """Return another connection to the same database, or this one if it was handed in and no URL is known."""
        if self.url is None:
            return self.connection
        other = await connect(self.url, None, _silent)
        if await is_direct(other):
            await _set(other, STEADY)
        return other


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
    in_one_transaction: bool = False,
) -> AsyncIterator[Session]:
    """Give a session on a URL, or on an open connection that gets its settings back. Errors leave it explained.

    A command that does everything in one transaction says so by ``in_one_transaction``: behind a transaction pooler the
    block is one. For any other command `TransactionPooler` is raised there, before anything is changed.
    """
    files = find_migrations(folder)
    if wait is not None and not 0 <= wait < float("inf"):
        raise ConfigError(f"wait is {wait!r}: use a number of seconds from 0")
    if schema is not None:
        checked(schema, "schema")
    deadline = None if wait is None else time.monotonic() + wait
    url = read_dsn(target) if isinstance(target, str) else None
    connection: Any = target if url is None else await connect(url, deadline, tell)
    before: dict[str, str] = {}
    try:
        if url is None and connection.is_in_transaction():
            raise ConfigError("the connection is inside a transaction: hand in one that is not, or a database URL")
        is_shared = await _is_shared(connection, url)
        if is_shared and not in_one_transaction:
            raise TransactionPooler(POOLER.format(where=url or "the connection"))
        async with connection.transaction() if is_shared else contextlib.nullcontext():
            if url is None and not is_shared:
                before = {row["name"]: row["value"] for row in await connection.fetch(SQL["settings"], SETTINGS)}
            await _set(connection, STEADY)
            if not is_shared:
                with contextlib.suppress(asyncpg.PostgresError):
                    await _set(connection, NOTICE_LOST_CLIENT)
            if schema is None and url is not None:
                schema = url.schema
            if schema is None:
                schema = await connection.fetchval(SQL["current_schema"])
            if schema is None:
                raise ConfigError("no schema of the search_path exists: name one with --schema, and it is created")
            yield Session(
                connection,
                url,
                schema,
                deadline=deadline,
                files=files,
                require_timescaledb=require_timescaledb,
                tell=tell,
            )
    except DRIVER_ERRORS as exc:
        raise command_error(exc, url) from exc
    finally:
        await (_close(connection) if url is not None else _restore(connection, before))


async def _is_shared(connection: Connection, url: DatabaseUrl | None) -> bool:
    """Tell whether a transaction pooler is in between; any pooler counts as one if there is no URL to look again."""
    if await is_direct(connection):
        return False
    if url is None:
        return True
    other = await connect(url, None, _silent)
    try:
        return await shares_sessions(connection, other)
    finally:
        await _close(other)


async def _set(connection: Connection, settings: dict[str, str]) -> None:
    """Change settings of the session, or of the transaction that is open."""
    is_local = connection.is_in_transaction()
    await connection.fetch(SQL["set"], list(settings), list(settings.values()), is_local)


async def _close(connection: Any) -> None:
    try:
        await connection.close(timeout=5)
    except DRIVER_ERRORS:
        connection.terminate()


async def _restore(connection: Connection, before: dict[str, str]) -> None:
    with contextlib.suppress(*DRIVER_ERRORS):
        await _set(connection, before)
