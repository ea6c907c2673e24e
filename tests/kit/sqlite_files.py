"""SQLite databases of tests: files that are made by the migrations, and connections that ask as those of asyncpg do."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from asgi_analytics.database.sqlite.connection import open_connection
from asgi_analytics.database.sqlite.times import from_text, to_text
from asgi_analytics.database.sqlite.upkeep import SqliteUpkeep
from asgi_analytics.database.sqlite.url import read_sqlite_url
from asgi_analytics.migrate.runner import migrate
from asgi_analytics.reading.sqlite_values import bound
from tests.kit.databases import run

DAY = timedelta(days=1)


class SqliteConnection:
    """A connection whose statements take ``$1``, ``$2``, … as those of asyncpg do."""

    def __init__(self, dsn: str) -> None:
        self._url = read_sqlite_url(dsn)
        self.connection = open_connection(self._url, "rwc")
        self.connection.execute("PRAGMA synchronous = OFF")

    async def execute(self, sql: str, *parameters: Any) -> None:
        await self.fetch(sql, *parameters)

    async def fetch(self, sql: str, *parameters: Any) -> list[Any]:
        values = {str(number): bound(value) for number, value in enumerate(parameters, 1)}
        return self.connection.execute(re.sub(r"::\w+", "", sql), values).fetchall()

    async def fetchval(self, sql: str, *parameters: Any) -> Any:
        [(value, *_), *_] = await self.fetch(sql, *parameters)
        return value

    def insert_events(self, rows: Iterable[Sequence[Any]]) -> None:
        """Insert rows of events, and note their hours, as the sink does."""
        events = [[bound(value) for value in row] for row in rows]
        with self.connection:
            self.connection.execute("BEGIN IMMEDIATE")
            self.connection.executemany(
                "INSERT INTO analytics_events (id, timestamp, event_type, service, user_id, session_id, data, context)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                events,
            )
            hours = {(f"{event[1][:13]}:00:00.000000Z",) for event in events}
            self.connection.executemany("INSERT OR IGNORE INTO analytics_changes (hour) VALUES (?)", hours)

    def fill(self) -> None:
        """Do what the upkeep does, but drop nothing."""
        upkeep = SqliteUpkeep(self._url)
        assert list(upkeep.steps(aggregates_only=True))
        upkeep.close()

    def lose(self, older_than: datetime) -> None:
        """Drop raw events as the upkeep does when their time is over."""
        with self.connection:
            self.connection.execute("BEGIN IMMEDIATE")
            [(first,)] = self.connection.execute("SELECT min(timestamp) FROM analytics_events")
            day = from_text(f"{first[:10]}T00:00:00.000000Z")
            while day < older_than:
                self.connection.execute("INSERT OR IGNORE INTO analytics_gone_days VALUES (?)", [to_text(day)])
                day += DAY
            until = [to_text(older_than)]
            self.connection.execute("UPDATE analytics_dropped SET dropped_before = max(dropped_before, ?)", until)
            self.connection.execute("DELETE FROM analytics_events WHERE timestamp < ?", until)
            self.connection.execute("DELETE FROM analytics_changes WHERE hour < ?", until)

    def close(self) -> None:
        self.connection.close()


class SqliteDatabase:
    """A database of one test."""

    flavour = "sqlite"
    version = f"SQLite {sqlite3.sqlite_version}"

    def __init__(self, folder: Path, *, migrated: bool = True) -> None:
        self.dsn = f"sqlite:///{folder / 'analytics.db'}"
        self._connections: list[SqliteConnection] = []
        if migrated:
            run(migrate(self.dsn))

    async def connect(self) -> SqliteConnection:
        """Return a connection, closed at the end of the test."""
        connection = SqliteConnection(self.dsn)
        self._connections.append(connection)
        return connection

    async def close(self) -> None:
        """Close the connections."""
        for connection in self._connections:
            connection.close()
