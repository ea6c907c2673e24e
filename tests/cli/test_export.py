"""The command ``analytics-export``."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest

from asgi_analytics.cli.export import main
from tests.cli.ran import Command, Ran
from tests.exports.stored import all_ids, an_event, ids, read, store
from tests.kit.databases import Database, run

pytest.importorskip("pyarrow")


@pytest.fixture
def export(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, database: Database) -> Command:
    """Give ``export("status", …)`` on the test's database."""
    for name in list(os.environ):
        if name.startswith("PG") or name.endswith("DATABASE_URL"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DATABASE_URL", database.dsn)

    def call(*arguments: str) -> Ran:
        capfd.readouterr()
        code: Any = run(asyncio.to_thread(main, arguments))
        return Ran(code, *capfd.readouterr())

    return call


async def test_from_init_to_remove(export: Command, database: Database, tmp_path: Path) -> None:
    random = Random(1)
    connection = await database.connect()
    old = await store(connection, [an_event(random) for _ in range(20)])
    url = tmp_path.as_uri()
    assert export("status").out == "There is no export: analytics-export init makes one.\n"
    made = export("init", "lake", url, "--json")
    assert (made.code, made.json) == (
        0, {"command": "init", "ok": True, "name": "lake", "warehouse": url, "is_new": True}
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANALYTICS_EXPORT_URL", url)
        assert "existed" in export("init", "lake").out
    new = await store(connection, [an_event(random) for _ in range(30)])
    [behind] = export("status", "--json").json["exports"]
    assert (behind["events_behind"], behind["attempts"], behind["warehouse"]) == (30, 0, url)
    ran = export("run", "lake", "--json")
    assert (ran.code, ran.json["events"], ran.json["dead_letters"]) == (0, 30, 0)
    assert ids(read(tmp_path)) == ids(new)
    since = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    ran = export("backfill", "lake", "--from", since.isoformat())
    assert (ran.code, ran.out) == (
        0, f"The export lake is up to date. Events copied: {sum(row[1] >= since for row in old)}\n"
    )  # fmt: skip
    assert export("backfill", "lake").code == 0
    assert ids(read(tmp_path)) == ids([*old, *new])
    assert export("retry", "lake").out == "The export lake is up to date. Events copied: 0\n"
    assert export("status").out.split() == ["lake", url, "copied", "50,", "behind", "0", "(0", "s)"]
    assert export("rebase").out == "Nothing was to be done: this is their cluster.\n"
    assert export("remove", "lake").code == 0
    assert ids(read(tmp_path)) == await all_ids(connection)
    for command in (["run", "lake"], ["backfill", "lake"], ["remove", "lake"], ["status", "lake"]):
        gone = export(*command)
        assert (gone.code, gone.out) == (2, "")
        assert "there is no export lake" in gone.err
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        export("init", "lake", url)
        await store(connection, [an_event(random)])
        failed = export("run", "lake")
    assert failed.code == 2
    assert "cannot be written: Permission denied" in failed.err
    status = export("status")
    assert status.code == 1
    assert "fails: the files cannot be written" in status.out


def refuse(*paths: Any) -> None:
    raise PermissionError(13, "Permission denied")


async def test_what_cannot_be_is_one_line_without_a_secret(export: Command, tmp_path: Path) -> None:
    url = tmp_path.as_uri()
    assert export("init", "lake", url).code == 0
    for arguments, said in (
        (["init", "Lake", url], "cannot be the name of an export"),
        (["init", "other", "ftp://user:hunter2@host/x"], "begin with one of"),
        (["init", "other"], "give its URL, or set ANALYTICS_EXPORT_URL"),
        (["init", "lake", f"{url}/other"], "use another name, or analytics-export remove"),
        (["backfill", "lake", "--from", "2026-02-01", "--to", "2026-01-01"], "swap them"),
        (["run", "lake", "--module", "no_such_module"], "--module no_such_module cannot be imported"),
        (["run", "lake", "--database-url", "postgresql://u:hunter2@127.0.0.1:1/x", "--patience", "0"], "127.0.0.1:1"),
    ):
        ran = export(*arguments)
        assert (ran.code, ran.out) == (2, "")
        assert said in ran.err
        assert ran.err.count("\n") == 1
        assert "hunter2" not in ran.err


async def test_for_ever_ends_by_a_signal_after_the_page(export: Command, database: Database, tmp_path: Path) -> None:
    random = Random(2)
    connection = await database.connect()
    assert export("init", "lake", tmp_path.as_uri()).code == 0
    rows = await store(connection, [an_event(random) for _ in range(30)])
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "asgi_analytics.cli.export", "run", "lake", "--every", "3600",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    line = (await process.stderr.readline()).decode()
    assert line.endswith("INFO export lake: batches 1, rows erased 0, events 30\n")
    process.send_signal(signal.SIGTERM)
    out, _ = await process.communicate()
    assert (process.returncode, out) == (0, b"The export lake is up to date. Events copied: 30\n")
    assert ids(read(tmp_path)) == ids(rows)
