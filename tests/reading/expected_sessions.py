"""What each question about sessions must answer, computed once more from a list of events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from tests.kit.sessions import CAPTURED, Session, inner, is_measured, key_of, sessions
from tests.reading.happened import Event
from tests.schema.measures import average, percentile

if TYPE_CHECKING:
    from tests.reading.expected import Asked

DAY = timedelta(days=1)
Answer = Any


def of_filters(events: Iterable[Event], asked: Asked) -> list[Session]:
    """Return the sessions of a service and an environment, whenever they were."""
    return [
        s for s in sessions(events) if asked.service in (None, s.service) and asked.environment in (None, s.environment)
    ]


def begun(events: Iterable[Event], asked: Asked) -> list[Session]:
    return [s for s in of_filters(events, asked) if asked.start <= s.started_at < asked.end]


def visitors(found: Iterable[Session]) -> int:
    return len({s.who for s in found} - {None})


def bounce_rate(found: Iterable[Session]) -> float | None:
    return average([float(s.is_bounce) for s in found if s.is_bounce is not None])


def newest_first(found: Iterable[Session]) -> list[Session]:
    return sorted(found, key=lambda s: (s.started_at, s.id.encode()), reverse=True)


def query_sessions(
    events: Sequence[Event],
    asked: Asked,
    limit: int = 50,
    user_id: Any = None,
    visitor: str | None = None,
    landing_page: str | None = None,
    exit_page: str | None = None,
    referrer: str | None = None,
    channel: str | None = None,
    utm_medium: str | None = None,
    device_type: str | None = None,
    country: str | None = None,
    is_bounce: bool | None = None,
) -> Answer:
    filters = {
        "user_id": user_id, "visitor": visitor, "landing_page": landing_page, "exit_page": exit_page,
        "referrer": referrer, "channel": channel, "utm_medium": utm_medium, "device_type": device_type,
        "country": country, "is_bounce": is_bounce,
    }  # fmt: skip
    found = [
        s
        for s in begun(events, asked)
        if all(value is None or s.row()[column] == value for column, value in filters.items())
    ]
    rows = [tuple(s.row().values()) for s in newest_first(found)]
    return rows[:limit], len(rows), limit, len(rows) > limit


def get_session(events: Sequence[Event], asked: Asked, id: str) -> Answer:
    [session] = [s for s in sessions(events) if s.id == id]

    def is_within(event: Event) -> bool:
        key, given = key_of(event)
        if not session.started_at <= event.timestamp <= session.ended_at or event.event_type == "page_engaged":
            return False
        if (key, given) == (session.key, session.given):
            return True
        is_captured = event.event_type in CAPTURED and event.session_id is None and inner(event, "visitor") is None
        return is_captured and not session.given and event.user_id is not None and event.user_id == session.user_id

    within = sorted(filter(is_within, events), key=lambda e: (e.timestamp, e.id))
    return (*session.row().values(), [e.id for e in within])


def get_session_summary(events: Sequence[Event], asked: Asked) -> Answer:
    found = begun(events, asked)
    views = sum(len(s.views) for s in found)
    durations = [s.duration_ms for s in found]
    return (
        len(found), visitors(found), views, bounce_rate(found), average(durations), percentile(durations, 0.5),
        views / len(found) if found else None,
    )  # fmt: skip


def who(event: Event) -> str | None:
    """Return who an event is counted for."""
    found: str | None = inner(event, "visitor") if event.user_id is None else str(event.user_id)
    return found


def list_pages(events: Sequence[Event], asked: Asked, limit: int = 100) -> Answer:
    views: dict[str, list[Event]] = {}
    visible: dict[str, list[float]] = {}
    for event in asked.within(events, "page_view", "page_engaged"):
        page = event.data.get("page")
        if page is not None and event.event_type == "page_view":
            views.setdefault(page, []).append(event)
        elif page is not None and is_measured(event.data.get("visible_ms")):
            visible.setdefault(page, []).append(event.data["visible_ms"])
    mine = [s.row() for s in begun(events, asked)]
    rows = [
        (
            page, len(found), len({who(e) for e in found} - {None}),
            sum(s["landing_page"] == page for s in mine), sum(s["exit_page"] == page for s in mine),
            average(visible.get(page, [])),
        )
        for page, found in views.items()
    ]  # fmt: skip
    return sorted(rows, key=lambda row: (-row[1], row[0]))[:limit]


def get_user_activity(events: Sequence[Event], asked: Asked, user_id: UUID) -> Answer:
    days: dict[date, tuple[list[Event], list[Session]]] = {}
    for event in asked.within(events):
        if event.user_id == user_id and event.event_type != "page_engaged":
            days.setdefault(asked.day(event), ([], []))[0].append(event)
    for session in begun(events, asked):
        if session.user_id == user_id:
            days.setdefault(asked.day(session.events[0]), ([], []))[1].append(session)
    return [
        (
            day, len(begun_then), len(found), float(sum(s.duration_ms for s in begun_then)),
            min((e.timestamp for e in found), default=None), max((e.timestamp for e in found), default=None),
            dict(Counter(e.event_type for e in found)),
        )
        for day, (found, begun_then) in sorted(days.items())
    ]  # fmt: skip


def _usage(events: list[Event], every: list[Event], label: Any, name: str, whole: list[Event]) -> Answer:
    """Return one row: of the events of a type in a bucket, given all of the bucket and all of the range."""
    durations = [e.data["duration_ms"] for e in events if is_measured(e.data.get("duration_ms"))]
    told = [float(e.data["success"]) for e in events if isinstance(e.data.get("success"), bool)]
    stem, _, half = name.rpartition("_")
    success = average(told)
    happened = {e.event_type for e in whole}
    if not told and half in ("completed", "failed"):
        counts = Counter(e.event_type for e in every)
        completed, failed = counts[f"{stem}_completed"], counts[f"{stem}_failed"]
        if stem in ("task", "payment") or {f"{stem}_completed", f"{stem}_failed"} <= happened:
            success = completed / (completed + failed)
    return (
        name, label, len(events), len({e.user_id for e in events} - {None}), average(durations), success,
    )  # fmt: skip


def tracked(events: Sequence[Event], asked: Asked) -> list[Event]:
    return [e for e in asked.within(events) if e.event_type not in (*CAPTURED, "page_view", "page_engaged")]


def get_feature_usage(events: Sequence[Event], asked: Asked, feature_name: str | None = None) -> Answer:
    found = tracked(events, asked)
    rows = []
    for day in {asked.day(e) for e in found}:
        every = [e for e in found if asked.day(e) == day]
        for name in {e.event_type for e in every}:
            if feature_name in (None, name):
                rows.append(_usage([e for e in every if e.event_type == name], every, day, name, found))
    return sorted(rows, key=lambda row: (row[1], -row[2], row[0]))


def top_features(events: Sequence[Event], asked: Asked, limit: int = 10) -> Answer:
    found = tracked(events, asked)
    rows = [
        _usage([e for e in found if e.event_type == name], found, asked.start, name, found)
        for name in {e.event_type for e in found}
    ]
    return sorted(rows, key=lambda row: (-row[2], row[0]))[:limit]


def labels(asked: Asked, bucket: str) -> list[Any]:
    """Return every bucket of a range."""
    last = (asked.end - timedelta(microseconds=1)).astimezone(asked.zone).date()
    day = asked.start.astimezone(asked.zone).date()
    days = [day + n * DAY for n in range((last - day).days + 1)]
    if bucket == "hour":
        first = asked.start.astimezone(asked.zone)
        at = asked.start - timedelta(minutes=first.minute, seconds=first.second, microseconds=first.microsecond)
        found = []
        while at < asked.end:
            found.append(at)
            at += timedelta(hours=1)
        return found
    starts: dict[str, Any] = {
        "day": lambda d: d,
        "week": lambda d: d - d.weekday() * DAY,
        "month": lambda d: d.replace(day=1),
    }
    return sorted({starts[bucket](d) for d in days})


def get_session_series(events: Sequence[Event], asked: Asked, bucket: str = "day") -> Answer:
    label: Any = {"hour": asked.hour, "day": asked.day, "week": asked.week, "month": asked.month}[bucket]
    rows: dict[date | datetime, list[tuple[Session, list[Event]]]] = {one: [] for one in labels(asked, bucket)}
    for session in of_filters(events, asked):
        of_session: dict[Any, list[Event]] = {}
        for event in session.events:
            if asked.start <= event.timestamp < asked.end:
                of_session.setdefault(label(event), []).append(event)
        for one, found in of_session.items():
            rows[one].append((session, found))
    return [
        (
            one,
            len(active),
            visitors(session for session, _ in active),
            sum(event.event_type == "page_view" for _, found in active for event in found),
        )
        for one, active in rows.items()
    ]


def get_session_breakdown(events: Sequence[Event], asked: Asked, by: str = "landing_page", limit: int = 100) -> Answer:
    found = begun(events, asked)
    counts = Counter(value for s in found if (value := s.row()[by]) not in (None, "other"))
    named = sorted(counts, key=lambda value: (-counts[value], value.encode()))[:limit]
    groups: dict[str | None, list[Session]] = {}
    for session in found:
        value = session.row()[by]
        groups.setdefault(value if value is None or value in named else "other", []).append(session)
    rows = [
        (value, len(group), visitors(group), bounce_rate(group), average([s.duration_ms for s in group]))
        for value, group in groups.items()
    ]
    assert sum(row[1] for row in rows) == len(found)
    return sorted(rows, key=lambda row: (row[0] is None, row[0] == "other", -row[1], (row[0] or "").encode()))
