"""The sink that writes to TimescaleDB, or to plain PostgreSQL with the same tables."""

from __future__ import annotations

import asyncio
import contextlib
import time
from importlib.resources import files
from typing import TYPE_CHECKING, Any, ClassVar, Self
from uuid import UUID, uuid5

import asyncpg
import msgspec

from asgi_analytics.database.names import checked, quoted
from asgi_analytics.database.url import read_dsn
from asgi_analytics.errors import ConfigError, OperatorError, SinkError, TransientError
from asgi_analytics.log import log
from asgi_analytics.sinks.base import Receipt, Rejected
from asgi_analytics.sinks.sqlstates import RIGHTS, Refusal, is_poison, sink_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from asyncpg.pool import PoolConnectionProxy

CONNECT_TIMEOUT = 10.0
WRITE_TIMEOUT = 30.0
UPKEEP_TIMEOUT = 3000.0
"""Seconds until a connection, a write, or the hourly upkeep is given up, to be tried again."""

CAREFUL_SECONDS = 60.0
"""Where one event was there already, more are to be expected: what was sent before an outage comes again. For so long
each is looked for first. To find out by the server's refusal costs the write twice, and a line in its log."""

_NO_TEXT = "22021"
"""What the server says of bytes that are no UTF-8, or hold a NUL."""

_SMALL = 4
"""Parts of this size are searched one by one: halving them further would take more statements, not fewer."""


class TimescaleSink:
    """Writes each batch in one idempotent statement; a batch is stored whole, or not at all.

    Give it an asyncpg pool of your own, which stays yours to close, or a URL: then it opens one connection at the
    first write, and another for the hourly upkeep. ``schema`` names where the tables are; by default the
    ``search_path`` says so. Events that the table refuses go to ``analytics_dead_letters``, in the same transaction.

    Each duplicate is named in the receipt, and writes may overlap, on as many as ``connections``.
    """

    schemes: ClassVar[tuple[str, ...]] = ("postgresql", "postgres", "postgresql+asyncpg")
    tells_duplicates: ClassVar[bool] = True

    def __init__(
        self,
        pool: asyncpg.Pool[Any] | str,
        *,
        schema: str | None = None,
        connections: int = 2,
    ) -> None:
        if not isinstance(pool, str) and not hasattr(pool, "acquire"):
            raise ConfigError(f"pool is a {type(pool).__name__}: use an asyncpg pool, or a URL, postgresql://…")
        self._url = read_dsn(pool).dsn if isinstance(pool, str) else None
        self._pool = None if isinstance(pool, str) else pool
        self._loop: asyncio.AbstractEventLoop | None = None
        self._kept: list[PoolConnectionProxy[Any]] = []
        self._acquiring = 0
        self._left_upkeep = False
        self._prefix = "" if schema is None else quoted(checked(schema, "schema")) + "."
        self._connections = connections
        self._careful_until = 0.0
        self._store_new_events = self._statement("store_new_events")
        self._store_events = self._statement("store_events")
        self._store_dead_letters = self._statement("store_dead_letters")
        self._find = self._statement("find_poison")

    @classmethod
    def from_url(cls, url: str, *, token: str | None = None) -> Self:
        """Return a sink for ``postgresql://user:password@host:port/database``."""
        return cls(url)

    def _statement(self, name: str) -> str:
        text = files("asgi_analytics.sinks").joinpath(f"sql/{name}.sql").read_text(encoding="utf-8")
        return text.replace("{schema}", self._prefix)

    async def write(self, batch: Sequence[bytes]) -> Receipt:
        """Store a batch, and its poison among the dead letters."""
        if not batch:
            return Receipt()
        try:
            async with self._connection() as connection:
                try:
                    return await self._store_or_isolate(connection, batch)
                except TimeoutError as error:  # of the write, not of the connection
                    raise TransientError("the database did not answer in time", fewer=True) from error
                except asyncpg.ReadOnlySQLTransactionError:
                    # A primary that was replaced may live on as a standby, and keep its connections: a new one is led
                    # to where the name points now.
                    connection.terminate()
                    raise
        except SinkError:
            raise
        except Exception as error:
            raise sink_error(error) from error

    async def _store_or_isolate(self, connection: PoolConnectionProxy[Any], batch: Sequence[bytes]) -> Receipt:
        try:
            if time.monotonic() >= self._careful_until:
                with contextlib.suppress(asyncpg.UniqueViolationError):
                    await self._store_new(connection, batch)
                    return Receipt(duplicate_at=())
                self._careful_until = time.monotonic() + CAREFUL_SECONDS
            return await self._store(connection, batch)
        except asyncpg.PostgresError as error:
            if not is_poison(error):
                raise
        return await self._isolate(connection, batch)

    async def _store_new(self, connection: PoolConnectionProxy[Any], batch: Sequence[bytes]) -> None:
        await connection.execute(self._store_new_events, _array(batch), timeout=WRITE_TIMEOUT)

    async def _store(self, connection: PoolConnectionProxy[Any], batch: Sequence[bytes]) -> Receipt:
        rows = await connection.fetch(self._store_events, _array(batch), timeout=WRITE_TIMEOUT)
        duplicate_at = [row[0] for row in rows]
        return Receipt(duplicates=len(duplicate_at), duplicate_at=duplicate_at)

    async def _isolate(self, connection: PoolConnectionProxy[Any], batch: Sequence[bytes]) -> Receipt:
        """Store the good events of a batch, and the bad ones among the dead letters, all in one transaction.

        Most poison is found by one look at the whole batch. What is left is stored, in halves of halves where the table
        still refuses it.
        """
        duplicates = 0
        duplicate_at: list[int] = []
        async with connection.transaction():
            refused = await self._find_poison(connection, batch)
            left = [index for index in range(len(batch)) if index not in refused]
            parts = [(0, len(left))] if left else []
            while parts:
                start, end = parts.pop()
                try:
                    async with connection.transaction():
                        part = await self._store(connection, [batch[index] for index in left[start:end]])
                    duplicates += part.duplicates
                    duplicate_at += [left[start + place] for place in part.duplicate_at or ()]
                except asyncpg.PostgresError as error:
                    if not is_poison(error):
                        raise
                    if end - start == 1:
                        refused[left[start]] = Refusal.by(error)
                        continue
                    step = 1 if end - start <= _SMALL else (end - start + 1) // 2
                    parts += [(at, min(at + step, end)) for at in range(start, end, step)][::-1]
            if refused:
                rows = [_dead_letter(batch[index], refusal) for index, refusal in sorted(refused.items())]
                await connection.execute(self._store_dead_letters, *map(list, zip(*rows, strict=True)))
        return Receipt(
            duplicates=duplicates,
            rejected=[Rejected(index=index, reason=refusal.reason) for index, refusal in sorted(refused.items())],
            duplicate_at=sorted(duplicate_at),
        )

    async def _find_poison(self, connection: PoolConnectionProxy[Any], batch: Sequence[bytes]) -> dict[int, Refusal]:
        """Return what can be told by looking at each event alone, by place; nothing where the server cannot look."""
        refused = {index: Refusal.of(_NO_TEXT) for index, line in enumerate(batch) if not _is_text(line)}
        texts = [b"null" if index in refused else line for index, line in enumerate(batch)]
        try:
            async with connection.transaction():
                found = await connection.fetch(self._find, msgspec.json.encode([text.decode() for text in texts]))
        except asyncpg.PostgresError as error:
            # Nested too deeply even to look at, or a server before PostgreSQL 16.
            if not (is_poison(error) or isinstance(error, asyncpg.UndefinedFunctionError)):
                raise
            return refused
        return {place: Refusal.of(sqlstate, rule) for place, sqlstate, rule in found} | refused

    async def ready(self) -> None:
        """Return when a batch could be stored now; raises `SinkError` that says what is in the way."""
        try:
            async with self._connection() as connection:
                found = [f"{self._prefix}{table}" for table in ("analytics_events", "analytics_dead_letters")]
                state = await connection.fetchrow(self._statement("ready"), found, timeout=WRITE_TIMEOUT)
        except Exception as error:
            raise sink_error(error) from error
        if state["missing"]:
            raise OperatorError("the tables are missing: run analytics-migrate all, and check the search_path")
        if state["refused"]:
            raise OperatorError(RIGHTS)
        if state["read_only"]:
            raise TransientError("the database is read-only: a standby, perhaps")

    async def upkeep(self) -> None:
        """Do the hourly upkeep of plain PostgreSQL, unless another process is at it; nothing on TimescaleDB.

        A user without the right to it leaves it to ``analytics-migrate refresh`` in cron, which is logged once.
        """
        name = f"{self._prefix}analytics_upkeep()"
        try:
            async with self._connection() as connection:
                if await connection.fetchval("SELECT to_regprocedure($1) IS NOT NULL", name):
                    await connection.fetchval(f"SELECT {name}", timeout=UPKEEP_TIMEOUT)
        except asyncpg.InsufficientPrivilegeError:
            if not self._left_upkeep:
                self._left_upkeep = True
                log.warning(
                    "the hourly upkeep is left to cron's analytics-migrate refresh: the user may not call "
                    "analytics_upkeep(), as the writer may that analytics-migrate roles makes"
                )
        except Exception as error:
            raise sink_error(error) from error

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[PoolConnectionProxy[Any]]:
        pool = self._pool
        if self._url is not None and (pool is None or self._loop is not asyncio.get_running_loop()):
            # A pool belongs to one loop; that of a loop which has ended cannot be closed any more, only left.
            self._loop = asyncio.get_running_loop()
            self._kept = []
            pool = self._pool = await asyncpg.create_pool(
                self._url,
                min_size=0,
                max_size=self._connections,
                timeout=CONNECT_TIMEOUT,
                command_timeout=WRITE_TIMEOUT,
                reset=_keep,  # nothing here changes a connection, so a round trip per write is saved
                server_settings={"application_name": "asgi-analytics"},
            )
        assert pool is not None
        if self._url is None:
            async with pool.acquire(timeout=CONNECT_TIMEOUT) as connection:
                yield connection
            return
        # The connections of the last writes are kept at hand: to get one from the pool costs a tenth of a write.
        connection = None
        while self._kept and connection is None:
            connection = self._kept.pop()
            if connection.is_closed():
                await pool.release(connection)
                connection = None
        if connection is None:
            self._acquiring += 1
            try:
                connection = await pool.acquire(timeout=CONNECT_TIMEOUT)
                is_lost = connection.is_closed()
            except TimeoutError:
                self._leave(pool)
                raise
            finally:
                self._acquiring -= 1
            if is_lost:
                self._leave(pool)
                raise asyncpg.InterfaceError("the connection ended while it was opened")
        try:
            yield connection
        except BaseException:
            await pool.release(connection)  # which ends what was begun, or the connection
            raise
        if self._pool is pool and not self._acquiring:
            self._kept.append(connection)
        else:
            await pool.release(connection)

    def _leave(self, pool: asyncpg.Pool[Any]) -> None:
        """Let the next write make a new pool.

        asyncpg's loses the place of a connection that the server ends in the moment between its opening and its first
        use, and gives nobody any when all are lost.
        """
        if self._pool is pool:
            self._pool, self._kept = None, []
        pool.terminate()

    async def aclose(self) -> None:
        """Close the connections that the sink opened itself."""
        if self._url is None or self._pool is None:
            return
        pool, self._pool = self._pool, None
        kept, self._kept = self._kept, []
        if self._loop is not asyncio.get_running_loop():
            return
        try:
            async with asyncio.timeout(1.0):
                for connection in kept:
                    await pool.release(connection)
                await pool.close()
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            pool.terminate()


class _Known(msgspec.Struct):
    """What a dead letter is filed under."""

    event_id: UUID
    event_type: str | None = None
    service: str | None = None


_decode_known = msgspec.json.Decoder(_Known).decode
_NAMELESS = UUID("0a0d7a3e-6f0e-5c52-9d0b-6c6f9f6a1f2e")
"""Namespace of the ids of dead letters whose own cannot be read: the same letter has the same, so it is kept once."""


async def _keep(connection: object) -> None:
    """Leave a connection as it is when it returns to the pool."""


def _array(batch: Sequence[bytes]) -> bytes:
    # Joined in one go: half a megabyte that is copied once more is what a tenth of the write costs.
    parts = [*batch]
    parts[0] = b"[" + parts[0]
    parts[-1] += b"]"
    return b",".join(parts)


def _is_text(line: bytes) -> bool:
    """Tell whether the server takes these bytes for a text at all."""
    try:
        return "\x00" not in line.decode()
    except UnicodeDecodeError:
        return False


def _dead_letter(line: bytes, refusal: Refusal) -> tuple[Any, ...]:
    payload = line.decode("utf-8", "replace").replace("\x00", "\ufffd")
    # Where the data cannot be read, what stands before them may be: inside a text these quotes would be escaped.
    for part in (line, line.partition(b',"data":')[0] + b"}"):
        with contextlib.suppress(ValueError, RecursionError):
            event = _decode_known(part)
            return (event.event_id, event.event_type, event.service, refusal.reason, refusal.sqlstate, payload)
    return (uuid5(_NAMELESS, payload), None, None, refusal.reason, refusal.sqlstate, payload)
