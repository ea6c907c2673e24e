"""Requests to forget a person: by ids of any kind, by whom, what their log says, and what is in their way."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from random import Random
from typing import Any

import asyncpg
import pytest

from asgi_analytics import errors, events
from asgi_analytics.admin import subjects
from asgi_analytics.admin.refresh import refresh_views
from asgi_analytics.encoding.encoder import EventEncoder
from asgi_analytics.events.base import event_types
from asgi_analytics.migrate.runner import migrate
from asgi_analytics.sinks.sqlite import SqliteSink
from asgi_analytics.sinks.timescale import TimescaleSink
from tests.admin.people import (
    ANN,
    BEN,
    EVE,
    a_row,
    add_dead_letters,
    left_spool,
    line_of,
    months,
    refreshed,
    rows_with,
    spellings,
    told,
    uuid_of,
)
from tests.kit.databases import Database
from tests.reading.happened import insert
from tests.schema.happenings import compress, midnight

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
