"""A request at work on an SQLite database: its connection, and the file that is written anew at the end."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import msgspec

from asgi_analytics.admin.subjects.subject import SHORT, Subject
from asgi_analytics.admin.subjects.work import Work
from asgi_analytics.database.blocks import Blocks, load
from asgi_analytics.database.sqlite.connection import open_connection
from asgi_analytics.database.sqlite.failures import explain
from asgi_analytics.database.sqlite.upkeep import end_range, join_sessions
from asgi_analytics.errors import MigrationError
from asgi_analytics.reading.sqlite_values import bound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from asgi_analytics.database.sqlite.url import SqliteUrl

T = TypeVar("T")

SQL = load("asgi_analytics.admin.subjects", "sqlite.sql")
AS_SENT = "payload"
"""The column with what was sent: a text, also where it is JSON."""

MOMENT = 0.1
"""How many seconds a try to cut the log waits for readers, and then lets writers have their turn."""

_is_json = msgspec.json.Decoder(msgspec.Raw).decode
_encode = msgspec.json.Encoder().encode


class SqliteConnection:
    """Asks in threads, so that the loop goes on, and as a connection of asyncpg is asked."""

    def __init__(self, url: SqliteUrl, *, busy_seconds: float) -> None:
        self.url = url
        self.busy_seconds = busy_seconds
        self._connection = open_connection(url, "rw", busy_seconds=busy_seconds)
        self._connection.row_factory = _row
        self._connection.execute(SQL["secure_delete"])
        self._connection.create_function("person_row", -1, row_text, deterministic=True)

    def know(self, subject: Subject) -> None:
        """Let statements look for a person."""

        def masked(text: Any) -> Any:
            return subject.masked(text) if isinstance(text, str) else text

        self._connection.create_function("person_quotes", -1, MayQuote(subject))
        self._connection.create_function("person_masked", 1, masked)

    async def call(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do some work in a thread. If this task is cancelled, the work is interrupted and waited for."""
        task = asyncio.ensure_future(asyncio.to_thread(work, self._connection))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._connection.interrupt()
            await asyncio.wait([task])
            raise

    async def fetch(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        """Run a statement, and return its rows."""
        return await self.call(lambda connection: connection.execute(sql, _bound(values)).fetchall())

    async def fetchrow(self, sql: str, *values: Any) -> dict[str, Any] | None:
        """Return the first row, or None."""
        rows = await self.fetch(sql, *values)
        return rows[0] if rows else None

    async def fetchval(self, sql: str, *values: Any) -> Any:
        """Return the first value of the first row, or None."""
        row = await self.fetchrow(sql, *values)
        return None if row is None else next(iter(row.values()))

    async def execute(self, sql: str, *values: Any) -> str:
        """Run a statement, and return the number of rows that it changed, after a word."""

        def run(connection: sqlite3.Connection) -> str:
            return f"ROWS {max(connection.execute(sql, _bound(values)).rowcount, 0)}"

        return await self.call(run)

    async def cursor(self, sql: str, *values: Any, prefetch: int) -> AsyncIterator[dict[str, Any]]:
        """Yield the rows of a statement, of which ``prefetch`` are in memory at once."""
        cursor = await self.call(lambda connection: connection.execute(sql, _bound(values)))
        try:
            while rows := await self.call(lambda _: cursor.fetchmany(prefetch)):
                for row in rows:
                    yield row
        finally:
            # A reader of an export who goes away in the midst of it may have closed all of it by now.
            with suppress(sqlite3.ProgrammingError):
                cursor.close()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Give a block the lock that one writer at a time has."""
        await self.execute("BEGIN IMMEDIATE")
        try:
            yield
            await self.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class SqliteWork(Work):
    """A request at work on a file. Other processes write between its transactions; each waits for its turn."""

    sql: ClassVar[Blocks] = SQL
    connection: SqliteConnection

    async def run(self, change: Callable[[], Awaitable[None]]) -> None:
        """Call ``change`` in a transaction: nothing can be in its way once it has begun."""
        async with self.transaction():
            await change()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Begin a transaction that writes."""
        async with self.connection.transaction():
            yield

    def reading(self) -> AbstractAsyncContextManager[None]:
        """Keep nobody from writing: a statement sees one state of the file by itself."""
        return nullcontext()

    async def join_sessions(self, gone: Sequence[Any], since: Any, until: Any) -> None:
        """Delete the sessions of these parts, or join them anew where parts of others are left."""
        await self.connection.call(lambda connection: _join_sessions(connection, gone))

    async def refresh_statistics(self) -> None:
        """Take the planner's statistics anew if they have samples of rows."""
        if await self.connection.fetch(SQL["sampling_statistics"]):
            await self.connection.execute(SQL["analyze"])

    async def overwrite(self) -> None:
        """Write the file anew and cut its log. Raises `MigrationError` if another process is in the way for too long.

        Deleted rows are overwritten at once, but copies of them stay in pages that were moved, and in the log.
        """
        try:
            await self.connection.execute(SQL["vacuum"])
        except sqlite3.Error as error:
            raise MigrationError(
                f"no row has the person any more, but the file could not be written anew (VACUUM), and may hold traces "
                f"of what was deleted: {explain(error, self.connection.url).text}; run this again to finish it"
            ) from error
        await self.cut_log()

    async def cut_log(self) -> None:
        """Take the log into the file, and cut it; wait for readers of what was before. Raises `MigrationError`.

        Whoever waits for a reader here keeps writers waiting: so it is a moment at a time.
        """
        deadline = time.monotonic() + self.connection.busy_seconds
        while not await self.connection.call(_cut_log):
            if time.monotonic() > deadline:
                raise MigrationError(
                    f"no row has the person any more, but the log {self.connection.url.path.name}-wal could not be "
                    "cut, and may hold what was deleted: another process has been reading for too long; run this again "
                    "when it has ended, to finish it"
                )
            await asyncio.sleep(MOMENT)


@contextmanager
def open_sqlite(url: SqliteUrl, *, busy_seconds: float) -> Iterator[SqliteConnection]:
    """Give a connection. Errors of SQLite leave it explained, as `MigrationError`."""
    try:
        connection = SqliteConnection(url, busy_seconds=busy_seconds)
        try:
            yield connection
        finally:
            connection.close()
    except (sqlite3.Error, OSError) as error:
        raise MigrationError(explain(error, url).text) from error


def _cut_log(connection: sqlite3.Connection) -> bool:
    """Try to cut the log; False if a reader, or another one who takes the log into the file, is in the way."""
    before = connection.execute(SQL["busy_timeout"]).fetchone()
    connection.execute(f"{SQL['busy_timeout']} = {round(MOMENT * 1000)}")
    try:
        done = connection.execute(SQL["checkpoint"]).fetchone()
    finally:
        connection.execute(f"{SQL['busy_timeout']} = {before['timeout']}")
    return not done["busy"]


def row_text(names: str, *values: Any) -> str:
    """Return the JSON of a row; ``names`` is a JSON array. What is JSON in it is not a text within the text."""
    members = {name: _member(name, value) for name, value in zip(msgspec.json.decode(names), values, strict=True)}
    return _encode(members).decode()


def _member(name: str, value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, str) and value[:1] in ("{", "[") and name != AS_SENT:
        try:
            return _is_json(value)
        except (ValueError, msgspec.MsgspecError, RecursionError):
            return value
    return value


class MayQuote:
    """Tells whether values of a row may quote the id: more do than quote it. `Subject.quoted_in` decides."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._keys: tuple[str, ...] | None = None

    def __call__(self, *values: Any) -> bool:
        """Return the answer, with what the subject has learned until now."""
        if self._keys is not self._subject.keys:
            self._keys = self._subject.keys
            self._any_case, exact = self._subject.texts()
            # What was written elsewhere may spell any character as \uXXXX. In columns that are not JSON ids stand as
            # they are; short ones only alone.
            self._exact = ["\\u", *exact, *(key for key in self._keys if len(key) >= SHORT)]
        text = "\n".join([str(value) for value in values if value is not None])
        if any(one in text for one in self._exact):
            return True
        lower = text.lower()
        return any(one in lower for one in self._any_case) or any(value in self._keys for value in values)


def _join_sessions(connection: sqlite3.Connection, gone: Sequence[Any]) -> None:
    """Bring the filled sessions in line after these parts were deleted."""
    for part in gone:
        found = connection.execute(SQL["part_sessions"], _bound(part.values())).fetchall()
        for session in found:
            which = _bound((session["key"], session["given"], session["first_at"]))
            if not session["has_parts"]:
                connection.execute(SQL["forget_session"], which)
                continue
            [reached] = connection.execute(SQL["reach_past"], which).fetchall()
            connection.execute(SQL["begin_joining"], _bound(reached.values()))
            connection.row_factory = None  # the joins are rows of a table, in its order
            try:
                join_sessions(connection)
            finally:
                connection.row_factory = _row
            end_range(connection)


def _bound(values: Any) -> dict[str, Any]:
    """Return parameters as statements name them: ``$1``, ``$2``, …"""
    return {str(number): bound(value) for number, value in enumerate(values, 1)}


def _row(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> dict[str, Any]:
    return {column[0]: value for column, value in zip(cursor.description, row, strict=True)}
