"""What the views of an SQLite file say, and what they must say."""

from __future__ import annotations

from typing import Any

from tests.kit.sqlite import SqliteDatabase
from tests.schema.expected import expected
from tests.schema.happenings import in_order

OURS = ("analytics_session_parts",)
"""A view of PostgreSQL that SQLite has no need of."""


def views_of(file: SqliteDatabase) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of every view of a file, as `wanted_of` does."""
    return {view: _comparable(view, file.rows(view)) for view in expected(()) if view not in OURS}


def wanted_of(events: Any) -> dict[str, list[dict[str, Any]]]:
    """Return the rows that every view must have."""
    return {view: _comparable(view, rows) for view, rows in expected(events).items() if view not in OURS}


def _comparable(view: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out the ids of sessions, which differ between the databases unless they were given."""
    for row in rows:
        if "given" in row and not row["given"]:
            row["id"] = None
        if view == "analytics_sessions":
            row.pop("id", None)
    return in_order(rows)
