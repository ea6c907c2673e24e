"""The command analytics-migrate when something is wrong: one line that says what to do, and no secret."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asgi_analytics.migrate.lock import key
from tests.cli.ran import Command, Ran, one_line
from tests.kit.databases import PASSWORD, Cluster, Database, free_port, query
from tests.kit.scripts import PATIENCE

SECRET = "hunter2/h@x"


def test_json_is_one_document_for_errors_too(empty_database: Database, command: Command, folder: Path) -> None:
    (folder / "002_post_b.sql").write_text("-- B\nSELECT 1 / 0;")
    ran = command("all", "--json", "--database-url", empty_database.dsn)
    assert ran.code == 2
    assert (ran.json["ok"], ran.json["command"], ran.json["file"]) == (False, "all", "002_post_b.sql")
    assert [step["name"] for step in ran.json["applied"]] == ["001_pre_a.sql"]
    assert ran.err.splitlines()[-1] == f"analytics-migrate: {ran.json['error']}"
    for arguments in ([], ["nonsense"], ["all"], ["all", "--wait", "x"], ["--frobnicate", "all"]):
        ran = command("--json", *arguments)
        assert ran.code == 2
        assert ran.json["ok"] is False
        assert len(ran.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (["nonsense=5"], "is not a category"), (["system=0"], "from 1 to 36500"), (["system=-3"], "whole number"),
        (["system"], "whole number"), (["system=\u0663"], "whole number"),
        (["system=30", "system=40"], "30 days and 40 days"),
    ],
)  # fmt: skip
def test_a_retention_that_cannot_be_is_refused(command: Command, said: list[str], expected: str) -> None:
    ran = command("retention", *(part for one in said for part in ("--set", one)))
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)
    assert expected in ran.err


def urls(url: str, password: str) -> list[str]:
    """Write a URL with a password in either of its places."""
    from urllib.parse import quote

    secret = quote(password, safe="")
    return [url.replace("@", f":{secret}@", 1), f"{url}{'&' if '?' in url else '?'}password={secret}"]


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("empty_database", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://postgres@{here}/{name}", 'wrong user or password for database "{name}"'),
        ("postgresql://nobody@{here}/{name}", 'wrong user or password for database "{name}" on {here} as "nobody"'),
        ("postgresql://postgres@127.0.0.1:{closed}/x", 'no server answers at database "x" on 127.0.0.1:{closed}'),
        ("postgresql://postgres@no-such-host.invalid/x", 'unknown host in database "x" on no-such-host.invalid'),
        ("postgresql://postgres@{here}/x?sslmode=require", "speaks no TLS: take sslmode out"),
        ("postgresql://postgres@{here}/x?sslmode=perhaps", "sslmode"),
        ("postgresql://postgres@{here}/x?sslmode=verify-full&sslrootcert=/nowhere", "certificate"),
        ("postgresql://postgres@{here}:1:2/x", "cannot be read"),
        ("mysql://postgres@{here}/x", "does not begin with postgresql://"),
    ],
)
def test_what_is_wrong_with_the_url_is_one_line_without_the_password(
    empty_database: Database, command: Command, url: str, says: str, as_json: bool
) -> None:
    server = empty_database.cluster
    words = {"here": f"{server.host}:{server.port}", "name": empty_database.name, "closed": free_port()}
    for written in urls(url.format(**words), SECRET):
        ran = command("all", "--database-url", written, *(["--json"] if as_json else []))
        if as_json:
            assert says.format(**words) in ran.json["error"]
        else:
            assert says.format(**words) in one_line(ran)
        for part in (SECRET, "hunter2", "h%40x"):
            assert part not in ran.out + ran.err


@pytest.mark.parametrize("empty_database", ["postgresql"], indirect=True)
def test_a_database_that_is_not_there_is_named(empty_database: Database, command: Command) -> None:
    ran = command("all", "--database-url", empty_database.cluster.dsn("nowhere"))
    assert 'there is no database "nowhere" on 127.0.0.1' in one_line(ran)
    assert PASSWORD not in ran.err
    ran = command("all", "--database-url", f"{empty_database.dsn}?frobnicate=1")
    assert "take that parameter out of the database URL" in one_line(ran)


def test_a_server_that_demands_tls(make_cluster: Callable[..., Cluster], command: Command) -> None:
    cluster = make_cluster("postgresql")
    cluster.allow("hostssl all all 127.0.0.1/32 scram-sha-256")
    cluster.restart()
    assert "without TLS: add sslmode=require to the database URL" in one_line(
        command("all", "--database-url", cluster.dsn())
    )
    cluster.allow("host all somebody 127.0.0.1/32 scram-sha-256", "host all all 127.0.0.1/32 reject")
    cluster.restart()
    assert "pg_hba.conf" in one_line(command("all", "--database-url", cluster.dsn()))
    cluster.allow()
    cluster.configure({"default_transaction_read_only": "on"})
    cluster.restart()
    assert "read-only standby; use the URL of the primary" in one_line(command("all", "--database-url", cluster.dsn()))


@pytest.mark.parametrize("empty_database", ["postgresql"], indirect=True)
def test_missing_rights_are_one_line_that_says_which(empty_database: Database, command: Command) -> None:
    role = f"guest_of_{empty_database.name}"
    query(empty_database.cluster.dsn(), f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
    dsn = empty_database.cluster.dsn(empty_database.name, user=role, password="secret")
    assert "permission denied for schema public" in command("all", "--database-url", dsn).err
    ran = command("all", "--database-url", dsn, "--schema", "other")
    assert "permission denied for database" in ran.err
    assert "GRANT" in ran.err.splitlines()[-1]
    query(empty_database.dsn, f"GRANT CREATE ON SCHEMA public TO {role}")
    query(empty_database.dsn, "CREATE TABLE a (x int)")
    ran = command("all", "--database-url", dsn)
    assert ran.code == 2
    assert "001_pre_a.sql, line 2, 'CREATE TABLE a (x int)'" in ran.err
    query(empty_database.dsn, f"DROP OWNED BY {role}")
    query(empty_database.cluster.dsn(), f"DROP ROLE {role}")


def test_drift_is_one_line_that_names_the_file(empty_database: Database, command: Command, folder: Path) -> None:
    on = ("--database-url", empty_database.dsn)
    command("all", *on)
    (folder / "001_pre_a.sql").write_text("-- Make another\nSELECT 1;")
    for name in ("all", "pre", "post", "status", "dry-run"):
        assert "001_pre_a.sql is not what was applied" in one_line(command(name, *on))
    assert command("status", "--json", *on).json["file"] == "001_pre_a.sql"
    (folder / "001_pre_a.sql").unlink()
    assert "001_pre_a.sql was applied" in one_line(command("status", *on))


def test_post_before_pre_says_run_pre_first(empty_database: Database, command: Command) -> None:
    said = one_line(command("post", "--database-url", empty_database.dsn))
    assert "nothing is installed in the schema public yet: run analytics-migrate pre first" in said


def test_a_lock_not_had_in_time(empty_database: Database, command: Command) -> None:
    import asyncio

    import asyncpg

    async def held() -> Ran:
        holder = await asyncpg.connect(empty_database.dsn)
        await holder.execute("SELECT pg_advisory_lock($1)", key("public"))
        ran = await asyncio.to_thread(command, "all", "--wait", "0", "--database-url", empty_database.dsn)
        await holder.close()
        return ran

    assert "give more seconds with --wait" in one_line(asyncio.run(held()))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "required: COMMAND"),
        (["up"], "invalid choice: 'up'"),
        (["all", "--wait", "-1"], "expected a number of seconds from 0"),
        (["all", "--wait", "nan"], "expected a number of seconds from 0"),
        (["all", "--wait", "inf"], "expected a number of seconds from 0"),
        (["all", "--from", "2026-11-20"], "unrecognized arguments: --from"),
        (["--from", "2026-11-20", "all"], "unrecognized arguments: --from"),
        (["all", "--requ"], "unrecognized arguments: --requ"),
        (["all", "--schema", "", "--database-url", "postgresql://db/x"], "cannot be the name of a schema"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_one_line(command: Command, arguments: list[str], says: str) -> None:
    assert says in one_line(command(*arguments))


def test_what_nobody_foresaw_is_one_line_too(
    empty_database: Database, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Any:
        raise RuntimeError(f"two\nlines about {PASSWORD}")

    monkeypatch.setattr("asgi_analytics.migrate.files.shipped_folder", broken)
    text = one_line(command("all", "--database-url", empty_database.dsn))
    assert "unexpected RuntimeError: two lines about ***; please report it" in text


SCRIPT = """
import pathlib, sys
from asgi_analytics.migrate import files
folder = pathlib.Path(sys.argv.pop(1))
files.shipped_folder = lambda: folder
from asgi_analytics.cli.migrate import main
sys.exit(main())
"""


@pytest.mark.parametrize("empty_database", ["postgresql"], indirect=True)
def test_ctrl_c_is_one_line_and_130(empty_database: Database, folder: Path) -> None:
    (folder / "001_pre_a.sql").write_text("-- A\nCREATE TABLE a (x int);\nSELECT pg_sleep(600);")
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), "all", "--json"],
        env={**os.environ, "DATABASE_URL": empty_database.dsn},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=_hear_sigint,
    )  # fmt: skip
    busy = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)'"
    while not query(empty_database.dsn, busy) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert err == f"analytics-migrate: {json.loads(out)['error']}\n"
    assert "interrupted" in err
    assert query(empty_database.dsn, "SELECT to_regclass('a')") is None
    assert query(empty_database.dsn, busy) == 0


def _hear_sigint() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize("empty_database", ["postgresql"], indirect=True)
def test_a_reader_that_leaves_is_no_traceback(empty_database: Database, folder: Path) -> None:
    (folder / "001_pre_a.sql").write_text("-- A\nSELECT 1;\n" + "SELECT 'long';\n" * 20_000)
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), "dry-run"],
        env={**os.environ, "DATABASE_URL": empty_database.dsn},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 141
    assert "Traceback" not in err
    assert "BrokenPipe" not in err
