"""Funnels: how many users, or sessions, took one step after the other. Durations are milliseconds.

An attempt begins with an event of the first step in the range, and has the conversion window for all further steps, its
last instant included. Each step needs an event of its own: later than that of the step before, or at the same instant,
which will not do for a step whose type stood in an earlier step. Whoever tried more than once is counted by the attempt
that came furthest, of equals by the one that got there first, and of those by the one that began last; the times of its
steps are the earliest in that attempt.

Steps are ``ordered``, whatever else happens between them; or ``strict``, so that any other tracked event or page view
between two steps ends the attempt; or ``unordered``, which counts the most different steps within one window. What is
excluded ends the attempts in which it lies between two steps, and leaves every other attempt as it is. What happens at
the same instant as a step does not lie between.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import msgspec

from asgi_analytics.errors import InvalidQuery
from asgi_analytics.reading.attempts import Attempts, Attribution, By, Order
from asgi_analytics.reading.question import Duration, Limit, Text, question
from asgi_analytics.reading.ranges import Moment, Range, local
from asgi_analytics.reading.source import Snapshot, Source
from asgi_analytics.reading.statements import Statements
from asgi_analytics.reading.steps import MOST_STEPS, AnyStep, Parameters, Step, as_steps, filters

SQL = Statements("funnels")

Steps = Annotated[Sequence[AnyStep], msgspec.Meta(min_length=1, max_length=MOST_STEPS)]
Exclusions = Annotated[Sequence[AnyStep], msgspec.Meta(max_length=MOST_STEPS)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Description = Annotated[str, msgspec.Meta(max_length=2000)]
Number = Annotated[int, msgspec.Meta(ge=1, le=MOST_STEPS)]

WINDOW = timedelta(days=14)


class FunnelStep(msgspec.Struct, frozen=True):
    """One step of a funnel."""

    name: str
    """The event type, unless the step has a name. In any order: of the step at this place."""
    count: int
    """Users or sessions whose attempt reached the step; in any order those that took at least so many steps."""
    conversion_rate_from_previous: float | None
    """Of those that reached the step before; 1 for the first step, null if there was nobody."""
    conversion_rate_from_first: float | None
    median_time_from_previous_ms: float | None
    """From the step before; null for the first step."""
    p90_time_from_previous_ms: float | None
    drop_off_count: int
    """Those that reached the step before less those that reached this one; 0 for the first."""
    in_progress: int
    """Those that got no further than this step, and have time left."""


class FunnelShare(msgspec.Struct, frozen=True):
    """The attempts of one value."""

    value: str | None
    """``other`` stands for all values but the 100 of the most attempts, null for attempts without one."""
    steps: list[FunnelStep]


class FunnelBefore(msgspec.Struct, frozen=True):
    """The same funnel over the period before."""

    start: datetime
    end: datetime
    steps: list[FunnelStep]
    conversion_rate: float | None
    median_conversion_time_ms: float | None


class FunnelResult(msgspec.Struct, frozen=True):
    """A funnel over a range."""

    steps: list[FunnelStep]
    conversion_rate: float | None
    """From the first step to the last."""
    median_conversion_time_ms: float | None
    """From the first step to the last, of those that took all."""
    breakdown: list[FunnelShare]
    """By a value of the attempts, if that was asked; the counts of its rows add up."""
    previous: FunnelBefore | None
    """If it was asked to compare."""


class Funnel(msgspec.Struct, frozen=True):
    """A funnel that is kept by its name."""

    id: UUID
    name: str
    description: str | None
    steps: list[Step]
    conversion_window: float
    """Seconds."""
    created_at: datetime


class FunnelConversion(msgspec.Struct, frozen=True):
    """The attempt of one user or session that counts."""

    user_id: UUID | None
    session_id: str | None
    """Of a funnel by session."""
    started_at: datetime
    completed_at: datetime | None
    current_step: int
    """How far it came, counted from 1."""
    completed: bool
    step_timestamps: list[datetime]
    """When each step was reached."""


@question("/funnels/query", method="POST")
async def query_funnel(
    source: Source,
    steps: Steps,
    *,
    conversion_window: Duration = WINDOW,
    order: Order = "ordered",
    by: By = "user",
    exclusions: Exclusions = (),
    breakdown: Text | None = None,
    attribution: Attribution = "first_touch",
    compare: bool = False,
    start: Moment | None = None,
    end: Moment | None = None,
    timezone: str | None = None,
    service: Text | None = None,
    environment: Text | None = None,
) -> FunnelResult:
    """Count the users, or sessions, whose furthest attempt that began in the range reached each step.

    ``breakdown`` names a field of the first or, with ``attribution="last_touch"``, of the last event of each attempt.
    ``compare`` adds the same over the period before.
    """
    asked = source.range(start, end, timezone)
    attempts = Attempts(as_steps(steps), as_steps(exclusions), conversion_window, order, by, service, environment)
    before = asked.previous()
    statement = attempts.summary(source.dialect, asked.start, asked.end, source.now(), breakdown, attribution)
    previous = None
    async with source.snapshot() as snapshot:
        await _require_raw(snapshot, attempts, asked)
        total, shares = await _count(snapshot, attempts.steps, *statement)
        if compare:
            await _require_raw(snapshot, attempts, before)
            statement = attempts.summary(source.dialect, before.start, before.end, source.now(), None, attribution)
            earlier, _ = await _count(snapshot, attempts.steps, *statement)
            previous = FunnelBefore(
                start=local(before.start, before.zone),
                end=local(before.end, before.zone),
                steps=earlier.steps,
                conversion_rate=earlier.conversion_rate,
                median_conversion_time_ms=earlier.median_ms,
            )
    return FunnelResult(total.steps, total.conversion_rate, total.median_ms, shares, previous)


@question("/funnels/{name}/conversions")
async def query_funnel_conversions(
    source: Source,
    name: Name,
    step: Number = 1,
    dropped: bool = False,
    *,
    order: Order = "ordered",
    by: By = "user",
    limit: Limit | None = None,
    start: Moment | None = None,
    end: Moment | None = None,
    timezone: str | None = None,
    service: Text | None = None,
    environment: Text | None = None,
) -> list[FunnelConversion]:
    """List the attempts at a kept funnel that reached a step, or were dropped at it, the latest first.

    ``dropped`` lists those that reached the step before and got no further: as many as the ``drop_off_count`` of the
    step. Raises `InvalidQuery` for a name that no funnel has.
    """
    asked = source.range(start, end, timezone)
    async with source.snapshot() as snapshot:
        funnel = await _funnel(snapshot, name)
        if step > len(funnel.steps):
            raise InvalidQuery("step", f"must be one of the {len(funnel.steps)} steps of the funnel")
        if dropped and step == 1:
            raise InvalidQuery("step", "nobody is dropped at the first step: name a later one")
        attempts = Attempts(
            funnel.steps, [], timedelta(seconds=funnel.conversion_window), order, by, service, environment
        )
        await _require_raw(snapshot, attempts, asked)
        at_least, at_most = (step - 1, step - 1) if dropped else (step, len(funnel.steps))
        rows = snapshot.limit() if limit is None else snapshot.limit(limit)
        sql, parameters = attempts.conversions(source.dialect, asked.start, asked.end, at_least, at_most, rows)
        return await snapshot.rows(FunnelConversion, sql, *parameters)


@question("/funnels")
async def list_funnels(source: Source) -> list[Funnel]:
    """List the funnels that are kept, by name."""
    async with source.snapshot() as snapshot:
        return await snapshot.rows(_kept, SQL["list"])


@question("/funnels/{name}")
async def get_funnel(source: Source, name: Name) -> Funnel:
    """Return the funnel that is kept by a name. Raises `InvalidQuery` for a name that none has."""
    async with source.snapshot() as snapshot:
        return await _funnel(snapshot, name)


@question("/funnels", method="POST", changes=True)
async def create_funnel(
    source: Source,
    name: Name,
    steps: Steps,
    *,
    description: Description | None = None,
    conversion_window: Duration = WINDOW,
) -> Funnel:
    """Keep a funnel by a name, and return it. Raises `InvalidQuery` for a name that is taken or has a slash."""
    if "/" in name:
        raise InvalidQuery("name", "must not have a slash, where a name ends in a URL")
    kept = as_steps(steps)
    for one in kept:
        filters("steps", one, Parameters())  # raises for what can never be asked
    async with source.change() as snapshot:
        content = msgspec.json.encode(kept).decode()
        made = await snapshot.records(SQL["create"], name, description, content, conversion_window)
        if not made:
            raise InvalidQuery("name", "is taken by another funnel: delete that first, or use another name")
        return _kept(*made[0])


@question("/funnels/{name}", method="DELETE", changes=True)
async def delete_funnel(source: Source, name: Name) -> None:
    """Keep a funnel no longer; no event is deleted. Raises `InvalidQuery` for a name that none has."""
    async with source.change() as snapshot:
        if not await snapshot.records(SQL["delete"], name):
            raise _unknown()


class _Counted(msgspec.Struct, frozen=True):
    """The steps of all attempts, or of those of one value."""

    steps: list[FunnelStep]
    conversion_rate: float | None
    median_ms: float | None


async def _count(
    snapshot: Snapshot, steps: Sequence[Step], sql: str, parameters: Sequence[Any]
) -> tuple[_Counted, list[FunnelShare]]:
    found: dict[tuple[bool, str | None], list[Sequence[Any]]] = {}
    for is_total, value, *row in await snapshot.records(sql, *parameters):
        found.setdefault((is_total, value), []).append(row)
    total = found.pop((True, None), [])
    shares = [FunnelShare(value, _steps(steps, rows).steps) for (_, value), rows in found.items()]
    return _steps(steps, total), shares


def _steps(steps: Sequence[Step], rows: Sequence[Sequence[Any]]) -> _Counted:
    """Return the steps that rows of step, count, number in progress and durations are of."""
    reached: dict[int, Sequence[Any]] = {row[0]: row[1:] for row in rows}
    nothing = (0, 0, None, None)
    made: list[FunnelStep] = []
    first = previous = reached.get(1, nothing)[0]
    took: Sequence[float] | None = None
    for number, step in enumerate(steps, 1):
        count, in_progress, next_ms, _ = reached.get(number, nothing)
        made.append(
            FunnelStep(
                name=step.label,
                count=count,
                conversion_rate_from_previous=_rate(count, previous),
                conversion_rate_from_first=_rate(count, first),
                median_time_from_previous_ms=None if took is None else took[0],
                p90_time_from_previous_ms=None if took is None else took[1],
                drop_off_count=previous - count,
                in_progress=in_progress,
            )
        )
        previous, took = count, next_ms
    completed = reached.get(len(steps), nothing)
    return _Counted(made, _rate(completed[0], first), completed[3])


def _rate(part: int, whole: int) -> float | None:
    return part / whole if whole else None


async def _require_raw(snapshot: Snapshot, attempts: Attempts, asked: Range) -> None:
    steps = [*attempts.steps, *attempts.exclusions]
    types = None if attempts.order == "strict" else {step.event_type for step in steps}
    await snapshot.require_raw([(asked.start, asked.end + attempts.window)], "a funnel", types)


async def _funnel(snapshot: Snapshot, name: str) -> Funnel:
    found = await snapshot.records(SQL["find"], name)
    if not found:
        raise _unknown()
    return _kept(*found[0])


def _unknown() -> InvalidQuery:
    return InvalidQuery("name", "no funnel has it: use one that list_funnels() returns")


def _kept(
    funnel_id: Any, name: str, description: str | None, steps: str, window: timedelta, created_at: datetime
) -> Funnel:
    return Funnel(
        id=UUID(int=funnel_id.int),
        name=name,
        description=description,
        steps=msgspec.json.decode(steps, type=list[Step]),
        conversion_window=window.total_seconds(),
        created_at=created_at,
    )
