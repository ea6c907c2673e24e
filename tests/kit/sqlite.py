"""An SQLite database of a test's own, its rows as those of PostgreSQL are read."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from asgi_analytics.admin.refresh import refresh_views
from asgi_analytics.migrate.aggregates import Refreshed
from asgi_analytics.migrate.runner import migrate
from asgi_analytics.sinks.sqlite import SqliteSink
from tests.kit.sessions import hash_of

TIMES = frozenset((
    "day", "hour", "quarter", "bucket", "timestamp", "started_at", "ended_at", "first_at", "last_at", "newest_at",
    "first_seen_at", "last_seen_at", "received_at", "updated_at", "period_start", "registered_at", "filled_until",
))  # fmt: skip


class SqliteDatabase:
    """A file with the schema."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"sqlite:///{path}"

    async def migrate(self) -> None:
        """Make the file and its tables."""
        await migrate(self.url)

    def connect(self) -> sqlite3.Connection:
        """Return a connection as any tool would have it."""
        return sqlite3.connect(self.path, isolation_level=None)

    def execute(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run one statement on a connection of its own, and return its rows."""
        with closing(self.connect()) as connection:
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
        with closing(self.connect()) as connection:
            connection.row_factory = sqlite3.Row
            return [_converted(dict(row)) for row in connection.execute(f"SELECT * FROM {table}")]


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
