"""What is known of users, from their ``user_identified`` events, in the same transaction as these."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from asgi_analytics.database.sqlite.times import to_text

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from asgi_analytics.database.blocks import Blocks
    from asgi_analytics.sinks.sqlite_rows import EventRow

IDENTIFIED = "user_identified"


def note_traits(connection: sqlite3.Connection, rows: Iterable[EventRow], sql: Blocks) -> None:
    """Keep the newest value of each trait. Events may come in any order, and twice."""
    for event_id, timestamp, event_type, _, user_id, _, data, _ in rows:
        if event_type != IDENTIFIED or user_id is None:
            continue
        told = msgspec.json.decode(data)
        mark = f"{timestamp} {event_id}"
        found = connection.execute(sql["read_traits"], (user_id,)).fetchone()
        traits: dict[str, Any] = {} if found is None else msgspec.json.decode(found[0])
        told_by: dict[str, str] = {} if found is None else msgspec.json.decode(found[1])
        updated_at = timestamp if found is None else max(timestamp, found[2])
        for key, value in told.items() if isinstance(told, dict) else ():
            if mark > told_by.get(key, ""):
                traits[key], told_by[key] = value, mark
        role = traits.get("role")
        connection.execute(
            sql["write_traits"],
            (
                user_id,
                msgspec.json.encode(traits).decode(),
                role if role is None or isinstance(role, str) else msgspec.json.encode(role).decode(),
                _moment(traits.get("registered_at")),
                updated_at,
                msgspec.json.encode(told_by).decode(),
            ),
        )


def _moment(value: Any) -> str | None:
    """Return the moment that a text names, in UTC unless it has a zone; None for anything else."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        return to_text(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        return None
