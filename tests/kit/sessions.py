"""What sessions are, computed once more from a list of events: key by key, event by event, as the contract says it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

CAPTURED = ("api_request", "database_query", "application_error")
SILENCE = timedelta(minutes=30)


def inner(event: Any, *names: str) -> Any:
    """Return what lies below these names in the context of an event, or None."""
    found = getattr(event, "context", None)
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def key_of(event: Any) -> tuple[str | None, bool]:
    """Return the key of an event, and whether it is a given one."""
    given = getattr(event, "session_id", None)
    if given is not None:
        return given, True
    visitor = inner(event, "visitor")
    if visitor is not None:
        return visitor, False
    return (None if event.user_id is None else str(event.user_id)), False


def hash_of(text: str | None) -> UUID | None:
    return None if text is None else UUID(hashlib.md5(text.encode()).hexdigest())


def is_measured(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and 0 <= value <= 1e100


@dataclass
class Session:
    """One session, and the events that it is made of, oldest first."""

    key: str
    given: bool
    ended_at: datetime
    events: list[Any] = field(default_factory=list)
    visible_ms: float = 0.0

    @property
    def started_at(self) -> datetime:
        at: datetime = self.events[0].timestamp
        return at

    @property
    def id(self) -> str:
        if self.given:
            return self.key
        epoch = (self.started_at - datetime.fromtimestamp(0, self.started_at.tzinfo)) // timedelta(microseconds=1)
        text = f"{self.key} {epoch // 1_000_000}.{epoch % 1_000_000:06}"
        return str(hash_of(text))

    @property
    def views(self) -> list[Any]:
        return [e for e in self.events if e.event_type == "page_view"]

    @property
    def user_id(self) -> UUID | None:
        known = [e.user_id for e in self.events if e.user_id is not None]
        return known[-1] if known else None

    @property
    def visitor(self) -> str | None:
        known = [found for e in self.events if (found := inner(e, "visitor")) is not None]
        return known[-1] if known else None

    @property
    def who(self) -> str | None:
        """Who is counted as a visitor."""
        return self.visitor if self.user_id is None else str(self.user_id)

    @property
    def service(self) -> str:
        return str(self.events[0].service)

    @property
    def environment(self) -> str | None:
        found: str | None = inner(self.events[0], "environment")
        return found

    def client(self, *names: str) -> str | None:
        told = (e for e in self.events if isinstance(inner(e, "device"), dict) or isinstance(inner(e, "geo"), dict))
        first = next(told, None)
        found: str | None = None if first is None else inner(first, *names)
        return found

    def entry(self, name: str) -> str | None:
        return self.views[0].data.get(name) if self.views else None

    @property
    def duration_ms(self) -> float:
        return (self.ended_at - self.started_at) / timedelta(milliseconds=1)

    @property
    def is_bounce(self) -> bool | None:
        if not self.views:
            return None
        return len(self.views) == 1 and len(self.events) == 1 and self.visible_ms < 10_000

    def row(self) -> dict[str, Any]:
        """Return the columns of `analytics_sessions`."""
        return {
            "id": self.id,
            "user_id": self.user_id,
            "visitor": self.visitor,
            "started_at": self.started_at,
            "ended_at": self.ended_at,
            "duration_ms": self.duration_ms,
            "event_count": len(self.events),
            "page_views": len(self.views),
            "device_type": self.client("device", "device_type"),
            "browser": self.client("device", "browser"),
            "os": self.client("device", "os"),
            "country": self.client("geo", "country"),
            "city": self.client("geo", "city"),
            **{name: self.entry(name) for name in ("referrer", "channel", "utm_source", "utm_medium", "utm_campaign")},
            "landing_page": self.entry("page"),
            "exit_page": self.views[-1].data.get("page") if self.views else None,
            "is_bounce": self.is_bounce,
        }


def sessions(events: Iterable[Any]) -> list[Session]:
    """Return the sessions that these events are, in no order."""
    by_key: dict[tuple[str, bool], list[Any]] = {}
    for event in events:
        key, given = key_of(event)
        if key is not None and event.event_type not in CAPTURED:
            by_key.setdefault((key, given), []).append(event)
    return [session for key, of_key in by_key.items() for session in _of_one_key(*key, of_key)]


def _of_one_key(key: str, given: bool, events: list[Any]) -> Iterator[Session]:
    session: Session | None = None
    # What is said of a page at the instant at which the session begins belongs to it.
    for event in sorted(events, key=lambda e: (e.timestamp, e.event_type == "page_engaged", e.id)):
        if session is not None and not given and event.timestamp - session.ended_at > SILENCE:
            yield session
            session = None
        if event.event_type == "page_engaged":
            if session is not None:
                session.ended_at = event.timestamp
                visible = event.data.get("visible_ms")
                session.visible_ms += visible if is_measured(visible) else 0
            continue
        if session is None:
            session = Session(key, given, event.timestamp)
        session.ended_at = event.timestamp
        session.events.append(event)
    if session is not None:
        yield session
