"""What each question about cohorts, habits and paths must answer, computed once more from a list of events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from uuid import UUID

from tests.kit.sessions import Session
from tests.reading.expected_sessions import begun, labels
from tests.reading.happened import Event

if TYPE_CHECKING:
    from tests.reading.expected import Asked

DAY = timedelta(days=1)
Answer = Any


def later(label: date, period: str, number: int) -> date:
    """Return the day, Monday or first of the month so many periods later, or earlier."""
    if period == "month":
        months = label.year * 12 + label.month - 1 + number
        return date(months // 12, months % 12 + 1, 1)
    return label + number * {"day": 1, "week": 7}[period] * DAY


def label_of(asked: Asked, period: str) -> Callable[[Event], date]:
    return {"day": asked.day, "week": asked.week, "month": asked.month}[period]


def begins(asked: Asked, label: date) -> datetime:
    return datetime.combine(label, time.min, asked.zone).astimezone(UTC)


def of_users(events: Sequence[Event], asked: Asked, event_type: str | None) -> dict[UUID, list[Event]]:
    """Return the events of each user, of a type and of the service, whenever they were; oldest first."""
    found: dict[UUID, list[Event]] = {}
    for event in sorted(events, key=lambda e: e.timestamp):
        is_asked = event_type in (None, event.event_type) and asked.service in (None, event.service)
        if event.user_id is not None and is_asked:
            found.setdefault(event.user_id, []).append(event)
    return found


def query_retention(
    events: Sequence[Event],
    asked: Asked,
    target_event: str | None = None,
    returning_event: str | None = None,
    period: str = "day",
    total_periods: int = 8,
) -> Answer:
    label = label_of(asked, period)
    cohorts: dict[date, list[UUID]] = {}
    for user, found in of_users(events, asked, target_event).items():
        if asked.start <= found[0].timestamp < asked.end:
            cohorts.setdefault(label(found[0]), []).append(user)
    there = {user: {label(e) for e in found} for user, found in of_users(events, asked, returning_event).items()}
    rows = []
    for day, users in sorted(cohorts.items()):
        periods: list[tuple[int, int, float | None, bool]] = []
        for number in range(total_periods):
            if begins(asked, later(day, period, number)) > asked.now:
                periods.append((number, 0, None, False))
                continue
            count = sum(later(day, period, number) in there.get(user, ()) for user in users)
            is_over = begins(asked, later(day, period, number + 1)) <= asked.now
            periods.append((number, count, count / len(users), is_over))
        rows.append((day, len(users), periods))
    overall = []
    for number in range(total_periods):
        over = [(size, periods[number][1]) for _, size, periods in rows if periods[number][3]]
        if over:
            overall.append((number, sum(count for _, count in over) / sum(size for size, _ in over)))
    return rows, overall


def query_stickiness(events: Sequence[Event], asked: Asked, event_type: str | None = None) -> Answer:
    users = of_users(asked.within(events), asked, event_type)
    days = Counter(len({asked.day(e) for e in found}) for found in users.values())
    return ([(number, count, count / len(users)) for number, count in sorted(days.items())],)


def query_lifecycle(
    events: Sequence[Event], asked: Asked, interval: str = "day", event_type: str | None = None
) -> Answer:
    label = label_of(asked, interval)
    names = labels(asked, interval)
    before = later(names[0], interval, -1)
    counts: dict[date, Counter[str]] = {name: Counter() for name in names}
    for found in of_users(events, asked, event_type).values():
        there = {label(e) for e in found if asked.start <= e.timestamp < asked.end}
        there |= {before} if any(label(e) == before for e in found) else set()
        first = found[0].timestamp
        for name in names:
            was_there = later(name, interval, -1) in there
            if name not in there:
                counts[name]["dormant"] += was_there
            elif was_there:
                counts[name]["returning"] += 1
            else:
                is_new = first >= asked.start and label(found[0]) == name
                counts[name]["new" if is_new else "resurrecting"] += 1
    kinds = ("new", "returning", "resurrecting", "dormant")
    return ([(name, *(counts[name][kind] for kind in kinds)) for name in names],)


def name_of(event: Event) -> str:
    is_view = event.event_type == "page_view" and event.data.get("page") is not None
    return str(event.data["page"]) if is_view else event.event_type


def path_of(session: Session, depth: int, start_event: str | None, end_event: str | None) -> list[tuple[int, str]]:
    """Return the positions and names of a session's path; none if it has not the events that are asked for."""
    names = [name_of(event) for event in session.events]
    if start_event is not None:
        if start_event not in names:
            return []
        names = names[names.index(start_event) :]
    if end_event is None:
        return list(enumerate(names[:depth], 1))
    earliest = 0 if start_event is None else 1
    if end_event not in names[earliest:]:
        return []
    names = names[: names.index(end_event, earliest) + 1][-depth:]
    return list(enumerate(names, depth - len(names) + 1))


def query_paths(
    events: Sequence[Event],
    asked: Asked,
    start_event: str | None = None,
    end_event: str | None = None,
    depth: int = 5,
    limit: int = 20,
) -> Answer:
    paths = [path_of(session, depth, start_event, end_event) for session in begun(events, asked)]
    every = Counter(step for path in paths for step in path)
    kept: set[tuple[int, str]] = set()
    for position in range(1, depth + 1):
        names = [(name, count) for (at, name), count in every.items() if at == position and name != "other"]
        names.sort(key=lambda one: (-one[1], one[0].encode()))
        kept |= {(position, name) for name, _ in names[:limit]}
    named = [[step if step in kept else (step[0], "other") for step in path] for path in paths]
    nodes = Counter(step for path in named for step in path)
    links = Counter(pair for path in named for pair in pairwise(path))
    return (
        [
            (f"{position}:{name}", name, count)
            for (position, name), count in sorted(nodes.items(), key=lambda one: (-one[1], one[0]))
        ],
        [
            (f"{one}:{source}", f"{two}:{target}", count)
            for ((one, source), (two, target)), count in sorted(links.items(), key=lambda one: (-one[1], one[0]))
        ],
    )
