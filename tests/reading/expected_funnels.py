"""The furthest attempt of an actor at a funnel, found by trying all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from asgi_analytics.reading.steps import Filter, Step
from tests.kit.sessions import CAPTURED
from tests.reading.happened import Event

Times = tuple[datetime, ...]


class Attempt(NamedTuple):
    """One attempt: when each step was reached, and its first and last event."""

    times: Times
    touched: tuple[Event, Event]


class Search(NamedTuple):
    """What is looked for."""

    steps: Sequence[Step]
    window: timedelta
    start: datetime
    end: datetime
    order: str = "ordered"
    exclusions: Sequence[Step] = ()


def value_of(event: Event, field: str) -> Any:
    """Return what stands in a field, None for what is not there."""
    if field in ("event_type", "service", "session_id"):
        return getattr(event, field)
    if field == "user_id":
        return None if event.user_id is None else str(event.user_id)
    name, *path = field.split(".")
    found: Any = event.data if name == "data" else event.context
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def text(value: Any) -> str | None:
    """Return a scalar as SQL has its text."""
    if value is None or isinstance(value, str):
        return value
    return str(value).lower() if isinstance(value, bool) else str(value)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_equal(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, str):
        return text(found) == wanted
    return found == wanted and is_number(found) == is_number(wanted)


def is_match(event: Event, one: Filter) -> bool:
    found, wanted = value_of(event, one.field), one.value
    if found is None:
        return one.operator == "is_not_set"
    match one.operator:
        case "exact":
            return is_equal(found, wanted)
        case "is_not":
            return not is_equal(found, wanted)
        case "in":
            assert isinstance(wanted, list)
            return any(is_equal(found, each) for each in wanted)
        case "contains":
            assert isinstance(wanted, str)
            return wanted in str(text(found))
        case "not_contains":
            assert isinstance(wanted, str)
            return wanted not in str(text(found))
        case "is_set":
            return True
        case "greater_than":
            return is_number(found) and found > wanted
        case "less_than":
            return is_number(found) and found < wanted
        case "between":
            assert isinstance(wanted, list)
            return is_number(found) and wanted[0] <= found <= wanted[1]
    return False


def is_step(event: Event, step: Step) -> bool:
    return event.event_type == step.event_type and all(is_match(event, one) for one in step.where)


def furthest(events: Sequence[Event], search: Search) -> Attempt | None:
    """Return the attempt of an actor's events that counts."""
    ordered = sorted(events, key=lambda e: (e.timestamp, e.id))
    attempts = list(_in_any_order(ordered, search) if search.order == "unordered" else _in_order(ordered, search))
    if not attempts:
        return None
    return min(attempts, key=lambda a: (-len(a.times), a.times[-1], -a.times[0].timestamp()))


def _ends(event: Event, search: Search) -> bool:
    if any(is_step(event, one) for one in search.exclusions):
        return True
    return search.order == "strict" and event.event_type not in (*CAPTURED, "page_engaged")


def _in_order(events: Sequence[Event], search: Search) -> Iterator[Attempt]:
    """Yield the best of all attempts that begin with each event."""
    ending = [event.timestamp for event in events if _ends(event, search)]

    def ways(taken: list[Event]) -> Iterator[list[Event]]:
        yield taken
        if len(taken) == len(search.steps):
            return
        step, before = search.steps[len(taken)], taken[-1].timestamp
        stood_before = any(step.event_type == one.event_type for one in search.steps[: len(taken)])
        for event in events:
            at = event.timestamp
            if not is_step(event, step) or at < before or (stood_before and at == before):
                continue
            if at > taken[0].timestamp + search.window or any(before < other < at for other in ending):
                continue
            yield from ways([*taken, event])

    for event in events:
        if is_step(event, search.steps[0]) and search.start <= event.timestamp < search.end:
            found = list(ways([event]))
            length = max(map(len, found))
            found = [way for way in found if len(way) == length]
            end = min(way[-1].timestamp for way in found)
            found = [way for way in found if way[-1].timestamp == end]
            times = tuple(min(way[n].timestamp for way in found) for n in range(length))
            last = min((way[-1] for way in found), key=lambda e: e.id)
            yield Attempt(times, (event, last))


def _in_any_order(events: Sequence[Event], search: Search) -> Iterator[Attempt]:
    """Yield the attempt that begins with each event."""

    def most(chosen: Sequence[Event], steps: Sequence[Step]) -> int:
        """Return how many steps can be filled, each by an event of its own."""
        if not steps:
            return 0
        first, *rest = steps
        fills = [n for n, event in enumerate(chosen) if is_step(event, first)]
        with_it = [1 + most([*chosen[:n], *chosen[n + 1 :]], rest) for n in fills]
        return max([most(chosen, rest), *with_it])

    relevant = [event for event in events if any(is_step(event, step) for step in search.steps)]
    for start in relevant:
        began = start.timestamp
        if not search.start <= began < search.end:
            continue
        ending = [event.timestamp for event in events if _ends(event, search) and event.timestamp > began]
        until = min([began + search.window, *ending])
        within = [event for event in relevant if began <= event.timestamp <= until]
        times: list[datetime] = []
        for event in within:
            count = most([one for one in within if one.timestamp <= event.timestamp], search.steps)
            times += [event.timestamp] * (count - len(times))
        first, last = (
            min((one for one in within if one.timestamp == at), key=lambda e: e.id) for at in (began, times[-1])
        )
        yield Attempt(tuple(times), (first, last))
