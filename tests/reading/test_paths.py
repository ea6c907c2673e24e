"""Paths within sessions equal those that an independent computation finds, event by event."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from asgi_analytics.errors import InvalidQuery
from asgi_analytics.reading import AnalyticsReader
from asgi_analytics.reading.paths import Paths
from tests.kit.databases import Database
from tests.kit.states import keep_fresh, lose, refresh
from tests.kit.visits import random_visits
from tests.reading.expected import Asked
from tests.reading.happened import Event, insert
from tests.reading.test_questions import compare, ranges
from tests.schema.happenings import midnight

DAY, MINUTE, MICROSECOND = timedelta(days=1), timedelta(minutes=1), timedelta(microseconds=1)
ZONES = ("UTC", "Europe/Berlin", "Asia/Kathmandu")
ASKED: list[dict[str, Any]] = [
    {}, {"depth": 2}, {"depth": 20}, {"limit": 1}, {"limit": 2, "depth": 3},
    {"start_event": "/pricing"}, {"start_event": "order_placed", "depth": 3},
    {"end_event": "order_placed"}, {"end_event": "/", "depth": 2, "limit": 1},
    {"start_event": "/", "end_event": "order_placed"}, {"start_event": "/docs", "end_event": "/docs", "depth": 3},
    {"start_event": "page_view", "end_event": "search_performed"}, {"start_event": "nowhere"},
]  # fmt: skip


async def compare_some(reader: AnalyticsReader, events: list[Event], random: Random) -> None:
    for variant in random.sample(ASKED, 6):
        key = random.choice(ZONES)
        zone = ZoneInfo(key)
        service = random.choice([None, None, "shop"])
        environment = random.choice([None, None, "staging"])
        filters = {"timezone": key, "service": service, "environment": environment}
        now = datetime.now(UTC)
        arguments, start, end = random.choice(list(ranges(random, now, zone))[1:])
        asked = Asked(start, end, zone, now, service, environment)
        await compare(reader, "query_paths", events, variant | filters | arguments, asked)


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 6))])
async def test_paths_equal_an_independent_computation(database: Database, reader: AnalyticsReader, seed: int) -> None:
    random = Random(seed)
    connection = await database.connect()
    now = datetime.now(UTC)
    first = random_visits(random, 900, now - 40 * DAY, now - timedelta(seconds=1))
    await insert(connection, first)
    await compare_some(reader, first, random)  # all of it live

    await refresh(connection)
    await compare_some(reader, first, random)  # all but the last hour filled

    late = random_visits(random, 200, now - 40 * DAY, now)
    await insert(connection, late)
    await keep_fresh(connection, database)
    await compare_some(reader, first + late, random)

    await connection.execute("DELETE FROM analytics_events WHERE user_id = $1", UUID(int=3))
    await keep_fresh(connection, database)
    await compare_some(reader, [event for event in first + late if event.user_id != UUID(int=3)], random)


YESTERDAY = midnight(1)


def step(
    name: str, at: datetime, visitor: str | None = "v1", session_id: str | None = None, number: int = 0, **more: Any
) -> Event:
    """Return a page view, or the event that is named."""
    return Event(
        id=UUID(int=number or Random(f"{name}{at}{visitor}{session_id}").getrandbits(128), version=4),
        timestamp=at,
        event_type="page_view" if name.startswith("/") else name,
        service="shop",
        user_id=None,
        session_id=session_id,
        data={"page": name} if name.startswith("/") else {},
        context={"visitor": visitor} if visitor else {},
        **more,
    )


def found(answer: Paths) -> tuple[Counter[str], Counter[str]]:
    return (
        Counter({node.id: node.count for node in answer.nodes}),
        Counter({f"{link.source} {link.target}": link.count for link in answer.links}),
    )


async def test_a_session_over_midnight_belongs_to_the_day_it_began_on(
    database: Database, reader: AnalyticsReader
) -> None:
    before = YESTERDAY - 10 * MINUTE
    events = [step(name, before + n * 5 * MINUTE) for n, name in enumerate(["/a", "/b", "/c", "/d"])]
    events.append(step("/e", YESTERDAY + 2 * timedelta(hours=1)))
    connection = await database.connect()
    await insert(connection, events)
    for _ in range(2):
        day_before = (YESTERDAY - DAY).date()
        nodes, links = found(await reader.query_paths(start=day_before, end=day_before))
        assert nodes == Counter(["1:/a", "2:/b", "3:/c", "4:/d"])
        assert links == Counter(["1:/a 2:/b", "2:/b 3:/c", "3:/c 4:/d"])
        nodes, links = found(await reader.query_paths(start=YESTERDAY.date(), end=YESTERDAY.date()))
        assert (nodes, links) == (Counter(["1:/e"]), Counter())
        # A range may end within a session, which is followed to its end.
        nodes, _ = found(await reader.query_paths(start=before, end=before + MICROSECOND))
        assert nodes == Counter(["1:/a", "2:/b", "3:/c", "4:/d"])
        await refresh(connection)


async def test_silence_of_more_than_30_minutes_ends_a_path_but_not_of_a_given_session(
    database: Database, reader: AnalyticsReader
) -> None:
    half_hour = 30 * MINUTE
    events = [
        step("/a", YESTERDAY), step("/b", YESTERDAY + half_hour), step("/c", YESTERDAY + 2 * half_hour + MICROSECOND),
        step("/a", YESTERDAY, session_id="s1"), step("/c", YESTERDAY + 9 * half_hour, session_id="s1"),
        # What is heard of a page keeps its session going.
        step("/x", YESTERDAY, "v2"), step("page_engaged", YESTERDAY + 20 * MINUTE, "v2"),
        step("/y", YESTERDAY + 45 * MINUTE, "v2"),
    ]  # fmt: skip
    await insert(await database.connect(), events)
    nodes, links = found(await reader.query_paths())
    assert links == Counter(["1:/a 2:/b", "1:/a 2:/c", "1:/x 2:/y"])
    assert nodes == Counter(["1:/a", "1:/a", "2:/b", "2:/c", "1:/c", "1:/x", "2:/y"])


async def test_one_person_in_two_sessions_at_once_takes_two_paths(database: Database, reader: AnalyticsReader) -> None:
    events = [
        step(name, YESTERDAY + n * MINUTE, session_id=session, number=1 + n)
        for n, (name, session) in enumerate([("/a", "s1"), ("/b", "s2"), ("/c", "s1"), ("/d", "s2"), ("/e", None)])
    ]
    await insert(await database.connect(), events)
    _, links = found(await reader.query_paths())
    assert links == Counter(["1:/a 2:/c", "1:/b 2:/d"])


async def test_steps_at_one_instant_are_in_the_order_of_their_ids(database: Database, reader: AnalyticsReader) -> None:
    events = [step(name, YESTERDAY, number=number) for name, number in (("/c", 3), ("/a", 1), ("/b", 2), ("/b", 4))]
    await insert(await database.connect(), events)
    answer = await reader.query_paths()
    assert [node.id for node in answer.nodes] == ["1:/a", "2:/b", "3:/c", "4:/b"]
    assert [(link.source, link.target) for link in answer.links] == [
        ("1:/a", "2:/b"), ("2:/b", "3:/c"), ("3:/c", "4:/b"),
    ]  # fmt: skip


async def test_positions_are_counted_from_the_start_or_to_the_end(database: Database, reader: AnalyticsReader) -> None:
    names = ["/x", "/a", "signed_up", "/a", "/b", "paid", "/a", "paid"]
    await insert(
        await database.connect(), [step(name, YESTERDAY + n * MINUTE, number=1 + n) for n, name in enumerate(names)]
    )

    async def nodes(**arguments: Any) -> list[str]:
        return sorted(node.id for node in (await reader.query_paths(**arguments)).nodes)

    assert await nodes(depth=2) == ["1:/x", "2:/a"]
    assert await nodes(start_event="/a", depth=3) == ["1:/a", "2:signed_up", "3:/a"]
    assert await nodes(end_event="paid", depth=3) == ["1:/a", "2:/b", "3:paid"]
    assert await nodes(end_event="signed_up", depth=5) == ["3:/x", "4:/a", "5:signed_up"]
    assert await nodes(start_event="signed_up", end_event="paid", depth=6) == ["3:signed_up", "4:/a", "5:/b", "6:paid"]
    assert await nodes(start_event="paid", end_event="paid") == ["3:paid", "4:/a", "5:paid"]
    assert await nodes(start_event="/b", end_event="signed_up") == []


async def test_names_beyond_the_limit_are_other_and_the_counts_add_up(
    database: Database, reader: AnalyticsReader
) -> None:
    seconds = [("/b", 3), ("/c", 2), ("/d", 1), ("other", 4), (None, 1)]
    events = []
    for name, sessions in seconds:
        for n in range(sessions):
            visitor = f"{name}{n}"
            events.append(step("/a", YESTERDAY, visitor))
            if name is not None:
                events.append(step(name, YESTERDAY + MINUTE, visitor))
    await insert(await database.connect(), events)
    nodes, links = found(await reader.query_paths(limit=2))
    # What an application calls so is among the others.
    assert nodes == Counter({"1:/a": 11, "2:/b": 3, "2:/c": 2, "2:other": 5})
    assert links == Counter({"1:/a 2:/b": 3, "1:/a 2:/c": 2, "1:/a 2:other": 5})


async def test_an_answer_that_is_too_long_is_refused(
    database: Database, reader: AnalyticsReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [step(name, YESTERDAY + n * MINUTE) for n, name in enumerate(["/a", "/b", "/c"])]
    await insert(await database.connect(), events)
    monkeypatch.setattr("asgi_analytics.reading.paths.MOST_ROWS", 5)
    assert len((await reader.query_paths()).nodes) == 3
    monkeypatch.setattr("asgi_analytics.reading.paths.MOST_ROWS", 4)
    with pytest.raises(InvalidQuery, match=r"^limit: the answer has more than 4 nodes and links: lower it"):
        await reader.query_paths()


async def test_the_range_is_of_a_week_and_needs_the_raw_rows(database: Database, reader: AnalyticsReader) -> None:
    connection = await database.connect()
    events = [step(f"/{n}", midnight(n) + MINUTE, f"v{n}") for n in range(2, 12)]
    await insert(connection, events)
    nodes, _ = found(await reader.query_paths())
    assert nodes == Counter(f"1:/{n}" for n in range(2, 8))
    await refresh(connection)
    await lose(connection, database, midnight(5))
    await refresh(connection)
    with pytest.raises(InvalidQuery, match=r"^start: this question needs the raw rows, which are kept from"):
        await reader.query_paths()
    nodes, _ = found(await reader.query_paths(start=midnight(5).date()))
    assert nodes == Counter(f"1:/{n}" for n in range(2, 6))
