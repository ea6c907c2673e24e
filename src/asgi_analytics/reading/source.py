"""What questions are asked of: a pool, one read-only transaction per question, and the limits of both."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from datetime import UTC, datetime, tzinfo
from typing import Any, TypeVar, cast

import asyncpg
import msgspec

from asgi_analytics.database.names import checked, quoted
from asgi_analytics.errors import ConfigError, InvalidQuery
from asgi_analytics.reading.failures import FAILURES, read_error
from asgi_analytics.reading.pool import ACQUIRE_TIMEOUT, UrlPool
from asgi_analytics.reading.ranges import WEEK_DAYS, Buckets, Moment, Range, Split, read_zone
from asgi_analytics.reading.sqlite_pool import SqliteConnection, SqlitePool
from asgi_analytics.reading.statements import Dialect, Statement, Statements

Answer = TypeVar("Answer")

SQL = Statements("source")
MOST_ROWS = 10_000
"""Rows of one answer. One more is asked for, so that it is noticed if there are more."""
NO_LIMIT = 2**62
"""More rows than any answer has: SQLite takes no null for a limit."""
BATCH = 1_000
"""Rows that are held at a time of an answer that is written as it comes."""
READ_ONLY = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
READ_WRITE = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
LATE = 5.0
"""Seconds after ``statement_timeout``, which the server keeps, until a server that says nothing is given up."""


Write = Callable[[list[Any]], Awaitable[None]]
"""Takes the next rows of an answer."""


class Noted(msgspec.Struct):
    """What a question that is being answered has found out about itself, and where its rows go."""

    now: datetime
    write: Write | None = None
    """Takes the rows of an answer that may be too long to be held; None for one that is returned."""
    range: Range | None = None


noted: ContextVar[Noted | None] = ContextVar("asgi_analytics_noted", default=None)


class Source:
    """A database to read from; `AnalyticsReader` adds the questions.

    The pool belongs to the caller. Each question takes one connection and one transaction, which is read-only and sees
    one state of the database. Nothing is set for longer than the transaction, so a pooler may stand in between.
    """

    def __init__(
        self,
        pool: asyncpg.Pool[Any] | UrlPool | SqlitePool,
        *,
        timezone: str = "UTC",
        statement_timeout: float = 10.0,
        schema: str | None = None,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        if isinstance(pool, str) or not hasattr(pool, "acquire"):
            raise ConfigError("pool must be an asyncpg pool: to read from a URL use AnalyticsReader.from_url(url)")
        self._pool = pool
        self.dialect: Dialect = getattr(pool, "dialect", "postgresql")
        self._place = str(pool.url) if isinstance(pool, UrlPool | SqlitePool) else "the database"
        try:
            self.zone = read_zone(timezone)
        except InvalidQuery as exc:
            raise ConfigError(str(exc)) from None
        if not 0.001 <= statement_timeout <= 86_400:
            raise ConfigError("statement_timeout must be from 0.001 to 86400 seconds")
        self._timezone = timezone
        self._seconds = statement_timeout
        self._settings = {
            "statement_timeout": f"{int(statement_timeout * 1000)}ms",
            "work_mem": "64MB",
            "jit": "off",
            # What stands in JSON is estimated far too low, and a nested loop over it would be quadratic.
            "enable_nestloop": "off",
            "cursor_tuple_fraction": "1",  # who reads from a cursor here reads to its end
            "timezone": "UTC",
            **({} if schema is None else {"search_path": quoted(checked(schema, "schema"))}),
        }
        self._clock = clock or _utc_now

    @property
    def timezone(self) -> str:
        """The name of the zone whose days are meant unless a question names another."""
        return self._timezone

    def now(self) -> datetime:
        """Return the time of the question that is being answered, in UTC."""
        known = noted.get()
        return self._clock() if known is None else known.now

    def range(self, start: Moment | None, end: Moment | None, timezone: str | None) -> Range:
        """Return the range of a question; by default it is the last 30 whole days and today."""
        return self._note(Range.read(start, end, self.zone_of(timezone), self.now()))

    def range_of_hours(self, start: Moment | None, end: Moment | None, timezone: str | None) -> Range:
        """Return the range of a question; by default it is the last 24 whole hours and the current one."""
        return self._note(Range.read_hours(start, end, self.zone_of(timezone), self.now()))

    def range_of_week(self, start: Moment | None, end: Moment | None, timezone: str | None) -> Range:
        """Return the range of a question; by default it is the last 7 whole days and today."""
        return self._note(Range.read(start, end, self.zone_of(timezone), self.now(), WEEK_DAYS))

    def zone_of(self, timezone: str | None) -> tzinfo:
        """Return the zone of a question: that of the name, else that of the reader. Raises `InvalidQuery`."""
        return self.zone if timezone is None else read_zone(timezone)

    @staticmethod
    def _note(found: Range) -> Range:
        known = noted.get()
        if known is not None:
            known.range = found
        return found

    def snapshot(self) -> AbstractAsyncContextManager[Snapshot]:
        """Open a transaction to ask in: read-only, one state of the database, with this reader's limits.

        Raises `ReadError`. A task that is cancelled in it has its statement cancelled in the server.
        """
        return self._transaction(READ_ONLY, "ROLLBACK")

    def change(self) -> AbstractAsyncContextManager[Snapshot]:
        """Open a transaction that changes what is kept, and commits unless the block raises. Raises `ReadError`."""
        return self._transaction(READ_WRITE, "COMMIT")

    def _acquire(self, begin: str) -> AbstractAsyncContextManager[Any]:
        """Take a connection for a transaction: on SQLite one that only reads, unless something is to be changed."""
        if isinstance(self._pool, SqlitePool) and begin == READ_WRITE:
            return self._pool.acquire_writer(timeout=ACQUIRE_TIMEOUT)
        taken: AbstractAsyncContextManager[Any] = self._pool.acquire(timeout=ACQUIRE_TIMEOUT)
        return taken

    @contextlib.asynccontextmanager
    async def _transaction(self, begin: str, end: str) -> AsyncIterator[Snapshot]:
        try:
            async with self._acquire(begin) as connection:
                known = noted.get()
                write = None if known is None else known.write
                if isinstance(connection, SqliteConnection):
                    snapshot: Snapshot = SqliteSnapshot(connection, self._seconds, write)
                else:
                    snapshot = Snapshot(connection, self._seconds + LATE, write)
                last = "ROLLBACK"
                try:
                    await snapshot.begin(begin, self._settings)
                    yield snapshot
                    last = end
                finally:
                    await snapshot.end(last)
        except FAILURES as exc:
            raise read_error(exc, self._place, self._seconds) from None  # whose text may quote a row


def refuse_too_many(rows: Sequence[Any]) -> None:
    """Raise `InvalidQuery` for more rows than an answer may have."""
    if len(rows) > MOST_ROWS:
        raise InvalidQuery("start", f"the answer has more than {MOST_ROWS:,} rows: narrow the range, or page")


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Snapshot:
    """One transaction of one question."""

    dialect: Dialect = "postgresql"

    def __init__(self, connection: Any, timeout: float, write: Write | None) -> None:
        self._connection = connection
        self._timeout = timeout
        self._write = write
        self._is_given_up = False

    async def begin(self, begin: str, settings: dict[str, str]) -> None:
        """Begin the transaction, with settings that hold until its end."""
        await self._fetch(begin)
        await self.records(SQL["settings"], list(settings), list(settings.values()))

    async def end(self, end: str) -> None:
        """End the transaction. A connection that cannot is given up, as one whose server says nothing."""
        if self._is_given_up:
            return
        try:
            async with asyncio.timeout(LATE):
                await self._connection.execute(end)
        except FAILURES:
            self._give_up()
            if end == "COMMIT":  # or it would be told as done
                raise
        except BaseException:  # cancelled once more: no other question may get a transaction that is open
            self._give_up()
            raise

    def limit(self, rows: int = MOST_ROWS + 1) -> int | None:
        """Return how many rows a statement is to return: so many, or all where the answer is written as it comes."""
        return rows if self._write is None else None

    async def rows(
        self, make: Callable[..., Answer], sql: Statement | str, *parameters: Any, buckets: Buckets | None = None
    ) -> list[Answer]:
        """Return what ``make`` makes of the columns of each row: a struct of a class that has them as fields.

        With ``buckets`` the first column is the number of one, and becomes its label. Where the answer is written as it
        comes, that is what happens to the rows, and none is returned. Raises `InvalidQuery` for more than 10,000 rows.
        """

        def made(rows: Sequence[Any]) -> list[Answer]:
            if buckets is None:
                return [make(*row) for row in rows]
            return [make(buckets.labels[number - 1], *values) for number, *values in rows]

        if self._write is None:
            found = await self.records(sql, *parameters)
            refuse_too_many(found)
            return made(found)
        async with contextlib.aclosing(self._batches(self._text(sql), *parameters)) as batches:
            async for found in batches:
                await self._write(made(found))
        return []

    async def _batches(self, sql: str, *parameters: Any) -> AsyncGenerator[list[Any]]:
        # Not by the cursors of the driver, which prepare statements that a pooler may not keep.
        await self._fetch(f"DECLARE answer NO SCROLL CURSOR FOR {sql}", *parameters)
        while found := await self._fetch(f"FETCH {BATCH} FROM answer"):
            yield found

    async def row(self, make: Callable[..., Answer], sql: Statement | str, *parameters: Any) -> Answer:
        """Return what ``make`` makes of the columns of the one row."""
        [found] = await self.records(sql, *parameters)
        return make(*found)

    async def records(self, sql: Statement | str, *parameters: Any) -> Sequence[Any]:
        """Return the rows, each a sequence of its columns."""
        return await self._fetch(self._text(sql), *parameters)

    def _text(self, sql: Statement | str) -> str:
        return sql if isinstance(sql, str) else sql.of(self.dialect)

    async def filled_until(self, *views: str) -> datetime:
        """Return until when the aggregates of all these views are computed; from then on they read the raw rows."""
        [(until,)] = await self.records(SQL["filled_until"], views)
        return cast("datetime", until)

    async def require_raw(
        self, parts: Iterable[tuple[datetime, datetime]], why: str, event_types: Collection[str] | None = None
    ) -> None:
        """Raise `InvalidQuery` unless the raw rows of each part of a range are still kept.

        ``why``: what the question cannot be answered without. ``event_types``: of which it needs the rows; None for
        any, which are kept as long as those of the category that is kept for the shortest time.
        """
        types = None if event_types is None else list(event_types)
        for start, end in (part for part in parts if part[0] < part[1]):
            [(kept_from, is_lost)] = await self.records(SQL["lost_rows"], start, end, types)
            if is_lost:
                since = f"from {kept_from:%Y-%m-%dT%H:%MZ} on" if isinstance(kept_from, datetime) else "of no day"
                raise InvalidQuery("start", f"{why} needs the raw rows, which are kept {since}")

    async def require_parts(self, split: Split) -> None:
        """Raise `InvalidQuery` unless the raw rows are kept where the aggregates cannot answer."""
        await self.require_raw(
            split.raw,
            "a time zone other than UTC, a part of a day or hour, or a filter that the aggregate does not know,",
        )

    async def _fetch(self, sql: str, *parameters: Any) -> list[Any]:
        try:
            return list(await self._connection.fetch(sql, *parameters, timeout=self._timeout))
        except TimeoutError:
            self._give_up()  # or the end of the transaction would wait for the same silence
            raise

    def _give_up(self) -> None:
        self._is_given_up = True
        with contextlib.suppress(asyncpg.InterfaceError):  # it is closed already
            self._connection.terminate()


class SqliteSnapshot(Snapshot):
    """One transaction of one question, on SQLite."""

    dialect: Dialect = "sqlite"

    async def begin(self, begin: str, settings: dict[str, str]) -> None:
        """Begin the transaction. What reads sees one state from its first statement on."""
        self._connection.seconds = self._timeout
        await self._fetch("BEGIN IMMEDIATE" if begin == READ_WRITE else "BEGIN")

    def limit(self, rows: int = MOST_ROWS + 1) -> int:
        """Return how many rows a statement is to return; where the answer is written as it comes, more than any has."""
        return rows if self._write is None else NO_LIMIT

    async def _batches(self, sql: str, *parameters: Any) -> AsyncGenerator[list[Any]]:
        async with contextlib.aclosing(self._connection.stream(sql, BATCH, *parameters)) as batches:
            async for found in batches:
                yield found
