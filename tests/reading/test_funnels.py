"""Funnels: random histories against every attempt that there is, and the hard ones by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID, uuid4

import pytest

from asgi_analytics.errors import InvalidQuery
from asgi_analytics.reading import AnalyticsReader
from asgi_analytics.reading.attempts import Attempts, By, Order
from asgi_analytics.reading.funnels import FunnelStep
from asgi_analytics.reading.steps import Filter, Step
from tests.kit.databases import Database
from tests.kit.sessions import sessions
from tests.reading.expected_funnels import Attempt, Search, furthest, value_of
from tests.reading.happened import Event, insert
from tests.schema.expected import percentile

MIDNIGHT = datetime(2026, 10, 25, tzinfo=UTC)
ME = UUID(int=1)


def happened(
    at: datetime, event_type: str, user: UUID | None = ME, session: str | None = None, **data: Any
) -> Event:
    return Event(uuid4(), at, event_type, "shop", user, session, data, {"environment": "production"})


def minutes(number: float) -> timedelta:
    return timedelta(minutes=number)


def story(text: str, unit: timedelta = minutes(1), user: UUID = ME, session: str | None = None) -> list[Event]:
    """Return the events of ``a0 b1 c5``: a type, and when it happened, counted in units from midnight."""
    return [happened(MIDNIGHT + int(word[1:]) * unit, word[0], user, session) for word in text.split()]


async def ask(reader: AnalyticsReader, steps: Sequence[str | Step], **options: Any) -> list[tuple[int, int]]:
    """Return how many reached each step, and how many are still on their way."""
    options = {"start": MIDNIGHT - timedelta(days=3), "end": MIDNIGHT + timedelta(days=3), **options}
    found = await reader.query_funnel(steps, **options)
    return [(step.count, step.in_progress) for step in found.steps]


async def counts(reader: AnalyticsReader, steps: Sequence[str | Step], **options: Any) -> list[int]:
    return [count for count, _ in await ask(reader, steps, **options)]


PATH = Filter("data.path", "exact", "/pricing")
STEPS = (
    Step("a"), Step("b"), Step("c"), Step("a", [Filter("data.n", "exact", 1)]),
    Step("a", [Filter("data.n", "in", [1, 2])]), Step("b", [Filter("data.n", "is_set")]),
    Step("c", [Filter("data.n", "greater_than", 1)]), Step("api_request"),
)  # fmt: skip
UNITS = (timedelta(microseconds=1), minutes(1), minutes(17), timedelta(hours=7))


def random_history(random: Random, user: UUID, unit: timedelta) -> list[Event]:
    events = []
    for _ in range(random.randrange(10)):
        at = MIDNIGHT + random.randrange(-4, 9) * unit
        data = {"n": random.choice([1, 2, "1", None])} if random.random() < 0.7 else {}
        if random.random() < 0.7:
            data["plan"] = random.choice(["free", "pro", "other", 3])
        session = random.choice([None, None, None, f"s{user}"])
        event_type = random.choice(["a", "a", "b", "b", "c", "d", "api_request", "page_view"])
        events.append(happened(at, event_type, user, session, **data))
    return events


def of_actors(events: Iterable[Event], by: By) -> dict[Any, list[Event]]:
    """Return the events of each user, or of each session by its id."""
    found: dict[Any, list[Event]] = {}
    if by == "user":
        for event in events:
            found.setdefault(event.user_id, []).append(event)
        return found
    known = sessions(events)
    for event in events:
        key = event.session_id or str(event.user_id), event.session_id is not None
        for session in known:
            if (session.key, session.given) == key and session.started_at <= event.timestamp <= session.ended_at:
                found.setdefault(session.id, []).append(event)
    return found


def summed_up(attempts: Sequence[Attempt], steps: int) -> list[tuple[Any, ...]]:
    """Return the count of each step, and the median and the 90th percentile of the way to it."""
    rows: list[tuple[Any, ...]] = []
    for number in range(steps):
        came = [attempt.times for attempt in attempts if len(attempt.times) > number]
        took = [(times[number] - times[number - 1]) / timedelta(milliseconds=1) for times in came if number]
        rows.append((len(came), *(pytest.approx(percentile(took, share)) if took else None for share in (0.5, 0.9))))
    return rows


def of_steps(steps: Sequence[FunnelStep]) -> list[tuple[Any, ...]]:
    return [(step.count, step.median_time_from_previous_ms, step.p90_time_from_previous_ms) for step in steps]


async def compare_rows(reader: AnalyticsReader, search: Search, by: By, wanted: dict[Any, Attempt]) -> None:
    """Compare the attempt of each actor."""
    order: Any = search.order
    attempts = Attempts(list(search.steps), list(search.exclusions), search.window, order, by, None, None)
    sql, parameters = attempts.conversions(search.start, search.end, 1, len(search.steps), None)
    async with reader.snapshot() as snapshot:
        rows = await snapshot.records(sql, *parameters)
    found = {row["user_id" if by == "user" else "session_id"]: row for row in rows}
    for actor, attempt in wanted.items():
        assert found[actor]["step_timestamps"] == list(attempt.times), (search, actor)
    assert len(rows) == len(found) == len(wanted), search
    for actor, row in found.items():
        times = wanted[actor].times
        is_complete = len(times) == len(search.steps)
        assert (row["started_at"], row["current_step"], row["completed"]) == (times[0], len(times), is_complete)
        assert row["completed_at"] == (times[-1] if is_complete else None)


async def compare_counts(reader: AnalyticsReader, search: Search, by: By, attempts: Sequence[Attempt]) -> None:
    """Compare the numbers, of all and by the value of the first or the last event."""
    for attribution in ("first_touch", "last_touch"):
        found = await reader.query_funnel(
            search.steps, conversion_window=search.window, order=search.order, by=by, exclusions=search.exclusions,
            start=search.start, end=search.end, breakdown="data.plan", attribution=attribution,
        )  # fmt: skip
        assert of_steps(found.steps) == summed_up(attempts, len(search.steps)), search
        whole = [(a.times[-1] - a.times[0]) / timedelta(milliseconds=1) for a in attempts]
        whole = [ms for ms, a in zip(whole, attempts, strict=True) if len(a.times) == len(search.steps)]
        assert found.median_conversion_time_ms == (pytest.approx(percentile(whole, 0.5)) if whole else None)
        by_value: dict[Any, list[Attempt]] = {}
        for attempt in attempts:
            value = value_of(attempt.touched[attribution == "last_touch"], "data.plan")
            by_value.setdefault(None if value is None else str(value), []).append(attempt)
        assert {share.value: of_steps(share.steps) for share in found.breakdown} == {
            value: summed_up(some, len(search.steps)) for value, some in by_value.items()
        }, search


@pytest.mark.parametrize("seed", [1, 2, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(3, 150))])
async def test_no_attempt_of_random_histories_comes_further(
    database: Database, reader: AnalyticsReader, seed: int
) -> None:
    random = Random(seed)
    connection = await database.connect()
    for unit in UNITS:
        await connection.execute("DELETE FROM analytics_events")
        users = [UUID(int=number) for number in range(1, 101)]
        events = [event for user in users for event in random_history(random, user, unit)]
        await insert(connection, events)
        orders: tuple[Order, ...] = ("ordered", "strict", "unordered")
        for number in range(9):
            by: By = random.choice(["user", "session"])
            search = Search(
                steps=[random.choice(STEPS) for _ in range(random.randrange(2, 5))],
                window=random.randrange(1, 8) * unit,
                start=MIDNIGHT + random.randrange(-4, 2) * unit,
                end=MIDNIGHT + random.randrange(2, 9) * unit,
                order=orders[number % 3],
                exclusions=random.sample([Step("d"), Step("b"), STEPS[3]], random.choice([0, 0, 1, 2])),
            )
            actors = of_actors(events, by)
            wanted = {actor: attempt for actor, some in actors.items() if (attempt := furthest(some, search))}
            await compare_rows(reader, search, by, wanted)
            await compare_counts(reader, search, by, list(wanted.values()))
