"""A person in an SQLite database: what is left is searched for in the bytes of the file, and of its log."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import pytest

from asgi_analytics import errors
from asgi_analytics.admin import subjects
from asgi_analytics.admin.subjects.sqlite import SqliteWork
from asgi_analytics.sinks.spool_lines import unpack
from asgi_analytics.sinks.sqlite import SqliteSink
from tests.admin.people import (
    ANN,
    BEN,
    EVE,
    MENTIONED,
    QUOTED,
    a_row,
    add_dead_letters,
    left_spool,
    line_of,
    mentioned,
    months,
    spellings,
    told,
    uuid_of,
    without,
)
from tests.admin.test_subjects_interrupted import start_command
from tests.kit.databases import run
from tests.kit.sqlite import SqliteConnection, SqliteDatabase
from tests.reading.happened import Event, insert
from tests.schema.expected import assert_same
from tests.schema.happenings import midnight
from tests.schema.sqlite_views import views_of, wanted_of
from tests.schema.test_sqlite import assert_sessions

BOTH = ("analytics_sessions_filled", "analytics_session_parts_filled")
"""What is joined of several people's events."""
BOOKS = ("analytics_changes", "analytics_stale", "analytics_subject_requests", "sqlite_stat1", "sqlite_stat4")


class File:
    """A database, a connection that keeps its log from being deleted, and ways to look into them."""

    def __init__(self, folder: Path) -> None:
        self.rows = SqliteDatabase(folder / "analytics.db")
        run(self.rows.migrate())
        self.dsn = self.rows.dsn
        self.connection = SqliteConnection(self.dsn)

    def found(self, user: UUID | str) -> list[tuple[str, str]]:
        """Return in which files a form of an id stands, and which form."""
        forms = [form.encode() for form in spellings(user)] + [uuid_of(user).bytes]
        files = [self.rows.path.with_name(self.rows.path.name + suffix) for suffix in ("", "-wal", "-shm")]
        assert all(file.exists() for file in files)
        said = {file.suffix: (file.read_bytes(), file.read_bytes().lower()) for file in files}
        return [(name, repr(form)) for name, texts in said.items() for form in forms if any(form in t for t in texts)]

    def others(self, *people: UUID | str) -> dict[str, list[str]]:
        """Return the rows of every table that hold none of these people, in order."""
        forms = [form for user in people for form in spellings(user)]
        tables = self.rows.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        return {
            name: sorted(text for text in map(repr, self.rows.execute(f"SELECT * FROM {name}"))
                         if not any(form in text.lower() for form in forms))
            for (name,) in tables
            if name not in BOOKS
        }  # fmt: skip

    async def assert_views(self, events: list[Event]) -> None:
        """Compare every view with an independent computation."""
        await self.rows.refresh()
        wanted = {view: rows for view, rows in wanted_of(events).items() if "session" not in view}
        found = views_of(self.rows)
        assert_same({view: found[view] for view in wanted}, wanted)
        await assert_sessions(self.rows, events)


@pytest.fixture
async def file(tmp_path: Path) -> AsyncIterator[File]:
    (tmp_path / "database").mkdir()
    file = File(tmp_path / "database")
    yield file
    file.connection.close()


async def test_nothing_of_a_person_is_left_in_the_bytes_and_others_are_as_they_were(file: File, tmp_path: Path) -> None:
    random = Random(19)
    own, others = told(random), mentioned(random)
    events = months(random) + own + others
    await file.rows.insert(events)
    eve = a_row(random, midnight(1), "order_placed", EVE, total=7)
    anns, bens = own[3], own[7]
    torn = [f'{{"user_id": "{uuid_of(ANN)}", torn', '{"torn": ']
    quoting = json.dumps({"user_id": str(EVE), "data": {"note": f"{QUOTED} {uuid_of(ANN)}"}})
    await add_dead_letters(file.connection, [line_of(anns), line_of(bens), line_of(eve), *torn, quoting])
    await file.connection.execute(
        "INSERT INTO funnels (id, name, steps) VALUES ('00000000-0000-4000-8000-00000000000f', 'buys', '[]')"
    )
    for user in (ANN, BEN, EVE):
        await file.connection.execute(
            "INSERT INTO funnel_conversions (funnel_id, user_id, session_id, started_at, current_step, completed,"
            " step_timestamps) VALUES ('00000000-0000-4000-8000-00000000000f', $1, 's', '2026', 1, 0, '[]')",
            uuid_of(user),
        )
    segment = left_spool(tmp_path / "spool", [line_of(anns), line_of(eve), line_of(bens)])
    await file.rows.refresh()
    before = file.others(ANN)
    assert len({form for _, form in file.found(ANN)}) >= 3

    report = await subjects.erase(file.dsn, ANN, spool=tmp_path / "spool")
    mine = [event for event in events if event.user_id == uuid_of(ANN)]
    rows = report.request.rows
    assert (report.flavour, report.schema) == ("sqlite", "main")
    assert rows["analytics_events"] == len(mine)
    assert (rows["analytics_dead_letters"], rows["spool"], rows["analytics_user_traits"]) == (2, 1, 1)
    assert rows["funnel_conversions"] == 1
    for table in ("user_days", "user_quarters", "user_types_daily", "consumer_days", "page_visitors_daily", "sessions"):
        assert rows[f"analytics_{table}_filled"] > 0, table
    assert rows["user_activity"] > 0
    assert report.request.completed_at is not None
    assert (report.request.due_at - report.request.requested_at).days == 30
    assert sorted((one.table, one.column) for one in report.mentions) == MENTIONED
    assert {one.id for one in report.mentions} == {str(others[0].id), str(others[1].id), str(UUID(int=6))}
    after = file.others(ANN)
    assert {name: rows for name, rows in before.items() if name not in BOTH} == {
        name: [row for row in rows if "!*** or *** is wrong" not in row or BEN.hex in row]
        for name, rows in after.items()
        if name not in BOTH
    }
    assert unpack(segment.read_bytes()) == ([line_of(eve), line_of(bens)], 4)
    left = [event for event in events if event.user_id != uuid_of(ANN)]
    await file.assert_views(left)

    report = await subjects.anonymise(file.dsn, str(BEN).upper(), spool=tmp_path / "spool")
    assert report.request.rows["analytics_events"] == sum(event.user_id == BEN for event in left)
    assert (report.request.rows["analytics_dead_letters"], report.request.rows["spool"]) == (1, 1)
    assert sorted((one.table, one.column) for one in report.mentions) == [
        ("analytics_events", "data.buyer"),
        ("analytics_events", "data.reviewer_id"),
    ]
    left = [without(event) if event.user_id == BEN else event for event in left]
    stored = {
        row[0]: (*row[1:3], json.loads(row[3]), row[4] and json.loads(row[4]))
        for row in file.rows.execute("SELECT id, user_id, session_id, data, context FROM analytics_events")
    }
    assert stored == {
        str(one.id): (one.user_id and str(one.user_id), one.session_id, one.data, one.context) for one in left
    }
    assert file.rows.execute("SELECT user_id, session_id FROM funnel_conversions ORDER BY 1") == [
        (None, None),
        (str(EVE), "s"),
    ]
    await file.assert_views(left)

    # The rows of others that quote them are all that has them; without these a repeated run leaves no byte.
    assert file.found(ANN)
    assert file.found(BEN)
    for table, column in (("analytics_events", "data"), ("analytics_dead_letters", "payload")):
        file.rows.execute(f"DELETE FROM {table} WHERE {column} LIKE '%QUOTED%'")
    for user, again in ((ANN, subjects.erase), (BEN, subjects.anonymise)):
        report = await again(file.dsn, user, spool=tmp_path / "spool")
        assert (report.request.rows, report.mentions) == ({}, ())
    assert (file.found(ANN), file.found(BEN)) == ([], [])
    assert (await subjects.export(file.dsn, ANN)).tables == {}
    log = await subjects.status(file.dsn)
    assert [one.kind for one in log.requests] == ["export", "anonymise", "erase", "anonymise", "erase"]
    assert len({one.subject for one in log.requests}) == 2
    assert [one.kind for one in (await subjects.status(file.dsn, BEN)).requests] == ["anonymise", "anonymise"]
    assert (file.found(ANN), file.found(BEN)) == ([], [])


def joined(parts: list[dict[str, Any]]) -> set[tuple[Any, ...]]:
    """Join parts into sessions: between any two of a key that was not given there is no silence of 30 minutes."""
    runs: dict[tuple[str, int], list[list[dict[str, Any]]]] = {}
    for part in sorted(parts, key=lambda part: part["bucket"]):
        of_key = runs.setdefault((part["key"], part["given"]), [])
        if of_key and (part["given"] or part["first_at"] - of_key[-1][-1]["last_at"] <= timedelta(minutes=30)):
            of_key[-1].append(part)
        else:
            of_key.append([part])
    return {
        (*key, run[0]["first_at"], run[-1]["last_at"], sum(one["events"] for one in run))
        for key, of_key in runs.items()
        for run in of_key
    }


async def test_days_whose_raw_rows_are_gone_lose_the_person_too(file: File) -> None:
    random = Random(20)
    events = months(random, 20)
    # Who reads, then logs in, and reads on, and then another one: sessions of which parts are left.
    for number, user in enumerate((None, ANN, None, BEN, EVE, None)):
        for day in (15, 12):
            at = midnight(day) + timedelta(minutes=25 * number)
            view = a_row(random, at, "page_view", user, page="/")
            events.append(view._replace(session_id="given" if day == 15 else None, context={"visitor": "v"}))
    await insert(file.connection, events)
    file.connection.fill()
    file.connection.lose(midnight(8))
    before = file.others(ANN, BEN)
    for user, forget in ((ANN, subjects.erase), (BEN, subjects.anonymise)):
        parts = {repr(row) for row in file.rows.rows("analytics_session_parts_filled")}
        await forget(file.dsn, user)
        assert {repr(row) for row in file.rows.rows("analytics_session_parts_filled")} <= parts
        filled = file.rows.rows("analytics_sessions_filled")
        columns = ("key", "given", "first_at", "ended_at", "event_count")
        assert {tuple(row[name] for name in columns) for row in filled} == joined(
            file.rows.rows("analytics_session_parts_filled")
        )
        assert [one for one in filled if user in (one["user_id"], one["who"])] == []
        assert file.found(user) == []
        await file.rows.refresh()
        assert file.found(user) == []
    gone = f"('{midnight(9):%Y-%m-%d}"
    days = "analytics_user_days_filled"
    after = file.others(ANN, BEN)
    assert [row for row in after[days] if row < gone and "None" not in row] == [
        row for row in before[days] if row < gone and "None" not in row
    ]
    # What an anonymised user did is still counted; what an erased one did is not.
    total = "SELECT sum(events) FROM analytics_user_days WHERE day < $1"
    assert await file.connection.fetchval(total, midnight(8)) == len(
        [event for event in events if event.timestamp < midnight(8) and event.user_id != uuid_of(ANN)]
    )


async def test_a_run_that_was_killed_is_gone_on_with_and_others_write_meanwhile(file: File) -> None:
    random = Random(23)
    newest = a_row(random, midnight(0), "order_placed", ANN, total=1)
    events = [*months(random), newest]
    await file.rows.insert(events)
    await file.rows.refresh()
    mine = [event for event in events if event.user_id == uuid_of(ANN)]
    today = len([event for event in mine if event.timestamp >= midnight(0)])
    # Killed within the transaction of the last day, after those of all the others.
    file.rows.execute(
        "CREATE VIEW endless AS WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n) SELECT max(n) FROM n"
    )
    file.rows.execute(
        f"CREATE TRIGGER hang BEFORE DELETE ON analytics_events WHEN old.id = '{newest.id}'"
        " BEGIN SELECT * FROM endless; END"
    )
    process = start_command(file.rows, "erase", ANN)  # type: ignore[arg-type]  # it has a URL
    count = "SELECT rows FROM analytics_subject_requests"
    while file.rows.execute(count) != [(json.dumps({"analytics_events": len(mine) - today}, separators=(",", ":")),)]:
        assert process.poll() is None, process.communicate()
        await asyncio.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    for statement in ("DROP TRIGGER hang", "DROP VIEW endless"):
        file.rows.execute(statement)
    [first] = (await subjects.status(file.dsn, ANN)).requests
    assert first.completed_at is None
    process = start_command(file.rows, "status")  # type: ignore[arg-type]
    assert "interrupted" in process.communicate()[0]
    assert process.returncode == 1

    # To the end, beside another run of the same, and others who write.
    processes = [start_command(file.rows, "erase", ANN, "--json") for _ in range(2)]  # type: ignore[arg-type]
    sink = SqliteSink(file.dsn)
    while any(process.poll() is None for process in processes):
        beside = a_row(random, midnight(len(events) % 9), "order_placed", EVE, total=2)
        assert not (await sink.write([line_of(beside)])).rejected
        events.append(beside)
    await sink.aclose()
    done = [json.loads(process.communicate()[0]) for process in processes]
    assert all(one["ok"] for one in done), done
    found = (await subjects.status(file.dsn, ANN)).requests
    assert found[-1].id == first.id
    assert found[-1].rows["analytics_events"] == len(mine)
    assert all(one.completed_at is not None for one in found)
    await subjects.erase(file.dsn, ANN)
    assert file.found(ANN) == []
    await file.assert_views([event for event in events if event.user_id != uuid_of(ANN)])


async def test_who_is_in_the_way_at_the_end_is_named_and_the_same_command_finishes(
    file: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    await file.rows.insert([a_row(Random(1), midnight(2), "order_placed", ANN, total=1)])
    other = file.rows.open()

    # A reader of what was there before keeps the log.
    other.execute("BEGIN")
    assert other.execute("SELECT count(*) FROM analytics_events").fetchone() == (1,)
    with pytest.raises(errors.MigrationError, match=r"log analytics\.db-wal could not be cut.*run this again"):
        await subjects.erase(file.dsn, ANN, wait=0.1)
    assert [one.completed_at for one in (await subjects.status(file.dsn)).requests] == [None]
    other.execute("COMMIT")

    # A writer keeps it from being written anew.
    overwrite = SqliteWork.overwrite

    async def beside(work: SqliteWork) -> None:
        other.execute("BEGIN IMMEDIATE")
        try:
            await overwrite(work)
        finally:
            other.execute("COMMIT")

    with monkeypatch.context() as patched:
        patched.setattr(SqliteWork, "overwrite", beside)
        with pytest.raises(errors.MigrationError, match=r"VACUUM.*locked by another process.*run this again"):
            await subjects.erase(file.dsn, ANN, wait=0.1)
    report = await subjects.erase(file.dsn, ANN)
    assert report.request.rows == {"analytics_events": 1}
    assert len((await subjects.status(file.dsn)).requests) == 1
    assert file.found(ANN) == []
    other.close()


async def test_an_export_has_every_row_of_the_person_and_no_other(file: File, tmp_path: Path) -> None:
    random = Random(21)
    events = months(random, 6) + told(random)
    await insert(file.connection, events)
    await add_dead_letters(file.connection, [line_of(events[-1]), line_of(events[-5])])
    left_spool(tmp_path / "spool", [line_of(events[-1]), line_of(events[-5])])
    file.connection.fill()
    found = await subjects.export(file.dsn, ANN, spool=tmp_path / "spool")
    assert found.user_id == uuid_of(ANN)
    tables = {name: [json.loads(bytes(row)) for row in rows] for name, rows in found.tables.items()}
    mine = [event for event in events if event.user_id == uuid_of(ANN)]
    assert {row["id"]: row["data"] for row in tables["analytics_events"]} == {str(one.id): one.data for one in mine}
    assert [datetime.fromisoformat(row["timestamp"]) for row in tables["analytics_events"]] == sorted(
        event.timestamp for event in mine
    )
    for table in ("analytics_sessions", "user_activity"):
        sql = f"SELECT count(*) FROM {table} WHERE user_id = $1"
        assert len(tables[table]) == await file.connection.fetchval(sql, uuid_of(ANN)) > 0
    [letter] = tables["analytics_dead_letters"]
    [line] = tables["spool"]
    assert json.loads(letter["payload"]) == line
    assert {name: len(rows) for name, rows in tables.items()} == found.request.rows
    nobody = await subjects.export(file.dsn, "nobody", spool=tmp_path / "spool")
    assert (nobody.tables, nobody.request.rows) == ({}, {})


async def test_tables_of_ones_own_are_found_and_a_file_without_tables_is_told_of(file: File, tmp_path: Path) -> None:
    for sql in (
        'CREATE TABLE "our badges" ("of" TEXT, name TEXT)',
        "INSERT INTO analytics_holds_person VALUES ('our badges', 'owner', 'of')",
        f"INSERT INTO \"our badges\" VALUES ('{BEN}', 'gold'), ('{EVE}', 'silver')",
        "CREATE TABLE analytics_letters (body TEXT)",
        "INSERT INTO analytics_holds_person VALUES ('analytics_letters', 'event', 'body')",
        f'INSERT INTO analytics_letters VALUES (\'{{"user_id": "{BEN}", "data": {{"email": "x"}}}}\')',
    ):
        file.rows.execute(sql)
    report = await subjects.anonymise(file.dsn, BEN)
    assert report.request.rows == {"our badges": 1, "analytics_letters": 1}
    assert file.rows.execute('SELECT name FROM "our badges"') == [("silver",)]
    assert file.rows.execute("SELECT body FROM analytics_letters") == [('{"user_id":null,"data":{}}',)]
    assert file.found(BEN) == []
    for options in ({"schema": "other"}, {"wait": -1}):
        with pytest.raises(errors.ConfigError):
            await subjects.erase(file.dsn, BEN, **options)
    with pytest.raises(errors.MigrationError, match="run analytics-migrate all first"):
        await subjects.erase(f"sqlite:///{tmp_path / 'none.db'}", BEN)
    assert not (tmp_path / "none.db").exists()


async def test_each_table_says_where_it_holds_a_person(file: File) -> None:
    """As the tables of PostgreSQL do; whatever its name."""
    said: dict[str, set[str | None]] = {}
    for relation, name in file.rows.execute("SELECT relation, name FROM analytics_holds_person"):
        said.setdefault(relation, set()).add(name)
    tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite~_%' ESCAPE '~'"
    for (table,) in file.rows.execute(tables):
        assert table in said, (
            f"say it in the migration that makes the table: INSERT INTO analytics_holds_person VALUES ('{table}', "
            "'user', 'user_id') or (…, 'none', NULL)"
        )
        assert said[table] == {None} or None not in said[table], table
        columns = {row[1] for row in file.rows.execute(f"PRAGMA table_info({table})")}
        assert said[table] - {None} <= columns, table
        holding = columns & {"user_id", "session_id", "visitor", "who", "user_key", "payload"}
        if table != "analytics_midnight_visitors":  # hashes that nothing ties to a user
            assert holding <= said[table], table
