"""``analytics-subject``, as scripts and people use it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import pytest

from asgi_analytics.cli.subject import main
from tests.admin.people import BEN, EVE, a_row, left_spool, line_of
from tests.cli.ran import Command, Ran
from tests.kit.databases import Database, query, run
from tests.kit.sqlite import SqliteDatabase
from tests.reading.happened import Event, insert
from tests.schema.happenings import midnight

MODULE = """
from asgi_analytics.events import Event, Personal

class PalletLost(Event):
    to: Personal[str]
    weight: int
"""


@pytest.fixture
def subject(
    database: Database, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Ran]:
    """Give ``subject(…)``: the command on this test's database, and what it printed."""
    monkeypatch.delenv("ANALYTICS_SPOOL", raising=False)

    def call(*arguments: str, url: str = database.dsn) -> Ran:
        monkeypatch.setenv("DATABASE_URL", url)
        capfd.readouterr()
        code = main(arguments)
        return Ran(code, *capfd.readouterr())

    return call


def stored(database: Database) -> list[Event]:
    random = Random(3)
    events = [
        a_row(random, midnight(2), "pallet_lost", "=1+1", to="f00d", weight=20),
        a_row(random, midnight(2), "order_placed", EVE, note=f"for {BEN}"),
        a_row(random, midnight(1), "page_view", BEN, page="/", text='with "quotes", and\ttabs'),
    ]

    async def put() -> None:
        await insert(await database.connect(), events)
        await database.close()

    run(put())
    return events


def test_it_says_what_it_did(database: Database, subject: Command) -> None:
    stored(database)
    ran = subject("erase", str(BEN))
    assert (ran.code, ran.err) == (0, "")
    lines = [" ".join(line.split()) for line in ran.out.splitlines()]
    assert lines[0] == f"{database.version}, schema public"
    assert "analytics_events 1 erased" in lines
    assert any(line.startswith("analytics_events ") and line.endswith(" data.note") for line in lines)
    assert lines[-1].startswith("Rows erased: 1; request ")
    assert str(BEN) not in ran.out
    again = json.loads(subject("anonymise", "--json", str(BEN)).out)
    assert (again["command"], again["ok"], again["request"]["rows"]) == ("anonymise", True, {})
    assert [(one["table"], one["column"]) for one in again["mentions"]] == [("analytics_events", "data.note")]
    status = subject("status")
    assert status.code == 0
    assert status.out.splitlines()[-1] == "Nothing is open."
    query(database.dsn, "UPDATE analytics_subject_requests SET completed_at = NULL WHERE kind = 'erase' RETURNING 1")
    status = subject("status", str(BEN), "--json")
    assert status.code == 1
    assert [one["kind"] for one in status.json["requests"]] == ["anonymise", "erase"]
    assert subject("status", "somebody else").code == 0


def test_an_export_is_one_document_or_one_table(database: Database, subject: Command) -> None:
    events = stored(database)
    ran = subject("export", str(BEN))
    assert (ran.code, ran.err) == (0, "")
    tables = json.loads(ran.out)["tables"]
    assert [row["id"] for row in tables["analytics_events"]] == [str(events[2].id)]
    assert tables["analytics_sessions"][0]["page_views"] == 1
    assert json.loads(subject("export", "--json", "nobody").out) == {"command": "export", "ok": True, "tables": {}}
    rows = list(csv.DictReader(io.StringIO(subject("export", "--format", "csv", str(BEN)).out)))
    assert {row["table"] for row in rows} == set(tables)
    [row] = [row for row in rows if row["table"] == "analytics_events"]
    assert (row["id"], row["event_type"], row["service"]) == (str(events[2].id), "page_view", "shop")
    assert json.loads(row["data"]) == events[2].data
    # Nothing that a spreadsheet would calculate.
    formula: dict[str, Any] = {"session_id": '=HYPERLINK("x")', "id": UUID(int=1), "timestamp": midnight(1)}

    async def put() -> None:
        await insert(await database.connect(), [events[2]._replace(**formula)])
        await database.close()

    run(put())
    out = subject("export", "--format", "csv", str(BEN)).out
    assert any(row["session_id"] == '\'=HYPERLINK("x")' for row in csv.DictReader(io.StringIO(out)))


def test_personal_fields_of_classes_of_ones_own_go(
    database: Database, subject: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = stored(database)
    (tmp_path / "my_parcels.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    assert subject("anonymise", "--events", "my_parcels", "=1+1").code == 0
    sql = f"SELECT data::text FROM analytics_events WHERE id = '{events[0].id}'"
    assert json.loads(query(database.dsn, sql)) == {"weight": 20}
    ran = subject("anonymise", "--events", "not_there", "=1+1")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "--events not_there: it cannot be imported" in ran.err


def test_the_spool_is_named_by_an_option_or_a_variable(
    database: Database, subject: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = a_row(Random(1), midnight(1), "page_view", "-5", page="/")
    segment = left_spool(tmp_path / "a", [line_of(event)])
    monkeypatch.setenv("ANALYTICS_SPOOL", str(tmp_path / "a"))
    ran = subject("erase", "--", "-5")
    assert " ".join(ran.out.splitlines()[1].split()) == "spool 1 erased"
    assert b"page_view" not in segment.read_bytes()
    assert "No spool was looked at" not in ran.out
    left_spool(tmp_path / "b", [line_of(event)])
    assert json.loads(subject("erase", "--json", "--spool", str(tmp_path / "b"), "--", "-5").out)["request"][
        "rows"
    ] == {"spool": 1}


def test_what_is_wrong_is_said_in_one_line(database: Database, subject: Command, empty_database: Database) -> None:
    for arguments, said in (
        (("erase",), "USER"),
        (("erase", "ann", "--spool", "/not/there"), "not there"),
        (("erase", " "), "USER is empty"),
        (("export", ""), "USER is empty"),
        (("export", "ann", "--json", "--format", "csv"), "exclude"),
        (("forget", "ann"), "invalid choice"),
    ):
        ran = subject(*arguments)
        assert (ran.code, ran.err.count("\n")) == (2, 1), ran.err
        assert said in ran.err
    ran = subject("erase", "ann", url=empty_database.dsn)
    assert ran.code == 2
    assert "run analytics-migrate all first" in ran.err


def test_a_file_of_sqlite_is_a_database_like_the_others(subject: Command, tmp_path: Path) -> None:
    file = SqliteDatabase(tmp_path / "analytics.db")
    random = Random(3)
    events = [a_row(random, midnight(1), "page_view", user, page="/") for user in (BEN, EVE)]

    async def put() -> None:
        await file.migrate()
        await insert(await file.connect(), events)
        await file.close()

    run(put())
    assert json.loads(subject("export", str(BEN), url=file.dsn).out)["tables"]["analytics_events"][0]["data"] == {
        "page": "/"
    }
    ran = subject("erase", str(BEN), url=file.dsn)
    assert (ran.code, ran.err) == (0, "")
    lines = [" ".join(line.split()) for line in ran.out.splitlines()]
    assert lines[0].startswith(file.version)
    assert "analytics_events 1 erased" in lines
    assert subject("status", str(BEN), url=file.dsn).code == 0
    ran = subject("erase", str(BEN), url=f"sqlite:///{tmp_path}/none.db")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "run analytics-migrate all first" in ran.err
