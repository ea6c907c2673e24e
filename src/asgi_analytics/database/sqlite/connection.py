"""Connections to an SQLite database: how they are set up, transactions that do not deadlock, and forks."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Literal

from asgi_analytics.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asgi_analytics.database.sqlite.url import SqliteUrl

Mode = Literal["ro", "rw", "rwc"]
"""Read only; read and write; also make the file if it is missing."""

BUSY_SECONDS = 5.0
"""How long a statement waits for the lock of another process before it fails as busy."""

OLDEST = (3, 35, 0)
"""The oldest SQLite: RETURNING and MATERIALIZED."""

CACHE_KIB = 32 * 1024
"""Of pages of the file: users come in any order, so the pages of an hour in the index of users are written again and
again."""

CHECKPOINT_PAGES = 16_000
"""How long the log gets before a writer takes it into the file, 64 MiB: each time waits for the disk, and takes a page
that was written many times once."""

WAL_BYTES = 64 * 1024 * 1024
"""To what the log is cut when all of it has been taken into the file."""


def open_connection(url: SqliteUrl, mode: Mode = "rw", *, busy_seconds: float = BUSY_SECONDS) -> sqlite3.Connection:
    """Return a connection without implicit transactions, which any thread may use, one at a time.

    With ``rwc`` a new file gets a write-ahead log, with which readers and the one writer do not wait for each other.
    ``synchronous`` is NORMAL: a process that is killed loses nothing, a power cut the last commits.
    """
    if sqlite3.sqlite_version_info < OLDEST:
        raise ConfigError(f"SQLite {sqlite3.sqlite_version} is too old: {'.'.join(map(str, OLDEST))} is the oldest")
    connection = sqlite3.connect(
        f"{url.uri}?mode={mode}", uri=True, timeout=busy_seconds, isolation_level=None, check_same_thread=False
    )
    try:
        if mode == "rwc":
            _write_ahead(connection, busy_seconds)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA trusted_schema = ON")  # generated columns and views read JSON
        if mode == "ro":
            connection.execute("PRAGMA query_only = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _write_ahead(connection: sqlite3.Connection, busy_seconds: float) -> None:
    """Give a file a write-ahead log. While it changes the kind of log, SQLite waits for no other connection."""
    deadline = time.monotonic() + busy_seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                raise
        time.sleep(0.01)


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Give a block the lock that one writer at a time has: all that it does is committed, or nothing.

    IMMEDIATE, because a transaction that reads first and then wants to write fails at once if another process has
    written in between, however long it may wait.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk has ended it already
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise


class SqliteKeeper:
    """Keeps one connection, opened at the first use, for one thread at a time; a forked child opens its own."""

    def __init__(self, url: SqliteUrl, mode: Mode = "rw") -> None:
        self._url = url
        self._mode: Mode = mode
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None
        self._pid = os.getpid()

    @contextlib.contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """Lend the connection for a block. One that turned out to be broken is closed after it."""
        if self._pid != os.getpid():
            # Closed in the child it would take the parent's locks away, and disturb what the parent writes.
            _inherited.append(self._connection)
            self._begin()
        with self._lock:
            if self._connection is not None and self._file() != self._opened:
                self._close()  # what is written into a file that was deleted or replaced is lost
            if self._connection is None:
                self._connection = open_connection(self._url, self._mode)
                self._opened = self._file()
            try:
                yield self._connection
            except sqlite3.DatabaseError as error:
                if not isinstance(error, sqlite3.IntegrityError):
                    self._close()  # the file may have been replaced, or its folder's rights changed
                raise

    def _file(self) -> tuple[int, int] | None:
        """Return what tells the file from any other one of that name."""
        try:
            found = self._url.path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def close(self) -> None:
        """Close the connection, after the block that uses it."""
        if self._pid == os.getpid():
            with self._lock:
                self._close()

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()


_inherited: list[object] = []
"""Connections of parents, kept for as long as a child lives."""
