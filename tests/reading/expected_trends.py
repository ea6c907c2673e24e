"""What `query_trends` must answer, computed once more from a list of events, as simply as possible."""

from __future__ import annotations

import json
import math as m
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from asgi_analytics.encoding.users import user_uuid
from asgi_analytics.reading.steps import Filter, Step
from tests.reading.happened import Event
from tests.schema.measures import percentile

if TYPE_CHECKING:
    from tests.reading.expected import Asked

MISSING = object()
Lines = dict[str | None, list[Event]]
"""Events by their value."""
QUANTILES = {"median": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


def value_of(e: Event, field: str) -> Any:
    """Return what stands in a field, MISSING if there is none."""
    first, *path = field.split(".")
    if first not in ("data", "context"):
        value = getattr(e, field)
        return MISSING if value is None else str(value)
    found: Any = getattr(e, first)
    for key in path:
        if isinstance(found, dict):
            found = found.get(key, MISSING)
        elif isinstance(found, list) and key.isdecimal() and int(key) < len(found):
            found = found[int(key)]
        else:
            return MISSING
    return found


def text_of(e: Event, field: str) -> str | None:
    found = value_of(e, field)
    if found is MISSING or found is None:
        return None
    return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)


def number_of(e: Event, field: str) -> float | None:
    found = value_of(e, field)
    return float(found) if type(found) in (int, float) and abs(found) <= 1e300 else None


def is_equal(e: Event, field: str, value: Any) -> bool:
    if isinstance(value, str):
        return text_of(e, field) == (str(user_uuid(value)[0]) if field == "user_id" else value)
    if isinstance(value, bool):
        return value_of(e, field) is value
    return bool(number_of(e, field) == value)


def passes(e: Event, one: Filter) -> bool:
    text, number, value = text_of(e, one.field), number_of(e, one.field), one.value
    rules: dict[str, Callable[[Any], bool]] = {
        "is_set": lambda _: text is not None,
        "is_not_set": lambda _: text is None,
        "exact": lambda v: is_equal(e, one.field, v),
        "is_not": lambda v: text is not None and not is_equal(e, one.field, v),
        "in": lambda v: any(is_equal(e, one.field, each) for each in v),
        "contains": lambda v: text is not None and v in text,
        "not_contains": lambda v: text is not None and v not in text,
        "greater_than": lambda v: number is not None and number > v,
        "less_than": lambda v: number is not None and number < v,
        "between": lambda v: number is not None and v[0] <= number <= v[1],
    }
    return rules[one.operator](value)


def computed(events: Sequence[Event], math: str, property: str | None) -> float | None:
    if math == "total":
        return len(events)
    if math == "unique_users":
        return len({e.user_id for e in events} - {None})
    assert property is not None
    numbers = [number for e in events if (number := number_of(e, property)) is not None]
    if math in QUANTILES or not numbers:
        return percentile(numbers, QUANTILES.get(math, 0))
    return {"sum": m.fsum(numbers), "avg": m.fsum(numbers) / len(numbers), "min": min(numbers), "max": max(numbers)}[
        math
    ]


def bucket_starts(asked: Asked, interval: str) -> list[datetime]:
    """Return the local hours, midnights, Mondays or firsts of the range, by looking at every quarter hour."""
    key: Callable[[Any], Any] = getattr(asked, interval)
    found: dict[Any, None] = {}
    at = asked.start
    while at < asked.end:
        found[key(Event(None, at, "", "", None, None, {}, None))] = None  # type: ignore[arg-type]
        at += timedelta(minutes=15)
    at = asked.end - timedelta(microseconds=1)
    found[key(Event(None, at, "", "", None, None, {}, None))] = None  # type: ignore[arg-type]
    return list(found)


def moved(events: Iterable[Event], asked: Asked) -> list[Event]:
    """Return the events of the period before, moved into the range: by whole local days if it is made of such."""
    first, last = (at.astimezone(asked.zone) for at in (asked.start, asked.end))
    if first.time() == last.time() == time.min:
        days = last.date() - first.date()
        return [
            e._replace(timestamp=(e.timestamp.astimezone(asked.zone) + days).astimezone(UTC))
            for e in events
            if first.date() - days <= asked.day(e) < first.date()
        ]
    length = asked.end - asked.start
    return [
        e._replace(timestamp=e.timestamp + length) for e in events if asked.start - length <= e.timestamp < asked.start
    ]


def query_trends(
    events: Sequence[Event],
    asked: Asked,
    series: Sequence[str | Step] = (),
    interval: str = "day",
    math: str = "total",
    property: str | None = None,
    breakdown: str | None = None,
    compare: bool = False,
    limit: int = 25,
) -> Any:
    labels = bucket_starts(asked, interval)
    key: Callable[[Event], Any] = getattr(asked, interval)
    now: list[Any] = []
    then: list[Any] = []
    for step in (one if isinstance(one, Step) else Step(one) for one in series):

        def lines_of(events: Iterable[Event], like: Iterable[str | None] | None, step: Step = step) -> Lines:
            mine = [e for e in asked.within(events, step.event_type) if all(passes(e, one) for one in step.where)]
            values = {e.id: None if breakdown is None else text_of(e, breakdown) for e in mine}
            frequent = Counter(value for value in values.values() if value not in (None, "other"))
            named = sorted(frequent, key=lambda value: (-frequent[value], value or ""))[:limit]
            named = named if like is None else [value for value in like if value not in (None, "other")]
            lines: Lines = {value: [] for value in [*named, "other", None]}
            for e in mine:
                value = values[e.id]
                lines[value if value is None or value in named else "other"].append(e)
            kept = {None} if breakdown is None else {*(like or ())}
            return {value: found for value, found in lines.items() if found or value in kept}

        def rows(label: str, lines: Lines, step: Step = step) -> Iterator[Any]:
            for value, found in lines.items():
                groups: dict[Any, list[Event]] = {}
                for e in found:
                    groups.setdefault(key(e), []).append(e)
                data = [computed(groups.get(start, []), math, property) for start in labels]
                yield step.event_type, label, data, value, computed(found, math, property)

        lines = lines_of(events, None)
        now += rows(step.label, lines)
        if compare:
            then += rows("previous", lines_of(moved(events, asked), lines))
    return now + then, labels
