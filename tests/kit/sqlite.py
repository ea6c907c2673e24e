"""SQLite databases of tests: files that are made by the migrations, and connections that ask as those of asyncpg do."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from asgi_analytics.admin.refresh import refresh_views
from asgi_analytics.database.sqlite.connection import open_connection
from asgi_analytics.database.sqlite.times import from_text, to_text
from asgi_analytics.database.sqlite.upkeep import SqliteUpkeep
from asgi_analytics.database.sqlite.url import read_sqlite_url
from asgi_analytics.migrate.aggregates import Refreshed
from asgi_analytics.migrate.runner import migrate
from asgi_analytics.reading.sqlite_values import bound
from asgi_analytics.sinks.sqlite import SqliteSink
from tests.kit.sessions import hash_of

DAY = timedelta(days=1)
TIMES = frozenset((
    "day", "hour", "quarter", "bucket", "timestamp", "started_at", "ended_at", "first_at", "last_at", "newest_at",
    "first_seen_at", "last_seen_at", "received_at", "updated_at", "period_start", "registered_at", "filled_until",
))  # fmt: skip


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
    """A file of one test, without tables until `migrate()` has run."""

    flavour = "sqlite"
    version = f"SQLite {sqlite3.sqlite_version}"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = self.dsn = f"sqlite:///{path}"
        self._connections: list[SqliteConnection] = []

    async def migrate(self) -> None:
        """Make the file and its tables."""
        await migrate(self.url)

    async def connect(self) -> SqliteConnection:
        """Return a connection, closed at the end of the test."""
        connection = SqliteConnection(self.url)
        self._connections.append(connection)
        return connection

    async def close(self) -> None:
        """Close the connections."""
        for connection in self._connections:
            connection.close()

    def open(self) -> sqlite3.Connection:
        """Return a connection as any tool would have it."""
        return sqlite3.connect(self.path, isolation_level=None)

    def execute(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run one statement on a connection of its own, and return its rows."""
        with closing(self.open()) as connection:
            return connection.execute(sql, values).fetchall()

    async def insert(self, events: Iterable[Any]) -> None:
        """Store rows of `analytics_events` as the sink does."""
        lines = [line_of(event) for event in events]
        sink = SqliteSink(self.url)
        receipt = await sink.write(lines)
        assert not receipt.rejected
        await sink.aclose()

    async def refresh(self) -> tuple[Refreshed, ...]:
        """Do the upkeep."""
        return (await refresh_views(self.url)).refreshed

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Return the rows of a table or a view, with times, ids, arrays and truths as asyncpg gives them."""
        with closing(self.open()) as connection:
            connection.row_factory = sqlite3.Row
            return [_converted(dict(row)) for row in connection.execute(f"SELECT * FROM {table}")]


@pytest.fixture
async def file(tmp_path: Path) -> SqliteDatabase:
    """Give a file with its tables."""
    file = SqliteDatabase(tmp_path / "analytics.db")
    await file.migrate()
    return file


@pytest.fixture
async def sink(file: SqliteDatabase) -> AsyncIterator[SqliteSink]:
    """Give the sink of the file."""
    sink = SqliteSink(file.url)
    yield sink
    await sink.aclose()


def stored(file: SqliteDatabase) -> list[UUID]:
    """Return the ids of all events, in order."""
    return sorted(UUID(row[0]) for row in file.execute("SELECT id FROM analytics_events"))


def line_of(event: Any) -> bytes:
    """Return the line of a row of `analytics_events`."""
    members = {
        "event_id": str(event.id),
        "event_type": event.event_type,
        "timestamp": event.timestamp.isoformat(),
        "service": event.service,
        "user_id": None if event.user_id is None else str(event.user_id),
        "session_id": getattr(event, "session_id", None),
        "data": event.data,
        "context": getattr(event, "context", None),
    }
    return json.dumps(members).encode()


def _converted(row: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in row.items():
        if name == "histogram":
            counts = ("bin_calls",) if "calls" in row else ("bin_requests",)
            found |= dict(zip(("bins", *counts), _bins(value), strict=True))
        elif name == "error_histogram":
            found |= dict(zip(("error_bins", "error_bin_requests"), _bins(value), strict=True))
        elif value is None:
            found[name] = None
        elif name in TIMES:
            found[name] = datetime.fromisoformat(value).astimezone(UTC)
        elif name == "user_id" or (name == "id" and "event_type" in row):
            found[name] = UUID(value)
        elif name == "who":
            found[name] = hash_of(value)
        elif name in ("given", "is_bounce"):
            found[name] = bool(value)
        elif name in ("durations_ms", "endpoints"):
            found[name] = sorted(json.loads(value)) or None
        else:
            found[name] = value
    return found


def _bins(text: str | None) -> tuple[list[int] | None, list[int] | None]:
    if text is None:
        return None, None
    counts = sorted((int(bin_), number) for bin_, number in json.loads(text).items())
    return [bin_ for bin_, _ in counts], [number for _, number in counts]
