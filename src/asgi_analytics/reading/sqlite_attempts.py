"""The attempt at a funnel that counts, found among what one user did: an aggregate function of SQLite.

It does as ``attempts.sql`` does on PostgreSQL. Times are microseconds since 2000.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from asgi_analytics.reading.sqlite_functions import microseconds

EXCLUDED = 0
"""The number of what ends an attempt."""
NEVER = 2**62


class Plan(msgspec.Struct, frozen=True):
    """What is looked for."""

    until: int
    """Attempts begin before."""
    window: int
    pauses: list[int]
    """How much later than the step before each step has to come; empty for steps in any order."""
    needs: list[tuple[int, int, int]]
    """For steps in any order: so many events of a number reach a step: (step, number, events)."""
    first_touch: bool


class Found(NamedTuple):
    """One attempt."""

    started_at: int
    reached_at: int
    times: list[int]
    """Of the steps that it came to."""


class Attempt(msgspec.Struct):
    """The attempt that counts, with its value."""

    started_at: int
    reached_at: int
    furthest: int
    times: list[int]
    value: str | None


_decode_plan = msgspec.json.Decoder(Plan).decode
_decode_steps = msgspec.json.Decoder(list[int | list[int | None] | None]).decode


class BestAttempt:
    """An aggregate over the events of an actor: ``analytics_attempt(at, steps, id, value, plan)``.

    ``steps`` are the numbers of what an event is, a JSON array in which arrays and nulls may be. Returns JSON, or null
    if no attempt begins.
    """

    def __init__(self) -> None:
        self.events: list[tuple[int, str, str | None, list[int]]] = []
        self.hits: dict[int, list[int]] = {}
        self.plan = "{}"

    def step(self, at: str, steps: str, event_id: str, value: str | None, plan: str) -> None:
        """Take an event."""
        self.plan = plan
        time = microseconds(at) or 0
        numbers: list[int] = []
        for one in _decode_steps(steps):
            numbers += [number for number in (one if isinstance(one, list) else [one]) if number is not None]
        for number in numbers:
            self.hits.setdefault(number, []).append(time)
        self.events.append((time, event_id, value, numbers))

    def finalize(self) -> str | None:
        """Return the attempt that came furthest, of equals the one that got there first, then that began last."""
        plan = _decode_plan(self.plan)
        hits = {number: sorted(times) for number, times in self.hits.items()}
        found = in_order(hits, plan) if plan.pauses else in_any_order(hits, plan)
        if found is None:
            return None
        furthest = len(found.times)
        at = found.started_at if plan.first_touch else found.reached_at
        number = None if not plan.pauses else 1 if plan.first_touch else furthest
        touched = [
            (event_id, value)
            for time, event_id, value, numbers in self.events
            if time == at and (number in numbers if number is not None else any(numbers))
        ]
        value = min(touched, key=lambda one: one[0])[1]
        return msgspec.json.encode(Attempt(found.started_at, found.reached_at, furthest, found.times, value)).decode()


def in_order(hits: dict[int, list[int]], plan: Plan) -> Found | None:
    """Return the attempt that takes the steps one after the other.

    First forth: when events reach a step, and when the latest attempt began that had come so far, for a later one has
    more of its window left. Then back, each time with the earliest event that leads on.
    """
    excluded = hits.get(EXCLUDED, [])
    starts = [at for at in hits.get(1, []) if at < plan.until]
    reached = [(starts, starts)]
    for number, pause in enumerate(plan.pauses[1:], 2):
        before, begun = reached[-1]
        ends: list[int] = []
        started: list[int] = []
        for at in hits.get(number, []):
            place = bisect_right(before, at - pause)
            if not place or at > begun[place - 1] + plan.window:
                continue
            if _last_before(excluded, at) > before[place - 1]:
                continue
            ends.append(at)
            started.append(begun[place - 1])
        if not ends:
            break
        reached.append((ends, started))
    if not starts:
        return None
    started_at, reached_at = reached[-1][1][0], reached[-1][0][0]
    times = [reached_at]
    for ends, started in reached[-2::-1]:
        since = _last_before(excluded, times[0])
        times.insert(0, ends[max(bisect_left(started, started_at), bisect_left(ends, since))])
    return Found(started_at, reached_at, times)


def in_any_order(hits: dict[int, list[int]], plan: Plan) -> Found | None:
    """Return the attempt that takes the most different steps within one window."""
    excluded = hits.get(EXCLUDED, [])
    best: Found | None = None
    starts = {at for number, times in hits.items() if number != EXCLUDED for at in times if at < plan.until}
    for start in sorted(starts):
        place = bisect_right(excluded, start)
        until = min(start + plan.window, excluded[place] if place < len(excluded) else NEVER)
        ends: dict[int, int] = {}
        for step, number, needed in plan.needs:
            ends[step] = max(ends.get(step, 0), _nth_from(hits.get(number, []), start, needed))
        times = sorted(at for at in ends.values() if at <= until)
        found = Found(start, times[-1], times)
        if best is None or (len(times), -found.reached_at) >= (len(best.times), -best.reached_at):
            best = found
    return best


def _last_before(times: Sequence[int], at: int) -> int:
    place = bisect_left(times, at)
    return times[place - 1] if place else -NEVER


def _nth_from(times: Sequence[int], since: int, nth: int) -> int:
    place = bisect_left(times, since) + nth - 1
    return times[place] if place < len(times) else NEVER
