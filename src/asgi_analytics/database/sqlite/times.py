"""Times as SQLite stores them: texts of 27 characters in UTC, which sort as they follow each other."""

from __future__ import annotations

from datetime import UTC, date, datetime


def to_text(moment: datetime) -> str:
    """Return ``2026-11-30T09:15:00.000000Z`` for an aware time in any zone."""
    return f"{moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def from_text(text: str) -> datetime:
    """Return the time of a text that `to_text` made."""
    return datetime.fromisoformat(text)


def day_text(day: date) -> str:
    """Return the midnight, in UTC, with which a day begins."""
    return f"{day.isoformat()}T00:00:00.000000Z"


def now_text() -> str:
    """Return the time it is."""
    return to_text(datetime.now(UTC))
