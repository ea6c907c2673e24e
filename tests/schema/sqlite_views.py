"""What the views of an SQLite file say, and what they must say."""

from __future__ import annotations

from typing import Any

from tests.kit.sqlite import SqliteDatabase
from tests.schema.expected import expected
from tests.schema.happenings import in_order

OURS = ("analytics_session_parts",)
"""A view of PostgreSQL that SQLite has no need of."""


def views_of(file: SqliteDatabase) -> dict[str, list[dict[str, Any]]]:
    found = {}
    for view in expected(()):
        if view in OURS:
            continue
        rows = file.rows(view)
        for row in rows:
            if "given" in row and not row["given"]:
                row["id"] = None
            row.pop("id", None) if view == "analytics_sessions" else None
        found[view] = in_order(rows)
    return found


def wanted_of(events: Any) -> dict[str, list[dict[str, Any]]]:
    wanted = {view: rows for view, rows in expected(events).items() if view not in OURS}
    for view, rows in wanted.items():
        for row in rows:
            if "given" in row and not row["given"]:
                row["id"] = None
            row.pop("id", None) if view == "analytics_sessions" else None
        wanted[view] = in_order(rows)
    return wanted
