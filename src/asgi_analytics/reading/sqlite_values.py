"""Values on their way into SQLite and out of it: it knows integers, numbers and texts, the others are texts here.

A time is text of 27 characters in UTC, ``2026-11-30T09:15:00.000000Z``, so that times sort as they follow each other;
a UUID is text; a list is a JSON array, which ``json_each`` takes apart; a duration is a number of microseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from asgi_analytics.database.sqlite.times import to_text

MICROSECOND = timedelta(microseconds=1)


def bound(value: Any) -> Any:
    """Return a parameter as SQLite takes it."""
    if isinstance(value, list | tuple):
        return msgspec.json.encode([bound(one) for one in value]).decode()
    if isinstance(value, datetime):
        return to_text(value)
    if isinstance(value, timedelta):
        return value // MICROSECOND
    if isinstance(value, UUID):
        return str(value)
    return value


def read_time(text: str) -> datetime:
    """Return the time of a text of the tables."""
    return datetime.fromisoformat(text).astimezone(UTC)


def _times(text: str) -> list[datetime]:
    return [read_time(one) for one in msgspec.json.decode(text)]


TYPES: dict[str, Callable[[Any], Any]] = {
    "timestamptz": read_time,
    "timestamptz[]": _times,
    "uuid": UUID,
    "boolean": bool,
    "float8": float,
    "bigint": int,
    "json": msgspec.json.decode,
    "interval": lambda seconds: timedelta(seconds=seconds),
}
"""What makes a value of a column that names its type."""

Reader = Callable[[Sequence[Any]], Sequence[Any]]


def reader_of(names: Sequence[str]) -> Reader:
    """Return what makes the values of a row from what SQLite returns, by the names of its columns."""
    makers = [(n, TYPES[name.partition("::")[2]]) for n, name in enumerate(names) if "::" in name]
    if not makers:
        return lambda row: row

    def read(row: Sequence[Any]) -> Sequence[Any]:
        values = list(row)
        for n, make in makers:
            if values[n] is not None:
                values[n] = make(values[n])
        return values

    return read
