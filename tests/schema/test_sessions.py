"""Sessions equal an independent computation, however they are filled, and follow every change of the events."""

from __future__ import annotations

from datetime import timedelta
from random import Random
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from asgi_analytics.admin.refresh import refresh
from tests.kit.databases import Database
from tests.kit.sessions import sessions
from tests.kit.visits import HALF_HOUR, MICROSECOND, random_visits
from tests.reading.happened import Event, insert
from tests.schema.happenings import DAY, HOUR, compress, in_order, keep_fresh, lose, midnight, now, rows

COLUMNS = (
    "id user_id visitor started_at ended_at duration_ms event_count page_views device_type browser os country city "
    "referrer channel utm_source utm_medium utm_campaign landing_page exit_page is_bounce"
)
DELETE = "DELETE FROM analytics_events WHERE timestamp = $2 AND id = $1"


def a_visit(kind: str, at: Any, number: int = 1, **envelope: Any) -> Event:
    """Return one event of a visitor."""
    event = Event(
        id=UUID(int=number, version=4),
        timestamp=at,
        event_type=kind,
        service="shop",
        user_id=None,
        session_id=None,
        data={"page": "/", "visible_ms": 20_000},
        context={"visitor": "ann"},
    )
    return event._replace(**envelope)


async def assert_sessions(connection: asyncpg.Connection, events: list[Event]) -> None:
    """Compare the view with the independent computation."""
    wanted = in_order([session.row() for session in sessions(events)])
    assert await rows(connection, "analytics_sessions") == wanted


async def test_the_view_has_the_promised_columns(database: Database) -> None:
    connection = await database.connect()
    found = await connection.fetch(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = 'analytics_sessions'::regclass AND attnum > 0 ORDER BY attnum"
    )
    assert " ".join(name for name, _ in found) == COLUMNS
    kinds: dict[str, str] = dict(found)
    assert kinds.pop("user_id") == "uuid"
    assert kinds.pop("is_bounce") == "boolean"
    assert kinds.pop("duration_ms") == "double precision"
    assert {kinds.pop(name) for name in ("started_at", "ended_at")} == {"timestamp with time zone"}
    assert {kinds.pop(name) for name in ("event_count", "page_views")} == {"bigint"}
    assert set(kinds.values()) == {"text"}


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 12))])
async def test_sessions_equal_an_independent_computation(database: Database, seed: int) -> None:
    random = Random(seed)
    connection = await database.connect()
    events = random_visits(random, 500, midnight(12), now())
    await insert(connection, events)
    await assert_sessions(connection, events)  # all of it live

    await refresh(connection)
    await assert_sessions(connection, events)  # all but the last hour filled

    for _ in range(3):
        new = random_visits(random, 30, now() - 2 * HOUR, now())
        await insert(connection, new)
        events += new
        if database.flavour == "postgresql":  # the others hide what is late until it is filled
            await refresh(connection)
        else:
            await keep_fresh(connection, database)
        await assert_sessions(connection, events)

    late = random_visits(random, 60, midnight(12), now())
    await insert(connection, late)
    events += late
    await compress(connection, database)
    await keep_fresh(connection, database)
    await assert_sessions(connection, events)

    for event in random.sample(events, 80):
        await connection.execute(DELETE, event.id, event.timestamp)
        events.remove(event)
    erased = random.choice([event.user_id for event in events if event.user_id])
    await connection.execute("DELETE FROM analytics_events WHERE user_id = $1", erased)
    events = [event for event in events if event.user_id != erased]
    await refresh(connection)
    await assert_sessions(connection, events)
    assert await refresh(connection) == []
    filled = await rows(connection, "analytics_sessions_filled")
    await connection.execute("SELECT analytics_fill_sessions($1, $2)", midnight(12), midnight(0))
    assert await rows(connection, "analytics_sessions_filled") == filled
    await connection.execute("SELECT analytics_fill_sessions('-infinity', 'infinity')")
    assert await rows(connection, "analytics_sessions_filled") == filled, "a part was in no row, or in two"


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 8))])
async def test_what_happened_a_moment_ago_is_in_the_sessions(database: Database, seed: int) -> None:
    """The end of what is filled lies between the events: some sessions reach over it."""
    random = Random(seed)
    connection = await database.connect()
    events = random_visits(random, 150, now() - 5 * HOUR, now() - HOUR, people=5)
    await insert(connection, events)
    await refresh(connection)
    for _ in range(6):
        new = random_visits(random, 10, now() - HOUR, now(), people=5)
        await insert(connection, new)
        events += new
        await assert_sessions(connection, events)
    for event in random.sample(new, 5):
        await connection.execute(DELETE, event.id, event.timestamp)
        events.remove(event)
        await assert_sessions(connection, events)


@pytest.mark.parametrize("is_filled", [False, True])
async def test_silence_of_exactly_thirty_minutes_does_not_cut(database: Database, is_filled: bool) -> None:
    connection = await database.connect()
    for number, (pause, count) in enumerate(((HALF_HOUR, 1), (HALF_HOUR + MICROSECOND, 2), (timedelta(hours=9), 2))):
        for edge, start in enumerate((midnight(3) - timedelta(minutes=10), midnight(4) + HOUR, midnight(5) + 7 * HOUR)):
            context = {"visitor": f"v{number}-{edge}"}
            events = [
                a_visit("page_view", start, 10 * number + edge, context=context),
                a_visit("page_view", start + pause, 10 * number + edge + 500, context=context),
            ]
            await insert(connection, events)
            if is_filled:
                await refresh(connection)
            found = await connection.fetch("SELECT * FROM analytics_sessions WHERE visitor = $1", context["visitor"])
            assert len(found) == count, (pause, start)
            if count == 1:
                assert found[0]["duration_ms"] == 1_800_000


async def test_a_given_session_pauses_for_days(database: Database) -> None:
    connection = await database.connect()
    events = [a_visit("page_view", midnight(n) + n * HOUR, n, session_id="mine") for n in (9, 7, 6, 2)]
    for event in events:
        await insert(connection, [event])
        await refresh(connection)
    [found] = await connection.fetch("SELECT id, event_count, started_at, ended_at FROM analytics_sessions")
    assert tuple(found) == ("mine", 4, events[0].timestamp, events[-1].timestamp)
    await connection.execute(DELETE, events[1].id, events[1].timestamp)
    await connection.execute(DELETE, events[0].id, events[0].timestamp)
    await refresh(connection)
    [found] = await connection.fetch("SELECT id, event_count, started_at, ended_at FROM analytics_sessions")
    assert tuple(found) == ("mine", 2, events[2].timestamp, events[-1].timestamp)


async def test_a_login_does_not_cut_a_visit(database: Database) -> None:
    connection = await database.connect()
    at = midnight(2) + HOUR
    await insert(
        connection,
        [
            a_visit("page_view", at, 1),
            a_visit("user_logged_in", at + HALF_HOUR, 2, user_id=UUID(int=7)),
            a_visit("page_view", at + 2 * HALF_HOUR, 3, user_id=UUID(int=8)),
            a_visit("page_view", at + 3 * HALF_HOUR, 4),
        ],
    )
    for _ in range(2):
        [found] = await connection.fetch("SELECT user_id, visitor, event_count, page_views FROM analytics_sessions")
        assert tuple(found) == (UUID(int=8), "ann", 4, 3)
        await refresh(connection)


async def test_captured_events_neither_start_nor_extend_a_session(database: Database) -> None:
    connection = await database.connect()
    at = midnight(2) + HOUR
    kinds = ("api_request", "database_query", "application_error")
    await insert(connection, [a_visit(kind, at, 10 + n) for n, kind in enumerate(kinds)])
    assert await connection.fetch("SELECT * FROM analytics_sessions") == []
    await insert(
        connection,
        [
            a_visit("page_view", at + timedelta(minutes=20), 2),
            a_visit("api_request", at + timedelta(minutes=45), 3),
            a_visit("page_view", at + timedelta(minutes=60), 4),
        ],
    )
    for _ in range(2):
        found = await connection.fetch("SELECT event_count, duration_ms FROM analytics_sessions")
        assert [tuple(row) for row in found] == [(1, 0), (1, 0)]
        await refresh(connection)


async def test_visible_time_extends_a_session_and_is_no_event(database: Database) -> None:
    connection = await database.connect()
    at = midnight(2) + HOUR
    first = [a_visit("page_engaged", at - timedelta(minutes=5), 1), a_visit("page_view", at, 2)]
    await insert(connection, first)
    ask = "SELECT started_at, ended_at, event_count, is_bounce FROM analytics_sessions"
    # What was looked at before the session began is none of its time.
    assert [tuple(row) for row in await connection.fetch(ask)] == [(at, at, 1, True)]
    await refresh(connection)
    assert [tuple(row) for row in await connection.fetch(ask)] == [(at, at, 1, True)]

    await insert(connection, [a_visit("page_engaged", at + timedelta(minutes=25), 3)])
    await refresh(connection)
    found = [tuple(row) for row in await connection.fetch(ask)]
    assert found == [(at, at + timedelta(minutes=25), 1, False)]
    await insert(connection, [a_visit("page_view", at + timedelta(minutes=50), 4)])
    await refresh(connection)
    found = [tuple(row) for row in await connection.fetch(ask)]
    assert found == [(at, at + timedelta(minutes=50), 2, False)]


async def test_an_earlier_event_begins_a_session_with_visible_time_that_waited(database: Database) -> None:
    """A chain of visible time that nothing had begun becomes a session by one event that comes late."""
    connection = await database.connect()
    at = midnight(2) + HOUR
    chain = [a_visit("page_engaged", at + n * timedelta(minutes=25), n) for n in range(1, 6)]
    await insert(connection, chain)
    await refresh(connection)
    assert await connection.fetch("SELECT * FROM analytics_sessions") == []
    await insert(connection, [a_visit("page_view", at, 9)])
    await refresh(connection)
    [found] = await connection.fetch("SELECT started_at, ended_at, event_count FROM analytics_sessions")
    assert tuple(found) == (at, chain[-1].timestamp, 1)


async def test_keys_and_ids_of_any_length_are_taken(database: Database) -> None:
    connection = await database.connect()
    at = midnight(2) + HOUR
    keys = ["", "x" * 9000, "'\"\\{}", "ä" * 5000]
    await insert(connection, [a_visit("page_view", at, n, session_id=key) for n, key in enumerate(keys)])
    await insert(connection, [a_visit("page_view", at, n + 9, context={"visitor": key}) for n, key in enumerate(keys)])
    await refresh(connection)
    found = await connection.fetch("SELECT id, visitor FROM analytics_sessions")
    assert {row["id"] for row in found} >= set(keys)
    assert {row["visitor"] for row in found} == {"ann", *keys}


@pytest.mark.parametrize("context", ["null", "[]", '"text"', "3", '{"visitor": null}', '{"device": 7, "geo": [1]}'])
async def test_no_context_that_is_written_by_hand_stops_sessions(database: Database, context: str) -> None:
    connection = await database.connect()
    await connection.execute(
        "INSERT INTO analytics_events (id, timestamp, event_type, service, user_id, data, context)"
        " SELECT md5(kind)::uuid, $1, kind, 'shop', $2, data::jsonb, $3::jsonb FROM unnest(ARRAY["
        "'page_view', 'page_engaged', 'order_placed']) AS kind, unnest(ARRAY['[]', '3', '{\"page\": {}}']) AS data"
        " ON CONFLICT DO NOTHING",
        midnight(3), UUID(int=4), context,
    )  # fmt: skip
    await refresh(connection)
    [found] = await connection.fetch("SELECT user_id, event_count FROM analytics_sessions")
    assert tuple(found) == (UUID(int=4), 2)


async def test_sessions_outlive_their_events(database: Database) -> None:
    random = Random(4)
    connection = await database.connect()
    events = random_visits(random, 300, midnight(40), now())
    await insert(connection, events)
    await refresh(connection)
    await lose(connection, database, midnight(20))
    await keep_fresh(connection, database)
    gone = next(event.timestamp for event in events if event.timestamp < midnight(25))
    await insert(connection, [a_visit("page_view", gone)])  # its day is no longer whole
    await keep_fresh(connection, database)
    await refresh(connection)
    await refresh(connection, midnight(40), now())
    await assert_sessions(connection, events)
    late = [a_visit("page_view", midnight(20) + n * HALF_HOUR, 99 + n) for n in range(3)]
    await insert(connection, late)
    await refresh(connection)
    await assert_sessions(connection, events + late)


@pytest.mark.parametrize("database", ["timescaledb"], indirect=True)
async def test_sessions_that_a_crash_left_behind_are_filled_by_the_next(database: Database) -> None:
    random = Random(6)
    connection = await database.connect()
    events = random_visits(random, 200, midnight(6), now())
    await insert(connection, events)
    since, until = midnight(6), midnight(0)
    # As a process leaves it that dies after the refresh of the parts, and before that of the sessions.
    await connection.execute(
        "INSERT INTO analytics_session_windows (since, until, noted_at) VALUES ($1, $2, $3)", since, until, now() - DAY
    )
    await connection.execute("CALL analytics_fill_aggregate('analytics_session_parts_filled', $1, $2)", since, until)
    assert await connection.fetchval("SELECT count(*) FROM analytics_sessions_filled") == 0
    await connection.fetch("SELECT analytics_collect()")
    assert await connection.fetchval("SELECT count(*) FROM analytics_sessions_filled") > 0
    assert await connection.fetchval("SELECT count(*) FROM analytics_session_windows") == 0
    await keep_fresh(connection, database)
    await assert_sessions(connection, events)
