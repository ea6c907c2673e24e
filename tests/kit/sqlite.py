"""SQLite databases of tests: files that are made by the migrations, and connections that ask as those of asyncpg do."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from asgi_analytics.reading.sqlite_values import bound

MIGRATIONS = Path(__file__).parents[2] / "migrations" / "sqlite"


class SqliteConnection:
    """A connection whose statements take ``$1``, ``$2``, … as those of asyncpg do."""

    def __init__(self, path: Path) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("PRAGMA synchronous = OFF")

    async def execute(self, sql: str, *parameters: Any) -> None:
        self.fetch_now(sql, *parameters)

    async def fetch(self, sql: str, *parameters: Any) -> list[Any]:
        return self.fetch_now(sql, *parameters)

    async def fetchval(self, sql: str, *parameters: Any) -> Any:
        return self.fetch_now(sql, *parameters)[0][0]

    async def fetchrow(self, sql: str, *parameters: Any) -> Any:
        return self.fetch_now(sql, *parameters)[0]

    def fetch_now(self, sql: str, *parameters: Any) -> list[Any]:
        values = {str(number): bound(value) for number, value in enumerate(parameters, 1)}
        return self.connection.execute(re.sub(r"::\w+", "", sql), values).fetchall()

    def insert_rows(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Insert rows as the sink does."""
        sql = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
        with self.connection:
            self.connection.execute("BEGIN IMMEDIATE")
            self.connection.executemany(sql, [[bound(value) for value in row] for row in rows])

    def fill(self) -> None:
        """Fill all aggregates up to the last whole hour or day."""
        now = datetime.now(UTC)
        with self.connection:
            self.connection.execute("BEGIN IMMEDIATE")
            views = self.connection.execute("SELECT view_name, bucket_column, step FROM analytics_fills ORDER BY rowid")
            for name, bucket, step in views.fetchall():
                until = now.strftime("%Y-%m-%dT%H:00:00.000000Z" if step == "hour" else "%Y-%m-%dT00:00:00.000000Z")
                columns = [row[1] for row in self.connection.execute(f"PRAGMA table_info({name}_filled)")]
                listed = ", ".join(columns)
                self.connection.execute(
                    "UPDATE analytics_fills SET live_since = '', live_until = ? WHERE view_name = ?", (until, name)
                )
                self.connection.execute(f"DELETE FROM {name}_filled WHERE {bucket} < ?", (until,))
                self.connection.execute(f"INSERT INTO {name}_filled ({listed}) SELECT {listed} FROM {name}_live")
                if name == "analytics_session_parts":
                    self.connection.execute("DELETE FROM analytics_sessions_filled")
                    columns = [
                        row[1] for row in self.connection.execute("PRAGMA table_info(analytics_sessions_filled)")
                    ]
                    listed = ", ".join(columns)
                    self.connection.execute(
                        f"INSERT INTO analytics_sessions_filled ({listed}) SELECT {listed} FROM analytics_session_joins"
                        " WHERE NOT replaced"
                    )
                self.connection.execute(
                    "UPDATE analytics_fills SET live_since = ?, live_until = '9999', filled_until = ?"
                    " WHERE view_name = ?",
                    (until, until, name),
                )

    def close(self) -> None:
        self.connection.close()


class SqliteDatabase:
    """A database of one test."""

    flavour = "sqlite"

    def __init__(self, folder: Path, *, migrated: bool = True) -> None:
        self.path = folder / "analytics.db"
        self.dsn = f"sqlite:///{self.path}"
        self._connections: list[SqliteConnection] = []
        if migrated:
            connection = SqliteConnection(self.path)
            for file in sorted(MIGRATIONS.glob("*.sql")):
                connection.connection.executescript(file.read_text())
            connection.close()

    async def connect(self) -> SqliteConnection:
        connection = SqliteConnection(self.path)
        self._connections.append(connection)
        return connection

    async def close(self) -> None:
        for connection in self._connections:
            connection.close()
