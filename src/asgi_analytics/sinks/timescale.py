"""The sink that writes to TimescaleDB, or to plain PostgreSQL with the same tables."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, ClassVar, Self

import asyncpg
import msgspec

from asgi_analytics.database import blocks
from asgi_analytics.database.failures import WRITER_RIGHTS, explain, is_poison
from asgi_analytics.database.names import checked, quoted
from asgi_analytics.database.pool import ConnectionKeeper
from asgi_analytics.database.url import read_dsn
from asgi_analytics.encoding.metric_record import metrics_in
from asgi_analytics.errors import ConfigError, OperatorError, SinkError, TransientError
from asgi_analytics.events.base import categories_to_note, definitions
from asgi_analytics.log import log
from asgi_analytics.sinks.base import Receipt, Rejected, StoredSchema
from asgi_analytics.sinks.dead_letters import NOT_TEXT, Refusal, dead_letter, is_text

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import date, datetime, timedelta

    from asgi_analytics.database.connection import Connection

WRITE_TIMEOUT = 30.0
UPKEEP_TIMEOUT = 3000.0
"""Seconds until a write, or the hourly upkeep, is given up, to be tried again."""

CAREFUL_SECONDS = 60.0
"""For how long each event is looked for before it is written, after one was already there: what was sent before an
outage comes again. To find out by the server's refusal costs a second write, and a line in the server's log."""

_SMALL = 4
"""Parts of this size are searched event by event: halving them further would take more statements, not fewer."""

SQL = blocks.load("asgi_analytics.sinks", "timescale.sql")


class TimescaleSink:
    """Writes each batch in one idempotent statement; a batch is stored whole, or not at all.

    ``pool`` is an asyncpg pool of your own, which stays yours to close, or a URL: then the sink opens one connection at
    the first write, and another for the hourly upkeep. ``schema`` names where the tables are; by default the
    ``search_path`` decides, unless the URL ends with ``?schema=name``. Events that the table refuses go to
    ``analytics_dead_letters``, in the same transaction.

    A URL may lead to a transaction pooler. A pool of your own has to be created with ``statement_cache_size=0`` then.

    The receipt names each duplicate, and writes may overlap, on as many as ``connections``.
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
        self._url = read_dsn(pool) if isinstance(pool, str) else None
        self._connections = ConnectionKeeper(pool if self._url is None else self._url, size=connections)
        if schema is None and self._url is not None:
            schema = self._url.schema
        self._prefix = "" if schema is None else quoted(checked(schema, "schema")) + "."
        self._sql = {name: SQL[name].replace("{schema}", self._prefix) for name in SQL}
        self._careful_until = 0.0
        self._left_upkeep = False
        self._noted: dict[str, str] = {}
        self._definitions = 0
        self._left_noting = False

    @classmethod
    def from_url(cls, url: str, *, token: str | None = None) -> Self:
        """Return a sink for ``postgresql://user:password@host:port/database``."""
        return cls(url)

    async def write(self, batch: Sequence[bytes]) -> Receipt:
        """Store a batch, and the events that the table refuses among the dead letters.

        A connection that is lost is replaced once. Raises `SinkError` if nothing is stored.
        """
        if not batch:
            return Receipt()

        async def store(connection: Connection) -> Receipt:
            try:
                if self._definitions != (newest := definitions()):
                    await self._note_types(connection, categories_to_note())
                    self._definitions = newest
                return await self._store_or_isolate(connection, batch)
            except TimeoutError as error:  # of the write, not of the connection
                raise TransientError("the database did not answer in time", fewer=True) from error

        try:
            return await self._connections.run(store)
        except SinkError:
            raise
        except Exception as error:
            raise self._sink_error(error) from error

    async def _store_or_isolate(self, connection: Connection, batch: Sequence[bytes]) -> Receipt:
        try:
            if time.monotonic() >= self._careful_until and not metrics_in(batch):
                with contextlib.suppress(asyncpg.UniqueViolationError):
                    await connection.execute(self._sql["store_new_events"], _array(batch), timeout=WRITE_TIMEOUT)
                    return Receipt(duplicate_at=())
                self._careful_until = time.monotonic() + CAREFUL_SECONDS
            return await self._store(connection, batch)
        except asyncpg.PostgresError as error:
            if not is_poison(error):
                raise
        return await self._isolate(connection, batch)

    async def _store(self, connection: Connection, batch: Sequence[bytes]) -> Receipt:
        metric_at = metrics_in(batch)
        if not metric_at:
            duplicate_at = await self._store_lines(connection, "store_events", batch, range(len(batch)))
        elif len(metric_at) == len(batch):
            duplicate_at = await self._store_lines(connection, "store_metrics", batch, metric_at)
        else:
            event_at = sorted(set(range(len(batch))).difference(metric_at))
            async with connection.transaction():
                duplicate_at = await self._store_lines(connection, "store_events", batch, event_at)
                duplicate_at += await self._store_lines(connection, "store_metrics", batch, metric_at)
        return Receipt(duplicates=len(duplicate_at), duplicate_at=sorted(duplicate_at))

    async def _store_lines(
        self, connection: Connection, statement: str, batch: Sequence[bytes], places: Sequence[int]
    ) -> list[int]:
        """Store the lines at these places of a batch in one statement; return those that were there already."""
        lines = [batch[place] for place in places]
        rows = await connection.fetch(self._sql[statement], _array(lines), timeout=WRITE_TIMEOUT)
        return [places[row[0]] for row in rows]

    async def _isolate(self, connection: Connection, batch: Sequence[bytes]) -> Receipt:
        """Store the good events of a batch, and the bad ones among the dead letters, all in one transaction.

        Most bad events are found by one look at the whole batch. What is left is stored, in halves of halves if the
        table still refuses it.
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
                rows = [dead_letter(batch[index], refusal) for index, refusal in sorted(refused.items())]
                await connection.execute(self._sql["store_dead_letters"], *map(list, zip(*rows, strict=True)))
        return Receipt(
            duplicates=duplicates,
            rejected=[Rejected(index=index, reason=refusal.reason) for index, refusal in sorted(refused.items())],
            duplicate_at=sorted(duplicate_at),
        )

    async def _find_poison(self, connection: Connection, batch: Sequence[bytes]) -> dict[int, Refusal]:
        """Return, by place, the refusals that each event shows by itself; none if the server cannot look."""
        refused = {index: Refusal.of(NOT_TEXT) for index, line in enumerate(batch) if not is_text(line)}
        texts = [b"null" if index in refused else line for index, line in enumerate(batch)]
        try:
            async with connection.transaction():
                lines = msgspec.json.encode([text.decode() for text in texts])
                found = await connection.fetch(self._sql["find_poison"], lines)
        except asyncpg.PostgresError as error:
            # Nested too deeply even to look at, or a server before PostgreSQL 16.
            if not (is_poison(error) or isinstance(error, asyncpg.UndefinedFunctionError)):
                raise
            return refused
        return {place: Refusal.of(sqlstate, rule) for place, sqlstate, rule in found} | refused

    async def ready(self) -> None:
        """Return when a batch could be stored now. Raises `SinkError` that says what is in the way."""
        # Not that of metrics: events are stored with the tables of an earlier release, too.
        names = ("analytics_events", "analytics_dead_letters")
        tables = [f"{self._prefix}{name}" for name in names]

        async def look(connection: Connection) -> Any:
            return await connection.fetchrow(self._sql["ready"], tables, timeout=WRITE_TIMEOUT)

        try:
            state = await self._connections.run(look)
        except Exception as error:
            raise self._sink_error(error) from error
        if state["missing"]:
            raise OperatorError("the tables are missing: run analytics-migrate all, and check the search_path")
        if state["refused"]:
            raise OperatorError(f"rights are missing: {WRITER_RIGHTS}")
        if state["read_only"]:
            raise TransientError("the database is read-only: a standby, perhaps")

    async def upkeep(self) -> None:
        """Do the hourly upkeep unless another process does it: forget old keys of visitors, and drop what is over.

        On plain PostgreSQL it also fills the aggregates. What is over is dropped in small transactions. Without the
        right to do it, it is left to ``analytics-migrate refresh`` in cron, which is logged once.
        """
        self._definitions = 0

        async def call(connection: Connection) -> None:
            if await connection.fetchval(self._sql["has_function"], f"{self._prefix}analytics_upkeep()"):
                await connection.fetchval(self._sql["upkeep"], timeout=UPKEEP_TIMEOUT)
            if await connection.fetchval(self._sql["has_function"], f"{self._prefix}analytics_drop_old()"):
                while await connection.fetchval(self._sql["drop_old"], timeout=UPKEEP_TIMEOUT):
                    pass

        try:
            await self._connections.run(call)
        except asyncpg.InsufficientPrivilegeError:
            if not self._left_upkeep:
                self._left_upkeep = True
                log.warning(
                    "the hourly upkeep is left to analytics-migrate refresh in cron: the user may not call "
                    "analytics_upkeep(); the writer of analytics-migrate roles may"
                )
        except Exception as error:
            raise self._sink_error(error) from error

    async def note_event_types(self, categories: Mapping[str, str]) -> None:
        """Let the database know the categories of types, unless this sink has done so."""

        async def note(connection: Connection) -> None:
            await self._note_types(connection, categories)

        try:
            await self._connections.run(note)
        except Exception as error:
            raise self._sink_error(error) from error

    async def _note_types(self, connection: Connection, categories: Mapping[str, str]) -> None:
        """Note the categories before the first row of a type is stored, so that none is dropped too early."""
        new = {name: category for name, category in categories.items() if self._noted.get(name) != category}
        if not new:
            return
        try:
            await connection.execute(
                self._sql["note_event_types"], list(new), list(new.values()), timeout=WRITE_TIMEOUT
            )
        except (asyncpg.UndefinedFunctionError, asyncpg.InsufficientPrivilegeError):
            if not self._left_noting:
                self._left_noting = True
                log.warning(
                    "rows of these types are kept as long as interactions, because the database does not take their "
                    "category: run analytics-migrate all, and analytics-migrate roles again; types: %d", len(new)
                )  # fmt: skip
            return  # the next upkeep lets it be tried again
        self._noted |= new

    async def kept_types(self) -> Mapping[str | None, timedelta]:
        """Return for how long the rows of each type are kept, and under None those of all others."""
        return dict(await self._ask("kept_types"))

    async def schemas_fingerprint(self) -> str:
        """Return what changes with the schemas that events are checked by."""
        [(fingerprint,)] = await self._ask("schemas_fingerprint")
        return str(fingerprint)

    async def active_schemas(self) -> Sequence[StoredSchema]:
        """Return the schemas that events are checked by."""
        return [StoredSchema(*row) for row in await self._ask("active_schemas")]

    async def visitor_key(self, day: date) -> bytes | None:
        """Return the key that all processes count the visitors of a day by; None for a day that is over for long."""
        [(key,)] = await self._ask("visitor_key", day)
        return key  # type: ignore[no-any-return]  # bytes, or None

    async def seen_visitors(self, visitors: Mapping[str, datetime]) -> Collection[str]:
        """Return the visitors that any process has noted at most 30 minutes before the time that is given."""
        rows = await self._ask("seen_visitors", list(visitors), list(visitors.values()))
        return {row[0] for row in rows}

    async def note_visitors(self, visitors: Mapping[str, datetime]) -> None:
        """Note when visitors were seen."""
        await self._ask("note_visitors", list(visitors), list(visitors.values()))

    async def _ask(self, name: str, *arguments: Any) -> list[Any]:
        async def ask(connection: Connection) -> Any:
            return await connection.fetch(self._sql[name], *arguments, timeout=WRITE_TIMEOUT)

        try:
            rows: list[Any] = await self._connections.run(ask)
        except Exception as error:
            raise self._sink_error(error) from error
        return rows

    async def aclose(self) -> None:
        """Close the connections that the sink opened itself."""
        await self._connections.aclose()

    def _sink_error(self, error: BaseException) -> SinkError:
        failure = explain(error, self._url, rights=WRITER_RIGHTS, may_quote=False)
        if failure.kind == "operator":
            return OperatorError(failure.text)
        return TransientError(failure.text, fewer=failure.is_slow)


def _array(batch: Sequence[bytes]) -> bytes:
    # Joined in one go: copying half a megabyte once more takes a tenth of the write.
    parts = [*batch]
    parts[0] = b"[" + parts[0]
    parts[-1] += b"]"
    return b",".join(parts)
