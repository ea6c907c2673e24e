"""A person is exported, anonymised and erased from every place, and nothing of anybody else is touched."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from asgi_analytics import errors, events
from asgi_analytics.admin import subjects
from asgi_analytics.admin.refresh import refresh, refresh_views
from asgi_analytics.encoding.encoder import EventEncoder
from asgi_analytics.events.base import event_types
from asgi_analytics.migrate.runner import migrate
from asgi_analytics.sinks.spool_lines import unpack
from asgi_analytics.sinks.sqlite import SqliteSink
from asgi_analytics.sinks.timescale import TimescaleSink
from tests.admin.people import (
    ANN,
    BEN,
    EVE,
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
    refreshed,
    rows_with,
    spellings,
    told,
    uuid_of,
)
from tests.kit.databases import Database
from tests.reading.happened import Event, insert
from tests.schema.happenings import compress, lose, midnight

MENTIONED = [
    ("analytics_dead_letters", "payload"),
    ("analytics_events", "data.deep[0].buyer"),
    ("analytics_events", "data.note"),
]


def without(event: Event) -> Event:
    """Return what is left of an event of Ben, as the page on it says; written down here by hand."""
    context = event.context and {name: value for name, value in event.context.items() if name != "visitor"}
    data = {name: value for name, value in event.data.items() if name != "email"}
    if event.event_type == "user_identified":
        data = {}
    if "page" in data:
        data["page"] = data["page"].replace(str(BEN), "***")
    if str(BEN) in str(data.get("error_message")):
        data["error_message"] = "!*** or *** is wrong"
    if "owner" in data:
        data["owner"] = {}
    return event._replace(user_id=None, session_id=None, context=context, data=data)


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


HOSTILE: list[Any] = [
    "'; DROP TABLE analytics_events; --", "%", "____", '"\\"', "", " ", "\x00nul", "(.*){9}", "\\m.*\\M", "a\nb", 42,
    -42, 2**4000, "\ud800", "é" * 3000, "*** {relation} $1", "NULL", "\\u0041bcd",
]  # fmt: skip


async def test_hostile_ids_hit_nobody_else(store: Any) -> None:
    connection = await store.connect()
    sink: Any = SqliteSink(store.dsn) if store.flavour == "sqlite" else TimescaleSink(store.dsn)
    encoder = EventEncoder(service="shop", environment=None, hostname=None)
    for user in (*HOSTILE, "somebody else"):
        said = events.track("said", user_id=user, text=f"by {user!r} ")
        assert not (await sink.write([encoder.encode(said)])).rejected
    await sink.aclose()
    await refreshed(connection)
    number = len(HOSTILE) + 1
    for place, user in enumerate(HOSTILE):
        forget = subjects.erase if place % 2 else subjects.anonymise
        report = await forget(store.dsn, user)
        assert report.request.rows["analytics_events"] == 1, user
        if forget is subjects.erase:
            number -= 1
        assert await connection.fetchval("SELECT count(*) FROM analytics_events") == number
        assert await connection.fetchval("SELECT count(*) FROM analytics_events WHERE user_id IS NOT NULL") == (
            len(HOSTILE) - place
        )
    [left] = await connection.fetch("SELECT context::text FROM analytics_events WHERE user_id IS NOT NULL")
    assert json.loads(left[0])["user_key"] == "somebody else"
    with pytest.raises(errors.ConfigError, match="a UUID, a str or an int"):
        await subjects.erase(store.dsn, True)


async def test_an_event_that_has_the_id_in_its_context_alone_goes_too(store: Any) -> None:
    random = Random(22)
    connection = await store.connect()
    event = a_row(random, midnight(2), "order_placed", ANN, total=1)._replace(user_id=None)
    other = a_row(random, midnight(2), "order_placed", EVE, total=1)
    context = {"user_key": ANN}
    await insert(connection, [event, other._replace(context=context)])
    report = await subjects.anonymise(store.dsn, ANN)
    assert report.request.rows == {"analytics_events": 1}
    assert [(one.id, one.column) for one in report.mentions] == [(str(other.id), "context.user_key")]
    left = dict(map(tuple, await connection.fetch("SELECT id::text, context::text FROM analytics_events")))
    assert json.loads(left[str(event.id)]) == {"trace_id": "t"}
    assert json.loads(left[str(other.id)]) == context


async def test_a_class_that_cannot_be_read_keeps_from_anonymising_before_anything_is_done(store: Any) -> None:
    connection = await store.connect()
    await insert(connection, [a_row(Random(2), midnight(2), "order_placed", ANN, total=1)])
    before = await connection.fetch("SELECT id::text, user_id::text, data::text FROM analytics_events")

    async def anonymise() -> None:
        class UnreadableOrder(events.Event):
            total: NoSuchType  # type: ignore[name-defined]  # noqa: F821

        with pytest.raises(errors.ConfigError, match="UnreadableOrder are personal cannot be read"):
            await subjects.anonymise(store.dsn, ANN)
        assert (await subjects.status(store.dsn)).requests == ()
        after = await connection.fetch("SELECT id::text, user_id::text, data::text FROM analytics_events")
        assert list(map(tuple, after)) == list(map(tuple, before))
        assert (await subjects.erase(store.dsn, ANN)).request.rows == {"analytics_events": 1}

    await anonymise()
    for _ in range(2):  # or other tests would meet it
        gc.collect()
    assert "unreadable_order" not in event_types()


async def test_a_short_original_is_learned_from_the_rows(store: Any) -> None:
    """Whoever has only the UUID of the tables erases the original as well."""
    connection = await store.connect()
    await insert(connection, [a_row(Random(1), midnight(2), "page_view", ANN, page="/")])
    await add_dead_letters(connection, [json.dumps({"context": {"user_key": ANN}})])
    report = await subjects.erase(store.dsn, uuid_of(ANN))
    assert report.request.rows == {"analytics_events": 1, "analytics_dead_letters": 1}


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_only_an_owner_may(database: Database, writer_dsn: str, reader_dsn: str) -> None:
    for dsn in (writer_dsn, reader_dsn):
        for run in (subjects.erase, subjects.anonymise, subjects.export):
            with pytest.raises(errors.MigrationError, match="needs the rights"):
                await run(dsn, BEN)
        with pytest.raises(errors.MigrationError, match="needs the rights"):
            await subjects.status(dsn)
        connection = await asyncpg.connect(dsn)
        for table in ("analytics_subject_requests", "analytics_subject_key"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.fetch(f"SELECT * FROM {table}")
        await connection.close()
    connection = await database.connect()
    assert await connection.fetchval("SELECT count(*) FROM analytics_subject_requests") == 0


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_the_log_does_not_say_who_it_was(database: Database) -> None:
    connection = await database.connect()
    await subjects.erase(connection, 42)
    [row] = await connection.fetch("SELECT * FROM analytics_subject_requests")
    for form in spellings(uuid_of("42")):
        assert form not in str(dict(row))
    # A database that was restored without the key gets another one.
    await connection.execute("DELETE FROM analytics_subject_key")
    assert (await subjects.status(connection, 42)).requests == ()
    assert len((await subjects.status(connection)).requests) == 1
    with pytest.raises(asyncpg.UniqueViolationError):
        await connection.execute("INSERT INTO analytics_subject_key VALUES ('')")


async def test_a_table_that_a_later_migration_adds_is_found(database: Database) -> None:
    connection = await database.connect()
    await connection.execute(
        """
        CREATE TABLE analytics_badges ("of" uuid, name text);
        SELECT analytics_holds_person('analytics_badges', 'owner', 'of');
        CREATE TABLE analytics_letters (body jsonb);
        SELECT analytics_holds_person('analytics_letters', 'event', 'body');
        """
    )
    for user in (BEN, EVE):
        await connection.execute("INSERT INTO analytics_badges VALUES ($1, 'gold')", user)
        await connection.execute(
            "INSERT INTO analytics_letters VALUES ($1)", json.dumps({"user_id": str(user), "data": {"email": "x"}})
        )
    report = await subjects.anonymise(database.dsn, BEN)
    assert report.request.rows == {"analytics_badges": 1, "analytics_letters": 1}
    assert await connection.fetch("SELECT * FROM analytics_badges") == [(EVE, "gold")]
    assert {
        json.loads(row["body"])["user_id"] for row in await connection.fetch("SELECT body FROM analytics_letters")
    } == {
        None,
        str(EVE),
    }


async def test_the_spool_of_a_living_process_is_left_to_it(store: Any, tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    tmp_path /= "spool"
    event = a_row(Random(1), midnight(1), "page_view", BEN, page="/")
    segment = left_spool(tmp_path, [line_of(event)])
    (tmp_path / ".analytics-subject-0").write_text("left by a run that was killed")
    (tmp_path / "notes.txt").write_text("of the operator")
    before = segment.read_bytes()
    with (segment.parent / "lock").open("rb+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        report = await subjects.erase(store.dsn, BEN, spool=tmp_path)
        assert segment.read_bytes() == before
        assert "events: 1" in report.warnings[0]
    report = await subjects.erase(store.dsn, BEN, spool=tmp_path)
    assert (report.warnings, report.request.rows) == ((), {"spool": 1})
    assert sorted(one.name for one in tmp_path.iterdir()) == [segment.parent.name, "notes.txt"]
    with pytest.raises(errors.ConfigError, match="not there"):
        await subjects.erase(store.dsn, BEN, spool=tmp_path / "other")


async def test_an_owner_who_is_no_superuser_may_in_a_schema_of_its_own(empty_database: Database) -> None:
    admin = await empty_database.connect()
    role, schema = f"owner_of_{empty_database.name}", 'it\'s "ours"'
    await admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'pass'")
    try:
        await admin.execute(f'GRANT CREATE, TEMPORARY ON DATABASE "{empty_database.name}" TO {role}')
        if empty_database.flavour == "timescaledb":
            await admin.execute("CREATE EXTENSION timescaledb")
        dsn = empty_database.cluster.dsn(empty_database.name, role, "pass")
        assert (await migrate(dsn, schema=schema)).flavour == empty_database.flavour
        await admin.execute("SELECT set_config('search_path', $1, false)", '"it\'s ""ours""", public')
        events = [*months(Random(24), 5), *told(Random(25))]
        await insert(admin, events)
        await refresh_views(dsn, schema=schema)
        await compress(admin, empty_database)
        await admin.execute("ANALYZE")
        for user, forget in ((ANN, subjects.erase), (BEN, subjects.anonymise)):
            report = await forget(dsn, user, schema=schema)
            assert report.request.rows["analytics_events"] == sum(one.user_id == uuid_of(user) for one in events)
            assert report.mentions == ()
            for form in spellings(user):
                assert await rows_with(admin, form) == {}
    finally:
        await admin.execute(f"REASSIGN OWNED BY {role} TO CURRENT_USER; DROP OWNED BY {role}; DROP ROLE {role}")
