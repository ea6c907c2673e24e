"""SQLite's tables and views: they say the same as an independent computation, and as plain PostgreSQL does."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from asgi_analytics.admin.refresh import refresh
from asgi_analytics.database import blocks
from asgi_analytics.database.sqlite.times import to_text
from asgi_analytics.database.sqlite.upkeep import Filled, SqliteUpkeep
from asgi_analytics.database.sqlite.url import read_sqlite_url
from tests.kit.databases import Database
from tests.kit.sessions import sessions
from tests.kit.sqlite import SqliteDatabase, file
from tests.kit.visits import random_visits
from tests.schema.expected import assert_same
from tests.schema.happenings import DAY, HOUR, all_rows, in_order, insert, midnight, now, some_events
from tests.schema.sqlite_views import views_of, wanted_of
from tests.schema.test_aggregates import COLUMNS

__all__ = ["file"]

OF_THE_CONTRACT = """
analytics_events: id event_type event_name timestamp session_id user_id properties context page_url referrer
metrics: id name metric_type value timestamp tags unit
metric_aggregates: id name period_start period_type count sum min max avg p50 p90 p99 tags
user_activity: id user_id date session_count event_count total_duration_ms first_seen_at last_seen_at \
events_breakdown
feature_usage: id feature_name date usage_count unique_users avg_duration_ms success_rate
dashboard_metrics: id widget_id metric_key value previous_value change_percent updated_at
analytics_sessions: id user_id started_at ended_at duration_ms event_count device_type browser os country city \
referrer landing_page exit_page
funnels: id name description steps created_at
funnel_conversions: id funnel_id user_id session_id started_at completed_at current_step completed step_timestamps
"""
SUBJECTS = blocks.load("asgi_analytics.admin.subjects", "sqlite.sql")


async def test_the_tables_of_the_contract_are_there(file: SqliteDatabase) -> None:
    for line in OF_THE_CONTRACT.strip().splitlines():
        table, columns = line.split(": ")
        found = {row[1] for row in file.execute(f"PRAGMA table_xinfo({table})")}
        assert set(columns.split()) <= found, table


async def test_the_views_have_the_promised_columns(file: SqliteDatabase) -> None:
    for line in COLUMNS.strip().splitlines():
        view, columns = line.split(": ")
        assert ", ".join(row[1] for row in file.execute(f"PRAGMA table_info({view})")) == columns


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 6))])
async def test_views_equal_an_independent_computation(file: SqliteDatabase, seed: int) -> None:
    random = Random(seed)
    first = some_events(random, 700, now() - 32 * DAY, now() - timedelta(minutes=1))
    await file.insert(first)
    assert_same(views_of(file), wanted_of(first))  # all of it live

    assert await file.refresh()
    assert_same(views_of(file), wanted_of(first))  # all but the last hour or two filled
    [(last,)] = file.execute("SELECT min(filled_until) FROM analytics_fills")
    assert datetime.fromisoformat(last) > now() - DAY - HOUR

    late = some_events(random, 200, now() - 32 * DAY, now())
    await file.insert(late)
    await file.refresh()
    assert_same(views_of(file), wanted_of(first + late))
    assert await file.refresh() == ()

    gone = random.sample(first, 100)
    for event in gone:
        file.execute("DELETE FROM analytics_events WHERE id = ?", str(event.id))
    moved = first[0] if first[0] not in gone else next(event for event in first if event not in gone)
    file.execute("UPDATE analytics_events SET user_id = NULL WHERE id = ?", str(moved.id))
    left = [event for event in first + late if event not in gone and event != moved]
    await file.refresh()
    assert_same(views_of(file), wanted_of([*left, moved._replace(user_id=None)]))


async def test_who_is_erased_while_the_upkeep_fills_does_not_come_back(file: SqliteDatabase) -> None:
    """It reads what happened on a day once, and fills twenty tables with it, between which others write."""
    events = some_events(Random(3), 300, midnight(2), midnight(1))
    user = next(event.user_id for event in events if event.user_id)
    await file.insert(events)
    upkeep = SqliteUpkeep(read_sqlite_url(file.url))
    steps = upkeep.steps()
    assert next(step.view for step in steps if isinstance(step, Filled)) < "analytics_consumer_days"
    file.execute("DELETE FROM analytics_events WHERE user_id = ?", str(user))
    assert list(steps)
    upkeep.close()
    left = [event for event in events if event.user_id != user]
    tables = [name for (name,) in file.execute("SELECT view_name || '_filled' FROM analytics_fills")]
    assert str(user) not in repr([file.execute(f"SELECT * FROM {table}") for table in tables])
    await file.refresh()
    assert_same(views_of(file), wanted_of(left))


async def test_the_events_of_a_user_are_found_by_hour_and_user(file: SqliteDatabase) -> None:
    random = Random(5)
    events = some_events(random, 400, now() - 40 * DAY, now())
    await file.insert(events)
    await file.refresh()  # with statistics
    hours = [hour for (hour,) in file.execute("SELECT hour FROM analytics_hours")]
    assert hours == sorted({event.timestamp.strftime("%Y-%m-%dT%H") for event in events})
    user = next(event.user_id for event in events if event.user_id)
    since, until = to_text(now() - 30 * DAY), to_text(now() - 3 * DAY)
    values = {"1": str(user), "2": since, "3": until, "4": 1000}
    mine = {str(e.id) for e in events if e.user_id == user and since <= to_text(e.timestamp) < until}
    with closing(file.open()) as connection:
        found = connection.execute(SUBJECTS["find_events"], values).fetchall()
        assert {row[0] for row in found} == mine
        for name in ("days", "find_events", "erase_events"):
            plan = repr(connection.execute(f"EXPLAIN QUERY PLAN {SUBJECTS[name]}", values).fetchall())
            assert "analytics_events_hour_user_id_idx (hour=? AND user_id=?)" in plan, name
        assert connection.execute(SUBJECTS["erase_events"], values).rowcount == len(mine)
    assert {row["id"] for row in file.rows("analytics_events")} == {e.id for e in events if str(e.id) not in mine}


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_views_equal_those_of_plain_postgresql_row_by_row(database: Database, file: SqliteDatabase) -> None:
    random = Random(11)
    events = some_events(random, 500, now() - 32 * DAY, now())
    connection = await database.connect()
    await insert(connection, events)
    await file.insert(events)
    for is_filled in (False, True):
        if is_filled:
            await refresh(connection)
            await file.refresh()
        theirs = {view: rows for view, rows in (await all_rows(connection)).items() if view in COLUMNS}
        assert len(theirs) == 7
        assert_same({view: in_order(file.rows(view)) for view in theirs}, theirs)


async def assert_sessions(file: SqliteDatabase, events: list[Any]) -> None:
    def row(session: Any) -> dict[str, Any]:
        id_ = session.key if session.given else f"{session.key}@{session.started_at:%Y-%m-%dT%H:%M:%S.%fZ}"
        found: dict[str, Any] = session.row() | {"id": id_}
        return found

    assert in_order(file.rows("analytics_sessions")) == in_order([row(session) for session in sessions(events)])


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 8))])
async def test_sessions_equal_an_independent_computation(file: SqliteDatabase, seed: int) -> None:
    random = Random(seed)
    events = random_visits(random, 300, midnight(8), now())
    await file.insert(events)
    await assert_sessions(file, events)  # all of it live
    await file.refresh()
    await assert_sessions(file, events)
    for _ in range(2):
        new = random_visits(random, 30, now() - 2 * HOUR, now())
        await file.insert(new)
        events += new
        await file.refresh()
        await assert_sessions(file, events)
    late = random_visits(random, 60, midnight(8), now())
    await file.insert(late)
    events += late
    for event in random.sample(events, 60):
        file.execute(
            "DELETE FROM analytics_events WHERE id = ? AND timestamp LIKE ?",
            str(event.id),
            f"{event.timestamp:%Y-%m-%dT%H:%M:%S.%f}%",
        )
        events.remove(event)
    await file.refresh()
    await assert_sessions(file, events)
    filled = in_order(file.rows("analytics_sessions_filled"))
    file.execute(
        "INSERT OR IGNORE INTO analytics_changes"
        " SELECT substr(timestamp, 1, 13) || ':00:00.000000Z' FROM analytics_events"
    )
    assert await file.refresh()
    assert in_order(file.rows("analytics_sessions_filled")) == filled, "a part was in no row, or in two"


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 8))])
async def test_what_happened_a_moment_ago_is_in_the_sessions(file: SqliteDatabase, seed: int) -> None:
    random = Random(seed)
    events = random_visits(random, 150, now() - 5 * HOUR, now() - HOUR, people=5)
    await file.insert(events)
    await file.refresh()
    for _ in range(4):
        new = random_visits(random, 10, now() - HOUR, now(), people=5)
        await file.insert(new)
        events += new
        await assert_sessions(file, events)


async def test_days_of_users_and_features_are_filled(file: SqliteDatabase) -> None:
    random = Random(7)
    events = [event for event in random_visits(random, 300, midnight(5), now()) if event.event_type != "page_engaged"]
    await file.insert(events)
    await file.refresh()
    found = {(row["user_id"], row["date"]): row for row in file.rows("user_activity")}
    wanted: dict[Any, list[Any]] = {}
    for event in events:
        if event.user_id is not None:
            wanted.setdefault((event.user_id, f"{event.timestamp:%Y-%m-%d}"), []).append(event)
    assert {key for key, row in found.items() if row["event_count"]} == set(wanted)
    for key, of_day in wanted.items():
        row = found[key]
        assert row["event_count"] == len(of_day)
        assert row["first_seen_at"] == min(event.timestamp for event in of_day)
        breakdown = json.loads(row["events_breakdown"])
        assert breakdown == {kind: sum(e.event_type == kind for e in of_day) for kind in {e.event_type for e in of_day}}
    begun = [session for session in sessions(events) if session.user_id is not None]
    assert sum(row["session_count"] for row in found.values()) == len(begun)
    assert sum(row["total_duration_ms"] for row in found.values()) == pytest.approx(
        sum(session.duration_ms for session in begun)
    )
    usage = {(row["feature_name"], row["date"]): row for row in file.rows("feature_usage")}
    captured = ("api_request", "database_query", "application_error", "page_view")
    tracked: dict[Any, list[Any]] = {}
    for event in events:
        if event.event_type not in captured:
            tracked.setdefault((event.event_type, f"{event.timestamp:%Y-%m-%d}"), []).append(event)
    assert {key: (row["usage_count"], row["unique_users"]) for key, row in usage.items()} == {
        key: (len(of_day), len({e.user_id for e in of_day if e.user_id})) for key, of_day in tracked.items()
    }


async def test_a_time_in_any_form_is_one_text(file: SqliteDatabase) -> None:
    from asgi_analytics.sinks.sqlite import SqliteSink
    from tests.sinks.test_poison import with_timestamp

    sink = SqliteSink(file.url)
    forms = (
        "2026-03-01T12:00:00Z",
        "2026-03-01T13:30:00+01:30",
        "2026-03-01T12:00:00.000000Z",
        "2026-03-01 12:00:00+00:00",
        "2026-02-29",
    )
    receipt = await sink.write([with_timestamp(form) for form in forms])
    await sink.aclose()
    assert [one.index for one in receipt.rejected] == [4]
    assert {row[0] for row in file.execute("SELECT timestamp FROM analytics_events")} == {"2026-03-01T12:00:00.000000Z"}
    assert datetime(2026, 3, 1, 12, tzinfo=UTC) == file.rows("analytics_events")[0]["timestamp"]
