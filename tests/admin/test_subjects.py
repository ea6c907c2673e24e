"""A person is exported, anonymised and erased from every place, and nothing of anybody else is touched."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import asyncpg

from asgi_analytics.admin import subjects
from asgi_analytics.admin.refresh import refresh
from asgi_analytics.sinks.spool_lines import unpack
from tests.admin.people import (
    ANN,
    BEN,
    EVE,
    MENTIONED,
    QUOTED,
    a_row,
    add_dead_letters,
    assert_views,
    dump,
    everything,
    left_spool,
    line_of,
    mentioned,
    months,
    rows_with,
    spellings,
    told,
    uuid_of,
    without,
)
from tests.kit.databases import Database
from tests.reading.happened import Event, insert
from tests.schema.happenings import compress, lose, midnight


async def test_nothing_of_a_person_is_left_anywhere_and_others_are_as_they_were(
    database: Database, tmp_path: Path
) -> None:
    random = Random(19)
    connection = await database.connect()
    own, others = told(random), mentioned(random)
    events = months(random) + own + others
    await insert(connection, events)
    eve = a_row(random, midnight(1), "order_placed", EVE, total=7)
    anns, bens = own[3], own[7]
    letters: list[bytes | str] = [
        line_of(anns),
        line_of(bens),
        line_of(eve),
        f'{{"user_id": "{uuid_of(ANN)}", torn',
        b'{"torn": ',
    ]
    quoting = json.dumps({"user_id": str(EVE), "data": {"note": f"{QUOTED} {uuid_of(ANN)}"}})
    await add_dead_letters(connection, [*letters, quoting])
    segment = left_spool(tmp_path, [line_of(anns), line_of(eve), line_of(bens)])
    await refresh(connection)
    await compress(connection, database)
    await connection.execute("ANALYZE")
    before = await everything(connection, uuid_of(ANN))

    # -- Ann is erased

    report = await subjects.erase(database.dsn, ANN, spool=tmp_path)
    mine = [event for event in events if event.user_id == uuid_of(ANN)]
    rows = report.request.rows
    assert rows["analytics_events"] == len(mine)
    assert (rows["analytics_dead_letters"], rows["spool"], rows["analytics_user_traits"]) == (2, 1, 1)
    for table in ("user_days", "user_quarters", "user_types_daily", "consumer_days", "page_visitors_daily", "sessions"):
        assert rows[f"analytics_{table}_filled"] > 0, table
    assert report.request.completed_at is not None
    assert (report.request.due_at - report.request.requested_at).days == 30
    assert sorted((one.table, one.column) for one in report.mentions) == MENTIONED
    assert {one.id for one in report.mentions} == {str(others[0].id), str(others[1].id), str(UUID(int=6))}
    assert report.more_mentions == 0
    # Also before a refresh nothing is left, and nothing of others has changed, but for what was joined of both.
    await assert_only_quoted(database, connection, ANN)
    after = await everything(connection, uuid_of(ANN))
    errors_ = "analytics_errors_hourly_filled"
    assert [row for row in before.pop(errors_) if uuid_of(ANN).hex not in row] == [
        row for row in after.pop(errors_) if "!*** or *** is wrong" not in row or str(BEN.hex) in row
    ]
    for name in ("analytics_sessions_filled", "analytics_session_parts_filled"):
        before.pop(name), after.pop(name)
    assert after == before
    lines, damaged = unpack(segment.read_bytes())
    assert (lines, damaged) == ([line_of(eve), line_of(bens)], 4)

    left = [event for event in events if event.user_id != uuid_of(ANN)]
    await refresh(connection)
    await assert_views(connection, left)

    # -- Ben is anonymised

    await compress(connection, database)
    report = await subjects.anonymise(database.dsn, str(BEN).upper(), spool=tmp_path)
    theirs = [event for event in left if event.user_id == BEN]
    assert report.request.rows["analytics_events"] == len(theirs)
    assert (report.request.rows["analytics_dead_letters"], report.request.rows["spool"]) == (1, 1)
    assert sorted((one.table, one.column) for one in report.mentions) == [
        ("analytics_events", "data.buyer"),
        ("analytics_events", "data.reviewer_id"),
    ]
    await assert_only_quoted(database, connection, BEN)
    left = [without(event) if event.user_id == BEN else event for event in left]
    assert await stored(connection) == {event.id: kept(event) for event in left}
    await refresh(connection)
    await assert_views(connection, left)
    [_, anonymous], damaged = unpack(segment.read_bytes())
    assert damaged == 4
    assert json.loads(anonymous)["data"] == {"total": 3, "owner": {}}
    payload = await connection.fetchval("SELECT payload FROM analytics_dead_letters WHERE id = $1", UUID(int=2))
    assert json.loads(payload)["data"] == {"total": 3, "owner": {}}

    # -- and again

    for again in (subjects.erase, subjects.anonymise):
        report = await again(database.dsn, BEN, spool=tmp_path)
        assert report.request.rows == {}
        assert len(report.mentions) == 2
    log = await subjects.status(database.dsn)
    assert [one.kind for one in log.requests] == ["anonymise", "erase", "anonymise", "erase"]
    assert len({one.subject for one in log.requests}) == 2
    assert [one.kind for one in (await subjects.status(database.dsn, ANN)).requests] == ["erase"]

    # Without the rows of others a dump has nothing at all.
    await connection.execute("DELETE FROM analytics_events WHERE data::text LIKE '%QUOTED%'")
    await connection.execute("DELETE FROM analytics_dead_letters WHERE payload LIKE '%QUOTED%'")
    await connection.execute("ANALYZE")
    text = dump(database)
    for form in (*spellings(ANN), *spellings(BEN)):
        assert form not in text
        assert await rows_with(connection, form) == {}


def kept(event: Event) -> tuple[Any, ...]:
    data = json.loads(json.dumps(event.data), parse_int=float)  # the server writes 1e200 with all of its zeros
    return (event.timestamp, event.event_type, event.user_id, event.session_id, data, event.context)


async def stored(connection: asyncpg.Connection) -> dict[UUID, tuple[Any, ...]]:
    found = await connection.fetch(
        "SELECT id, timestamp, event_type, user_id, session_id, data::text, context::text FROM analytics_events"
    )
    return {
        row[0]: (*row[1:5], json.loads(row[5], parse_int=float), None if row[6] is None else json.loads(row[6]))
        for row in found
    }


async def assert_only_quoted(database: Database, connection: asyncpg.Connection, user: UUID | str) -> None:
    """Fail if any row has a form of an id, but for those of others that quote it."""
    text = dump(database).splitlines()
    for form in spellings(user):
        said = [line for line in text if form in line and QUOTED.lower() not in line]
        assert [line for line in said if "'most_common_vals'" not in line and "'histogram_bounds'" not in line] == []
        for table in await rows_with(connection, form):
            sql = f"SELECT t::text FROM {table} AS t WHERE strpos(lower(t::text), $1) > 0"
            assert all(QUOTED in row[0] for row in await connection.fetch(sql, form)), (table, form)


async def test_statistics_go_too_where_analyze_finds_no_row(database: Database) -> None:
    random = Random(22)
    connection = await database.connect()
    days: dict[datetime, list[UUID | str]] = {midnight(2): [ANN], midnight(9): [ANN, BEN], midnight(1): [BEN]}
    for day, users in days.items():
        await insert(connection, [a_row(random, day, "order_placed", user) for user in users for _ in range(20)])
    await refresh(connection)
    await connection.execute("ANALYZE")  # as the server does by itself, long before a day is compressed
    await compress(connection, database)
    assert "pg_statistic" in await rows_with(connection, str(uuid_of(ANN)))
    report = await subjects.erase(database.dsn, ANN)
    assert report.warnings == ()
    for form in spellings(ANN):
        assert await rows_with(connection, form) == {}
    assert await connection.fetchval("SELECT count(*) FROM analytics_events") == 40
    assert await connection.fetchval("SELECT count(*) FROM pg_stats WHERE attname = 'user_id'") > 0


async def test_days_whose_raw_rows_are_gone_lose_the_person_too(database: Database) -> None:
    random = Random(20)
    connection = await database.connect()
    events = months(random, 20)
    await insert(connection, events)
    await refresh(connection)
    await lose(connection, database, midnight(8))
    before = await everything(connection, uuid_of(ANN))
    for forget in (subjects.erase, subjects.anonymise):
        user = ANN if forget is subjects.erase else BEN
        await forget(database.dsn, user)
        for form in spellings(user):
            assert await rows_with(connection, form) == {}
        await refresh(connection)
        for form in spellings(user):
            assert await rows_with(connection, form) == {}
    after = await everything(connection, uuid_of(ANN))
    gone = f"{midnight(9):%Y-%m-%d}"
    days = "analytics_user_days_filled"
    assert [row for row in after[days] if row < f'("{gone}' and ",," not in row] == [
        row for row in before[days] if row < f'("{gone}' and ",," not in row and str(BEN) not in row
    ]
    # What an anonymised user did is still counted; what an erased one did is not.
    total = "SELECT sum(events)::int FROM analytics_user_days WHERE day < $1"
    assert await connection.fetchval(total, midnight(8)) == len(
        [event for event in events if event.timestamp < midnight(8) and event.user_id != uuid_of(ANN)]
    )


async def test_an_export_has_every_row_of_the_person_and_no_other(database: Database, tmp_path: Path) -> None:
    random = Random(21)
    connection = await database.connect()
    events = months(random, 6) + told(random)
    await insert(connection, events)
    await add_dead_letters(connection, [line_of(events[-1]), line_of(events[-5])])
    left_spool(tmp_path, [line_of(events[-1]), line_of(events[-5])])
    await refresh(connection)
    await compress(connection, database)
    found = await subjects.export(database.dsn, ANN, spool=tmp_path)
    assert found.user_id == uuid_of(ANN)
    tables = {name: [json.loads(bytes(row)) for row in rows] for name, rows in found.tables.items()}
    mine = [event for event in events if event.user_id == uuid_of(ANN)]
    assert {row["id"]: row["data"] for row in tables["analytics_events"]} == {str(one.id): one.data for one in mine}
    assert len(tables["analytics_sessions"]) == await connection.fetchval(
        "SELECT count(*) FROM analytics_sessions WHERE user_id = $1", uuid_of(ANN)
    )
    assert sum(row["events"] for row in tables["analytics_user_quarters_filled"]) <= len(mine)
    [traits] = tables["analytics_user_traits"]
    assert traits["traits"] == {"plan": "pro", "email": "a@example.com"}
    [letter] = tables["analytics_dead_letters"]
    [line] = tables["spool"]
    assert json.loads(letter["payload"]) == line
    assert line["event_id"] == str(events[-5].id)
    assert {name: len(rows) for name, rows in tables.items()} == found.request.rows
    nobody = await subjects.export(database.dsn, "nobody", spool=tmp_path)
    assert (nobody.tables, nobody.request.rows) == ({}, {})
