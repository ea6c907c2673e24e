"""The command analytics-migrate, as scripts and people use it: streams, exit codes, one line for what is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from asgi_analytics import __version__
from asgi_analytics.admin.refresh import Refreshed
from asgi_analytics.cli.migrate import main, make_parser, program
from asgi_analytics.migrate.lock import key
from asgi_analytics.migrate.runner import refresh_views
from tests.kit.databases import PASSWORD, Cluster, Database, free_port, query

SECRET = "hunter2/h@x"
STEPS = {
    "001_pre_a.sql": "-- Make a table\nCREATE TABLE a (x int);\n",
    "002_post_b.sql": "-- Make a view\nCREATE VIEW b AS SELECT * FROM a;\n",
}


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Ran]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    target = tmp_path / "migrations"
    target.mkdir()
    for name, sql in STEPS.items():
        (target / name).write_text(sql)
    monkeypatch.setattr("asgi_analytics.migrate.files.shipped_folder", lambda: target)
    return target


@pytest.fixture
def command(folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Give ``command("status", …)``: the command with two small steps, and what it printed."""
    for name in list(os.environ):
        if name.startswith("PG") or name.endswith("DATABASE_URL"):
            monkeypatch.delenv(name)

    def run(*arguments: str) -> Ran:
        capfd.readouterr()
        code = main(arguments)
        return Ran(code, *capfd.readouterr())

    return run


def one_line(ran: Ran) -> str:
    assert ran.code == 2
    assert ran.out == ""
    assert ran.err.startswith("analytics-migrate: ")
    assert ran.err.count("\n") == 1, ran.err
    assert ran.err.endswith("\n")
    assert "Traceback" not in ran.err
    return ran.err


def test_a_schema_from_nothing_to_done(empty_database: Database, command: Command) -> None:
    on = ("--database-url", empty_database.dsn)
    ran = command("status", *on)
    assert ran.code == 1
    assert ran.out.splitlines()[0] == f"{empty_database.version}, schema public"
    assert ran.out.splitlines()[1] == "  001_pre_a.sql   Make a table  pending"
    assert ran.out.splitlines()[-1].startswith("Steps pending: 2. Next: analytics-migrate all")

    ran = command("pre", *on)
    assert ran.code == 0
    assert ran.out.splitlines()[0] == f"{empty_database.version}, schema public"
    assert ran.out.splitlines()[1].startswith("  001_pre_a.sql  Make a table  ")
    assert ran.out.splitlines()[1].endswith(" ms")
    assert "then analytics-migrate post" in ran.out.splitlines()[-1]
    assert command("status", *on).code == 1

    ran = command("post", *on)
    assert (ran.code, ran.err) == (0, "")
    assert "Nothing is pending. Next: start the application" in ran.out
    ran = command("status", *on)
    assert ran.code == 0
    assert ran.out.splitlines()[-1] == "Nothing is pending."
    assert "applied 20" in ran.out
    assert command("all", *on).out.splitlines()[1].startswith("Nothing was pending.")


def test_a_dry_run_has_the_sql_alone_on_stdout(empty_database: Database, command: Command) -> None:
    ran = command("dry-run", "--database-url", empty_database.dsn)
    assert ran.code == 0
    assert "CREATE TABLE a (x int);" in ran.out
    assert "-- 002_post_b.sql: Make a view" in ran.out
    assert empty_database.version in ran.err
    assert command("status", "--database-url", empty_database.dsn).code == 1
    assert query(empty_database.dsn, "SELECT to_regclass('analytics_migrations')") is None


def test_json_is_one_document_for_every_command(empty_database: Database, command: Command) -> None:
    on = ("--json", "--database-url", empty_database.dsn)
    status = command(*on, "status").json
    assert [step["name"] for step in status["pending"]] == ["001_pre_a.sql", "002_post_b.sql"]
    assert "BEGIN;" in command(*on, "dry-run").json["sql"]
    done = command("all", *on).json
    assert (done["command"], done["ok"], done["flavour"]) == ("all", True, empty_database.flavour)
    assert done["database"] == empty_database.version
    assert done["applied"][0] == {
        "version": 1,
        "name": "001_pre_a.sql",
        "phase": "pre",
        "description": "Make a table",
        "applied_at": None,
        "duration_ms": done["applied"][0]["duration_ms"],
    }


async def test_refresh_names_each_range_that_it_brought_up_to_date(database: Database) -> None:
    connection = await database.connect()
    await connection.execute(
        "INSERT INTO analytics_events (id, timestamp, event_type, service, data) "
        "SELECT gen_random_uuid(), now() - interval '2 days', 'task_created', 'shop', '{}'"
    )
    first = await refresh_views(database.dsn)
    assert {"analytics_task_stats_daily", "analytics_user_days"} <= {one.view for one in first.refreshed}
    assert (await refresh_views(database.dsn)).refreshed == ()


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
    "order",
    ["{url} --schema s1 --json --wait 9 {c}", "{c} {url} --schema s1 --json --wait 9", "{url} --json {c} --schema s1"],
)
def test_options_stand_before_or_after_the_command(empty_database: Database, command: Command, order: str) -> None:
    url = f"--database-url {empty_database.dsn}"
    assert command(*order.format(url=url, c="all").split()).json["schema"] == "s1"
    ran = command(*order.format(url=url, c="status").split())
    assert (ran.code, ran.json["pending"]) == (0, [])
    assert command("--require-timescaledb", *url.split(), "status").code == (
        1 if empty_database.flavour == "timescaledb" else 2
    )


def test_the_url_comes_from_the_option_then_the_variables(
    empty_database: Database, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "give --database-url, or set DATABASE_URL or PLATFORM_DATABASE_URL" in one_line(command("all"))
    monkeypatch.setenv("PLATFORM_DATABASE_URL", empty_database.dsn)
    assert command("status").code == 1
    monkeypatch.setenv("DATABASE_URL", "")
    assert command("status").code == 1
    monkeypatch.setenv("DATABASE_URL", "mysql://somewhere")
    assert "DATABASE_URL: the database URL does not begin with postgresql://" in one_line(command("status"))
    assert command("status", "--database-url", empty_database.dsn).code == 1


def test_urls_of_other_drivers_are_accepted(empty_database: Database, command: Command) -> None:
    rest = empty_database.dsn.removeprefix("postgresql")
    for scheme in ("postgres", "postgresql+asyncpg", "postgresql+psycopg"):
        assert command("status", "--database-url", scheme + rest).code == 1


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


@pytest.mark.parametrize("empty_database", ["postgresql"], indirect=True)
def test_plain_postgresql_is_warned_about_once_and_refused_on_demand(
    empty_database: Database, command: Command
) -> None:
    on = ("--database-url", empty_database.dsn)
    assert "TimescaleDB is not installed on this server: install it" in one_line(
        command("all", "--require-timescaledb", *on)
    )
    ran = command("all", *on)
    assert ran.code == 0
    assert ran.err.count("\n") == 1
    assert ran.err.startswith("analytics-migrate: warning: TimescaleDB is not installed on this server: install it")
    assert command("all", *on).err == ""
    assert "is installed for plain PostgreSQL" in command("status", *on).out


def test_a_refresh_takes_times_and_shows_what_it_did(
    empty_database: Database, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    async def refresh(connection: Any, since: Any, until: Any) -> list[Refreshed]:
        asked.append((since, until, await connection.fetchval("SELECT current_schema()")))
        return [Refreshed("analytics_errors_hourly", since, until, 12.3)]

    monkeypatch.setattr("asgi_analytics.migrate.runner.refresh", refresh)
    on = ("--database-url", empty_database.dsn, "--schema", "s")
    assert "run analytics-migrate all first" in one_line(command("refresh", *on))
    assert command("all", *on).code == 0
    ran = command("refresh", *on, "--from", "2026-11-01", "--to", "2026-11-02T01:00:00+01:00")
    assert ran.code == 0
    assert [time.isoformat() for time in asked[0][:2]] == ["2026-11-01T00:00:00+00:00", "2026-11-02T01:00:00+01:00"]
    assert asked[0][2] == "s"
    assert "analytics_errors_hourly" in ran.out
    assert "12 ms" in ran.out
    [view] = command("refresh", *on, "--json").json["refreshed"]
    assert (view["view"], view["start"]) == ("analytics_errors_hourly", None)
    assert asked[1][:2] == (None, None)
    assert command("--from", "2026-11-01", "--to", "2026-11-02", "refresh", *on).code == 0
    assert "is not before" in one_line(command("--to", "2026-11-01", "refresh", *on, "--from", "2026-11-02"))
    assert "expected a time in ISO 8601" in one_line(command("refresh", *on, "--from", "yesterday"))
    assert "is not before" in one_line(command("refresh", *on, "--from", "2026-11-02", "--to", "2026-11-01"))


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
        (["all", "--schema", "", "--database-url", "postgresql://db/x"], "no name of a schema"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_one_line(command: Command, arguments: list[str], says: str) -> None:
    assert says in one_line(command(*arguments))


def test_help_names_commands_and_variables(capsys: pytest.CaptureFixture[str]) -> None:
    text = make_parser().format_help()
    for word in ("DATABASE_URL", "PLATFORM_DATABASE_URL", "--wait", "--require-timescaledb", *program.commands()):
        assert word in text
    with pytest.raises(SystemExit) as left:
        main(["refresh", "--help"])
    assert left.value.code == 0
    assert "UTC if it names no zone" in capsys.readouterr().out.replace("\n", " ").replace("  ", "")
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"analytics-migrate {__version__}\n"


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
    out, err = process.communicate(timeout=60)
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
