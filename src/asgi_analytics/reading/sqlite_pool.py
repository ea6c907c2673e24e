"""The connections of a reader to a SQLite database: each works in a thread, so that the event loop never waits."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from bisect import bisect_right
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, TypeVar

from asgi_analytics.database.sqlite.connection import open_connection
from asgi_analytics.database.sqlite.times import to_text
from asgi_analytics.database.sqlite.url import SqliteUrl
from asgi_analytics.errors import NoConnection
from asgi_analytics.reading.sqlite_attempts import BestAttempt
from asgi_analytics.reading.sqlite_functions import register
from asgi_analytics.reading.sqlite_values import bound, reader_of
from asgi_analytics.reading.statements import Dialect

T = TypeVar("T")

STEPS = 20_000
"""Steps of SQLite's machine, a few hundred microseconds, after which it is looked whether a statement has to end."""
BUSY_SECONDS = 10.0
"""Seconds until a lock of another process must be free: a reader needs one only to open what was not closed well."""
PRAGMAS = ("cache_size = -32768", "mmap_size = 1073741824")


class SqliteConnection:
    """One connection, which asks as that of asyncpg does: parameters are ``$1``, ``$2``, …, rows are sequences.

    A statement that takes longer than it may, or whose task is cancelled, is interrupted.
    """

    def __init__(self, url: SqliteUrl, executor: ThreadPoolExecutor, *, writes: bool) -> None:
        self._url = url
        self._executor = executor
        self._writes = writes
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None
        self._deadline = 0.0
        self._is_stopped = False
        self._edges: dict[int, list[str]] = {}
        self.seconds = 0.0
        """How long a statement may take; set by who takes the connection."""

    async def fetch(self, sql: str, *parameters: Any, timeout: float | None = None) -> list[Sequence[Any]]:
        """Return all rows of a statement. ``timeout`` is what a server would be given up after: there is none."""
        return await self._run(lambda: self._fetch(sql, parameters))

    async def execute(self, sql: str) -> None:
        """Run a statement without rows."""
        await self._run(lambda: self._fetch(sql, ()))

    async def stream(self, sql: str, size: int, *parameters: Any) -> AsyncGenerator[list[Sequence[Any]]]:
        """Yield the rows of a statement, so many at a time. An open cursor keeps the log of the file from being cut."""
        cursor, read = await self._run(lambda: self._execute(sql, parameters))
        try:
            while found := await self._run(lambda: [read(row) for row in cursor.fetchmany(size)]):
                yield found
        finally:
            cursor.close()

    async def open(self) -> None:
        """Open the file unless it is open, and again if it is another one now. Raises `sqlite3.Error`."""
        await self._run(self._reopen)

    def terminate(self) -> None:
        """Close the connection; no statement runs on it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _reopen(self) -> None:
        if self._connection is not None and self._file() != self._opened:
            self.terminate()  # it would read on in a file that was deleted or replaced
        if self._connection is None:
            self._open()
            self._opened = self._file()

    def _file(self) -> tuple[int, int] | None:
        """Return what tells the file from any other one of that name."""
        try:
            found = self._url.path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _open(self) -> None:
        connection = open_connection(self._url, "rw" if self._writes else "ro", busy_seconds=BUSY_SECONDS)
        try:
            for pragma in PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
            register(connection)
            connection.create_aggregate("analytics_attempt", 5, BestAttempt)  # type: ignore[arg-type]
            connection.create_function("analytics_bucket", 2, self._bucket, deterministic=True)
            connection.set_progress_handler(self._has_to_end, STEPS)
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def _bucket(self, at: str | None, number: int) -> int | None:
        """Return the number of the bucket that a time falls into; the edges are the parameter of a number."""
        return None if at is None else bisect_right(self._edges[number], at)

    def _has_to_end(self) -> bool:
        return self._is_stopped or time.monotonic() > self._deadline

    def _execute(self, sql: str, parameters: Sequence[Any]) -> tuple[sqlite3.Cursor, Callable[[Any], Sequence[Any]]]:
        assert self._connection is not None
        self._edges = {n: [to_text(at) for at in value] for n, value in enumerate(parameters, 1) if _is_times(value)}
        named = {str(number): bound(value) for number, value in enumerate(parameters, 1)}
        cursor = self._connection.execute(sql, named)
        return cursor, reader_of([column[0] for column in cursor.description or ()])

    def _fetch(self, sql: str, parameters: Sequence[Any]) -> list[Sequence[Any]]:
        cursor, read = self._execute(sql, parameters)
        return [read(row) for row in cursor]

    async def _run(self, work: Callable[[], T]) -> T:
        """Do something in a thread; whoever is cancelled waits until it has ended, which it is told to at once."""
        self._deadline = time.monotonic() + self.seconds if self.seconds else float("inf")
        self._is_stopped = False
        running = asyncio.get_running_loop().run_in_executor(self._executor, work)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            self._is_stopped = True
            while not running.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([running])
            if not running.cancelled():
                running.exception()  # it was told to end
            raise
        finally:
            self._is_stopped = False


def _is_times(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(one, datetime) for one in value)


class SqlitePool:
    """Up to ``connections`` connections that read a file, and one that writes, each opened when it is needed.

    The file is not made where there is none.
    """

    dialect: Dialect = "sqlite"

    def __init__(self, url: SqliteUrl, connections: int) -> None:
        self.url = url
        self._connections = connections
        self._executor: ThreadPoolExecutor | None = None
        self._readers: asyncio.Queue[SqliteConnection] = asyncio.Queue()
        self._writers: asyncio.Queue[SqliteConnection] = asyncio.Queue()

    async def open(self) -> None:
        """Make the threads, and no connection yet: it works while there is no file."""
        if self._executor is not None:
            return
        self._executor = ThreadPoolExecutor(self._connections + 1, thread_name_prefix="asgi-analytics-reader")
        self._readers, self._writers = asyncio.Queue(), asyncio.Queue()
        for _ in range(self._connections):
            self._readers.put_nowait(SqliteConnection(self.url, self._executor, writes=False))
        self._writers.put_nowait(SqliteConnection(self.url, self._executor, writes=True))

    async def aclose(self) -> None:
        """Close the connections, after the questions that run on them."""
        executor, self._executor = self._executor, None
        if executor is None:
            return
        for idle, number in ((self._readers, self._connections), (self._writers, 1)):
            for _ in range(number):
                (await idle.get()).terminate()
        executor.shutdown(wait=False)  # no thread has anything to do

    def acquire(self, *, timeout: float | None) -> contextlib.AbstractAsyncContextManager[SqliteConnection]:
        """Take a connection that reads, for a block. Raises `NoConnection` unless the pool is open."""
        return self._take(self._readers, timeout)

    def acquire_writer(self, *, timeout: float | None) -> contextlib.AbstractAsyncContextManager[SqliteConnection]:
        """Take the connection that writes, for a block. Raises `NoConnection` unless the pool is open."""
        return self._take(self._writers, timeout)

    @contextlib.asynccontextmanager
    async def _take(
        self, idle: asyncio.Queue[SqliteConnection], timeout: float | None
    ) -> AsyncIterator[SqliteConnection]:
        if self._executor is None:
            raise NoConnection("the reader is not open: use async with AnalyticsReader.from_url(url) as reader")
        try:
            async with asyncio.timeout(timeout):
                connection = await idle.get()
        except TimeoutError:
            raise NoConnection(f"all connections to {self.url} are in use: ask again") from None
        try:
            await connection.open()
            yield connection
        finally:
            idle.put_nowait(connection)
