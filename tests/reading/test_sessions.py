"""Questions about people: each equals an independent computation over random visits, live and filled, in every zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest

from asgi_analytics.errors import InvalidQuery
from asgi_analytics.reading import AnalyticsReader
from tests.kit.databases import Database
from tests.kit.sessions import Session, sessions
from tests.kit.states import keep_fresh, lose, refresh
from tests.kit.visits import random_visits
from tests.reading.expected import Asked
from tests.reading.expected_sessions import get_session, newest_first
from tests.reading.happened import Event, insert
from tests.reading.test_questions import RAW, ZONES, assert_same, compare, plain, ranges
from tests.schema.happenings import midnight

DAY = timedelta(days=1)
ASKED: list[tuple[str, list[dict[str, Any]]]] = [
    ("query_sessions", [
        {}, {"limit": 3}, {"user_id": UUID(int=4)}, {"visitor": "v3"}, {"landing_page": "/pricing"},
        {"exit_page": "/", "channel": "direct"}, {"referrer": "example.com"}, {"utm_medium": "email"},
        {"device_type": "bot"}, {"country": "DE", "is_bounce": True}, {"is_bounce": False},
    ]),
    ("get_session_summary", [{}]),
    ("get_session_series", [{}, {"bucket": "hour"}, {"bucket": "week"}, {"bucket": "month"}]),
    ("get_session_breakdown", [
        {}, {"by": "exit_page", "limit": 1}, {"by": "referrer"}, {"by": "channel"}, {"by": "utm_source"},
        {"by": "utm_medium", "limit": 1}, {"by": "utm_campaign"}, {"by": "browser"}, {"by": "os"},
        {"by": "device_type", "limit": 2}, {"by": "country"},
    ]),
    ("list_pages", [{}, {"limit": 2}]),
    ("get_user_activity", [{"user_id": UUID(int=number)} for number in (1, 4, 5, 99)]),
    ("get_feature_usage", [{}, {"feature_name": "order_placed"}]),
    ("top_features", [{}, {"limit": 1}]),
]  # fmt: skip


async def compare_all(reader: AnalyticsReader, events: list[Event], random: Random) -> None:
    for name, variants in ASKED:
        for variant in variants:
            key = random.choice(ZONES)
            zone = ZoneInfo(key)
            service = random.choice([None, None, "shop"])
            environment = random.choice([None, None, "staging"]) if name in RAW else None
            filters = {"timezone": key, "service": service, "environment": environment}
            now = datetime.now(UTC)
            for arguments, start, end in random.sample(list(ranges(random, now, zone)), 2):
                asked = Asked(start, end, zone, now, service, environment)
                await compare(reader, name, events, variant | filters | arguments, asked)


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 6))])
async def test_every_question_equals_an_independent_computation(
    database: Database, reader: AnalyticsReader, seed: int
) -> None:
    random = Random(seed)
    connection = await database.connect()
    now = datetime.now(UTC)
    first = random_visits(random, 700, now - 40 * DAY, now - timedelta(seconds=1))
    await insert(connection, first)
    await compare_all(reader, first, random)  # all of it live

    await refresh(connection)
    await compare_all(reader, first, random)  # all but the last hour filled

    late = random_visits(random, 150, now - 40 * DAY, now)
    await insert(connection, late)
    await keep_fresh(connection, database)
    await compare_all(reader, first + late, random)


async def some_sessions(database: Database, number: int = 150) -> tuple[list[Event], list[Session]]:
    now = datetime.now(UTC)
    events = random_visits(Random(7), number, now - 10 * DAY, now)
    connection = await database.connect()
    await insert(connection, events)
    await refresh(connection)
    return events, newest_first(sessions(events))


async def test_a_session_is_found_with_what_happened_in_it(database: Database, reader: AnalyticsReader) -> None:
    events, found = await some_sessions(database)
    asked = Asked(midnight(30), midnight(-1), UTC, datetime.now(UTC))
    for session in found:
        wanted = get_session(events, asked, session.id)
        assert_same(plain(await reader.get_session(session.id)), wanted, session.id)
    with pytest.raises(InvalidQuery, match=r"^id: no session has it: use one that query_sessions\(\) returns"):
        await reader.get_session("unknown")


@pytest.mark.parametrize("limit", [1, 7])
async def test_pages_are_all_sessions_once(database: Database, reader: AnalyticsReader, limit: int) -> None:
    _, found = await some_sessions(database, 60)
    seen: list[str] = []
    cursor = None
    while True:
        page = await reader.query_sessions(limit=limit, cursor=cursor)
        assert page.total == len(found)
        assert page.has_more is (page.next is not None)
        seen += [session.id for session in page.sessions]
        cursor = page.next
        if cursor is None:
            break
    assert seen == [session.id for session in found]


async def test_sessions_are_still_known_when_their_events_are_gone(database: Database, reader: AnalyticsReader) -> None:
    events, found = await some_sessions(database)
    connection = await database.connect()
    await lose(connection, database, midnight(4))
    await keep_fresh(connection, database)
    for name in ("get_session_summary", "get_session_series", "get_session_breakdown", "query_sessions"):
        asked = Asked(midnight(30), midnight(-1), UTC, datetime.now(UTC))
        await compare(reader, name, events, {}, asked)
    oldest = await reader.get_session(found[-1].id)
    assert oldest.events is None
    assert oldest.event_count == len(found[-1].events)
    with pytest.raises(InvalidQuery, match="needs the raw rows"):
        await reader.get_session_series(timezone="Asia/Kathmandu")


async def test_a_value_that_is_called_other_is_one_of_the_others(database: Database, reader: AnalyticsReader) -> None:
    now = datetime.now(UTC)
    events = [
        event._replace(session_id=f"{channel}{n}", event_type="page_view", data={"page": "/", "channel": channel})
        for n, channel in enumerate(["other", "other", "other", "email", "email", "direct", None])
        for event in random_visits(Random(n), 1, now - DAY, now)[:1]
    ]
    await insert(await database.connect(), events)
    rows = [(row.value, row.sessions) for row in await reader.get_session_breakdown(by="channel")]
    assert rows == [("email", 2), ("direct", 1), ("other", 3), (None, 1)]
    rows = [(row.value, row.sessions) for row in await reader.get_session_breakdown(by="channel", limit=1)]
    assert rows == [("email", 2), ("other", 4), (None, 1)]


async def test_nothing_is_known_of_an_empty_database(database: Database, reader: AnalyticsReader) -> None:
    assert plain(await reader.get_session_summary()) == (0, 0, 0, None, None, None, None)
    assert await reader.get_session_breakdown() == []
    assert (await reader.query_sessions()).total == 0
    series = await reader.get_session_series()
    assert [row.active_sessions for row in series] == [0] * 31


async def test_a_late_event_of_a_user_is_told_before_its_day_is_computed_again(
    database: Database, reader: AnalyticsReader
) -> None:
    """The days of a user are looked up in an aggregate, which does not know yet of what came late."""
    connection = await database.connect()
    day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=5)
    user = UUID(int=7)
    insert_one = (
        "INSERT INTO analytics_events (id, timestamp, event_type, service, user_id, data, context)"
        " VALUES ($3, $1, 'plan_viewed', 'shop', $2, '{}', '{}')"
    )
    await connection.execute(insert_one, day + timedelta(hours=1), UUID(int=8), uuid4())
    await refresh(connection)
    await connection.execute(insert_one, day + timedelta(hours=2), user, uuid4())
    [told] = await reader.get_user_activity(user)
    assert (told.date, told.event_count) == (day, 1)
