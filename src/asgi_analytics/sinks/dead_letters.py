"""An event that the table refused: why, without any of its values, and the row that keeps it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from uuid import UUID, uuid5

import msgspec

from asgi_analytics.database.failures import condition, condition_name

if TYPE_CHECKING:
    import asyncpg

NOT_TEXT = "22021"
"""What the server says of bytes that are not UTF-8, or hold a NUL."""

_NAMELESS = UUID("0a0d7a3e-6f0e-5c52-9d0b-6c6f9f6a1f2e")
"""Namespace of the ids of dead letters whose own id cannot be read: the same letter gets the same id, and is kept
once."""


class Refusal(NamedTuple):
    """Why an event was refused; no value of the event is in it."""

    reason: str
    """The condition's name, such as ``check_violation analytics_events_timestamp_range``."""
    sqlstate: str

    @classmethod
    def of(cls, sqlstate: str, constraint: str | None = None) -> Self:
        """Return the refusal that the server would answer with."""
        name = condition_name(sqlstate)
        return cls(f"{name} {constraint}" if constraint else name, sqlstate)

    @classmethod
    def by(cls, error: asyncpg.PostgresError) -> Self:
        """Return the refusal that the server answered with."""
        return cls(condition(error), str(error.sqlstate))


class _Envelope(msgspec.Struct):
    """The columns that dead letters are found by."""

    event_id: UUID
    event_type: str | None = None
    service: str | None = None


_decode_envelope = msgspec.json.Decoder(_Envelope).decode


def is_text(line: bytes) -> bool:
    """Tell whether the server accepts these bytes as text."""
    try:
        return "\x00" not in line.decode()
    except UnicodeDecodeError:
        return False


def dead_letter(line: bytes, refusal: Refusal) -> tuple[Any, ...]:
    """Return the row of `analytics_dead_letters`: id, event_type, service, reason, sqlstate, payload."""
    payload = line.decode("utf-8", "replace").replace("\x00", "\ufffd")
    # If the data cannot be read, what stands before it may be: inside a text these quotes would be escaped.
    for part in (line, line.partition(b',"data":')[0] + b"}"):
        with contextlib.suppress(ValueError, RecursionError):
            event = _decode_envelope(part)
            return (event.event_id, event.event_type, event.service, refusal.reason, refusal.sqlstate, payload)
    return (uuid5(_NAMELESS, payload), None, None, refusal.reason, refusal.sqlstate, payload)
