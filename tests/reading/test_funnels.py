"""Funnels: random histories against every attempt that there is, and the hard ones by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import partial
from random import Random
from typing import Any
from uuid import UUID

import pytest

from asgi_analytics.reading import AnalyticsReader
from asgi_analytics.reading.attempts import Attempts, Attribution, By, Order
from asgi_analytics.reading.funnels import FunnelConversion, FunnelStep
from asgi_analytics.reading.steps import Filter, Step
from tests.kit.databases import Database
from tests.kit.sessions import sessions
from tests.reading.expected_funnels import Attempt, Search, furthest, value_of
from tests.reading.happened import Event, insert
from tests.reading.stories import ME, MIDNIGHT, ask, counts, happened, minutes, story
from tests.schema.measures import percentile

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
        data: dict[str, Any] = {"n": random.choice([1, 2, "1", None])} if random.random() < 0.7 else {}
        if random.random() < 0.7:
            data |= {"plan": random.choice(["free", "pro", "other", 3])}
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
    async with reader.snapshot() as snapshot:
        sql, parameters = attempts.conversions(
            reader.dialect, search.start, search.end, 1, len(search.steps), snapshot.limit()
        )
        rows = await snapshot.rows(FunnelConversion, sql, *parameters)
    found = {row.user_id if by == "user" else row.session_id: row for row in rows}
    for actor, attempt in wanted.items():
        assert found[actor].step_timestamps == list(attempt.times), (search, actor)
    assert len(rows) == len(found) == len(wanted), search
    for actor, row in found.items():
        times = wanted[actor].times
        is_complete = len(times) == len(search.steps)
        assert (row.started_at, row.current_step, row.completed) == (times[0], len(times), is_complete)
        assert row.completed_at == (times[-1] if is_complete else None)


async def compare_counts(reader: AnalyticsReader, search: Search, by: By, attempts: Sequence[Attempt]) -> None:
    """Compare the numbers, of all and by the value of the first or the last event."""
    order: Any = search.order
    attributions: tuple[Attribution, ...] = ("first_touch", "last_touch")
    for attribution in attributions:
        found = await reader.query_funnel(
            search.steps, conversion_window=search.window, order=order, by=by, exclusions=search.exclusions,
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


HARD: list[tuple[str, str, int, list[int]]] = [
    ("a0 b1 c2", "abc", 9, [1, 1, 1]),
    ("c0 b1 a2", "abc", 9, [1, 0, 0]),  # the wrong order
    ("a0 b0 c0", "abc", 9, [1, 1, 1]),  # all at one instant
    ("a0 a0", "aa", 9, [1, 0]),  # two equal steps at one instant
    ("a0 a1", "aa", 9, [1, 1]),
    ("a0 b1 a1", "aba", 9, [1, 1, 0]),  # the third may be the first one again
    ("a0 b1 a2", "aba", 9, [1, 1, 1]),
    ("a0 b1 a5 b6 c7", "abc", 3, [1, 1, 1]),  # a second attempt
    ("a0 b1 a5 c6", "abc", 3, [1, 1, 0]),  # steps of two attempts
    ("a0 b2 c4", "abc", 4, [1, 1, 1]),  # the last instant of the window
    ("a0 b2 c5", "abc", 4, [1, 1, 0]),
    ("b1 c2", "abc", 9, [0, 0, 0]),
]


@pytest.mark.parametrize("unit", [timedelta(microseconds=1), minutes(13)])
async def test_the_hard_ones(database: Database, reader: AnalyticsReader, unit: timedelta) -> None:
    connection = await database.connect()
    for text, steps, window, wanted in HARD:
        await connection.execute("DELETE FROM analytics_events")
        await insert(connection, story(text, unit))
        for order in ("ordered", "strict"):
            options: dict[str, Any] = {"conversion_window": window * unit, "order": order}
            assert await counts(reader, list(steps), **options) == wanted, (text, order)


ENDED: list[tuple[str, list[int]]] = [
    ("a0 x1 b2 c3", [1, 0, 0]),
    ("a0 b1 x2 c3", [1, 1, 0]),
    ("a0 b1 x1 c3", [1, 1, 1]),  # at the instant of a step
    ("a0 x1 a2 b3 c4", [1, 1, 1]),  # in another attempt
    ("x0 a1 b2 c3 x4", [1, 1, 1]),
]


async def test_what_is_excluded_ends_the_attempt_it_lies_in(database: Database, reader: AnalyticsReader) -> None:
    connection = await database.connect()
    for text, wanted in ENDED:
        await connection.execute("DELETE FROM analytics_events")
        await insert(connection, story(text))
        assert await counts(reader, list("abc"), exclusions=["x"]) == wanted, text
        assert await counts(reader, list("abc"), order="strict") == wanted, text
        assert await counts(reader, list("abc")) == [1, 1, 1]


async def test_only_tracked_events_and_page_views_stand_in_the_way(database: Database, reader: AnalyticsReader) -> None:
    connection = await database.connect()
    await insert(connection, story("a0 b2"))
    for event_type in ("api_request", "database_query", "application_error", "page_engaged"):
        await insert(connection, [happened(MIDNIGHT + minutes(1), event_type)])
    assert await counts(reader, ["a", "b"], order="strict") == [1, 1]
    await insert(connection, [happened(MIDNIGHT + minutes(1), "page_view", UUID(int=2))])
    assert await counts(reader, ["a", "b"], order="strict") == [1, 1]
    await insert(connection, [happened(MIDNIGHT + minutes(1), "page_view")])
    assert await counts(reader, ["a", "b"], order="strict") == [1, 0]


async def test_a_day_of_25_hours_and_midnight(database: Database, reader: AnalyticsReader) -> None:
    """In Berlin the day of 25 October 2026 ends at 23 hours UTC; the range is of attempts that begin in it."""
    connection = await database.connect()
    last = datetime(2026, 10, 25, 22, 59, 59, 999_999, tzinfo=UTC)
    await insert(connection, [happened(last, "a"), happened(last + timedelta(hours=30), "b")])
    await insert(connection, [happened(last + timedelta(microseconds=1), "a", UUID(int=2))])
    day: dict[str, Any] = {"start": date(2026, 10, 25), "end": date(2026, 10, 25), "timezone": "Europe/Berlin"}
    assert await counts(reader, ["a", "b"], **day) == [1, 1]
    assert await counts(reader, ["a", "b"], **day, conversion_window=timedelta(hours=29)) == [1, 0]
    found = await reader.query_funnel(["a", "b"], **day, compare=True)
    assert found.previous is not None
    assert (found.previous.start.day, found.previous.end.day) == (24, 25)
    assert found.previous.end - found.previous.start == timedelta(hours=24)
    assert [step.count for step in found.previous.steps] == [0, 0]
    assert (found.previous.conversion_rate, found.previous.median_conversion_time_ms) == (None, None)
    later = await reader.query_funnel(["a", "b"], start=date(2026, 10, 26), end=date(2026, 10, 26), compare=True)
    assert later.previous is not None
    assert [step.count for step in later.previous.steps] == [2, 1]


async def test_the_rates_and_durations_of_each_step(database: Database, reader: AnalyticsReader) -> None:
    connection = await database.connect()
    for number, text in enumerate(["a0 b1 c9", "a0 b3", "a0", "a5 b9 c10"], 1):
        await insert(connection, story(text, user=UUID(int=number)))
    found = await reader.query_funnel(
        ["a", Step("b", name="pays"), "c"], start=MIDNIGHT - minutes(1), end=MIDNIGHT + minutes(60)
    )
    minute: float = 60_000
    about: Any = pytest.approx
    assert found.steps == [
        FunnelStep("a", 4, 1.0, 1.0, None, None, 0, 0),
        FunnelStep("pays", 3, 0.75, 0.75, 3 * minute, about(3.8 * minute), 1, 0),
        FunnelStep("c", 2, 2 / 3, 0.5, 4.5 * minute, about(7.3 * minute), 1, 0),
    ]
    assert (found.conversion_rate, found.median_conversion_time_ms) == (0.5, 7.0 * minute)
    assert (found.breakdown, found.previous) == ([], None)


async def test_who_has_time_left_is_in_progress(database: Database, reader_dsn: str) -> None:
    await insert(await database.connect(), story("a0") + story("a0 b1", user=UUID(int=2)))
    for at, wanted in ((minutes(5), [(2, 1), (1, 1), (0, 0)]), (minutes(5.001), [(2, 0), (1, 0), (0, 0)])):
        now = MIDNIGHT + at
        async with AnalyticsReader.from_url(reader_dsn, clock=partial(min, now, now)) as reader:
            assert await ask(reader, ["a", "b", "c"], conversion_window=minutes(5)) == wanted
            assert await ask(reader, ["a", "b"], conversion_window=minutes(5)) == [(2, wanted[0][1]), (1, 0)]


async def test_a_user_in_two_sessions_does_not_convert_by_session(database: Database, reader: AnalyticsReader) -> None:
    connection = await database.connect()
    await insert(connection, story("a0 b31 c32"))  # 31 minutes of silence
    await insert(connection, story("a0", user=UUID(int=2), session="s1") + story("b1", user=UUID(int=2), session="s2"))
    await insert(connection, story("a0 b50", user=UUID(int=3), session="s3"))  # never cut by silence
    assert await counts(reader, ["a", "b"]) == [3, 3]
    assert await counts(reader, ["a", "b"], by="session") == [3, 1]
    assert await counts(reader, ["b", "c"], by="session") == [3, 1]


async def test_events_of_nobody_are_no_steps_of_users(database: Database, reader: AnalyticsReader) -> None:
    events = [happened(MIDNIGHT + minutes(n), kind, None) for n, kind in enumerate("ab")]
    events = [event._replace(context={"visitor": "v1", "environment": "staging"}) for event in events]
    await insert(await database.connect(), events)
    assert await counts(reader, ["a", "b"]) == [0, 0]
    assert await counts(reader, ["a", "b"], by="session") == [1, 1]
    assert await counts(reader, ["a", "b"], by="session", environment="staging") == [1, 1]
    assert await counts(reader, ["a", "b"], by="session", environment="production") == [0, 0]
    assert await counts(reader, ["a", "b"], by="session", service="billing") == [0, 0]


async def test_a_user_who_is_erased_is_gone(database: Database, reader: AnalyticsReader) -> None:
    connection = await database.connect()
    await insert(connection, story("a0 b1") + story("a0 b1", user=UUID(int=2)))
    assert await counts(reader, ["a", "b"]) == [2, 2]
    await connection.execute("DELETE FROM analytics_events WHERE user_id = $1", ME)
    assert await counts(reader, ["a", "b"]) == [1, 1]


@pytest.mark.parametrize("database", ["timescaledb"], indirect=True)
async def test_columns_answer_as_rows_do(database: Database, reader: AnalyticsReader) -> None:
    connection = await database.connect()
    random = Random(1)
    events = [one for n in range(1, 200) for one in random_history(random, UUID(int=n), minutes(17))]
    await insert(connection, events)
    asked: list[dict[str, Any]] = [{}, {"order": "strict"}, {"by": "session"}, {"breakdown": "data.plan"}]
    options: dict[str, Any] = {"start": MIDNIGHT - timedelta(days=1), "end": MIDNIGHT + timedelta(days=1)}
    before = [await reader.query_funnel(STEPS[:4], **options, **one) for one in asked]
    assert before[0].steps[3].count > 0
    chunks = await connection.fetch("SELECT compress_chunk(c) FROM show_chunks('analytics_events') AS c")
    assert chunks
    assert [await reader.query_funnel(STEPS[:4], **options, **one) for one in asked] == before
