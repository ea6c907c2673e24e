"""analytics-migrate on SQLite: the steps, and the ways out of it: copy and drop."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from random import Random
from threading import Barrier
from uuid import UUID

import pytest

from asgi_analytics import AnalyticsClient, events
from asgi_analytics.admin.dashboard import set_dashboard_metric, update_realtime_metric
from asgi_analytics.cli.migrate import main
from asgi_analytics.database.sqlite.connection import open_connection
from asgi_analytics.database.sqlite.url import SqliteUrl, read_sqlite_url
from asgi_analytics.errors import ConfigError, MigrationError
from asgi_analytics.migrate.copy import copy
from asgi_analytics.migrate.drop import drop
from asgi_analytics.migrate.plan import ChangedFile, PreFirst
from asgi_analytics.migrate.runner import dry_run, migrate, status
from asgi_analytics.migrate.sqlite import SqliteStepFailed
from asgi_analytics.sinks.timescale import TimescaleSink
from tests.kit.databases import Database
from tests.kit.sqlite import SqliteDatabase
from tests.schema.happenings import DAY, now, some_events


@pytest.fixture
def file(tmp_path: Path) -> SqliteDatabase:
    return SqliteDatabase(tmp_path / "analytics.db")


def schema_of(path: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()


async def test_pre_then_post_is_all(file: SqliteDatabase, tmp_path: Path) -> None:
    assert not (await status(file.url)).applied
    assert not file.path.exists(), "to look changes nothing"
    with pytest.raises(PreFirst):
        await migrate(file.url, phase="post")
    assert not file.path.exists()
    report = await migrate(file.url, phase="pre")
    assert (report.flavour, report.schema) == ("sqlite", "main")
    assert {step.phase for step in report.pending} == {"post"}
    await file.insert(some_events(Random(1), 20, now() - DAY, now()))  # between the two
    assert not (await migrate(file.url, phase="post")).pending
    other = SqliteDatabase(tmp_path / "other.db")
    await migrate(other.url)
    assert schema_of(other.path) == schema_of(file.path)
    assert (await migrate(file.url)).applied == ()
    assert len((await status(file.url)).applied) == len(report.applied) + len(report.pending)
    assert file.execute("PRAGMA journal_mode") == [("wal",)]
    assert await file.refresh(), "what was stored before the aggregates is in them"


async def test_the_script_of_a_dry_run_makes_the_same(file: SqliteDatabase, tmp_path: Path) -> None:
    script = (await dry_run(file.url)).sql
    assert script is not None
    assert not file.path.exists()
    with closing(sqlite3.connect(tmp_path / "by-hand.db")) as connection:
        connection.executescript(script)
    await file.migrate()
    assert schema_of(tmp_path / "by-hand.db") == schema_of(file.path)
    assert (await migrate(f"sqlite:///{tmp_path}/by-hand.db")).applied == ()


async def test_runs_at_the_same_time_apply_each_step_once(file: SqliteDatabase) -> None:
    reports = await asyncio.gather(*(migrate(file.url) for _ in range(3)))
    names = [step.name for report in reports for step in report.applied]
    assert len(names) == len(set(names)) == len((await status(file.url)).applied)


def test_a_file_that_many_open_for_the_first_time_at_once_is_opened_by_all(tmp_path: Path) -> None:
    """SQLite waits for nobody while it gives the file its log: without a wait of ours one round in thirteen failed."""
    for number in range(150):
        url, together = read_sqlite_url(f"sqlite:///{tmp_path}/{number}.db"), Barrier(8)

        def opened(url: SqliteUrl = url, together: Barrier = together) -> str:
            together.wait()
            with closing(open_connection(url, "rwc", busy_seconds=30)) as connection:
                return str(connection.execute("PRAGMA journal_mode").fetchone()[0])

        with ThreadPoolExecutor(8) as threads:
            assert {made.result() for made in [threads.submit(opened) for _ in range(8)]} == {"wal"}


async def test_a_step_that_fails_keeps_nothing_and_names_its_line(file: SqliteDatabase, tmp_path: Path) -> None:
    folder = tmp_path / "steps"
    folder.mkdir()
    (folder / "001_pre_good.sql").write_text("-- Good\nCREATE TABLE good (id);")
    (folder / "002_pre_bad.sql").write_text("-- Bad\nCREATE TABLE half (id);\nCREATE TABLE good (id);")
    with pytest.raises(SqliteStepFailed, match=r"002_pre_bad\.sql, line 3.*already exists"):
        await migrate(file.url, folder=folder)
    names = [name for name, _ in schema_of(file.path)]
    assert "good" in names
    assert "half" not in names
    (folder / "001_pre_good.sql").write_text("-- Good\nCREATE TABLE better (id);")
    with pytest.raises(ChangedFile):
        await migrate(file.url, folder=folder)


@pytest.mark.parametrize(
    ("options", "problem"), [({"schema": "x"}, "no schemas"), ({"require_timescaledb": True}, "not TimescaleDB")]
)
async def test_what_sqlite_does_not_have_is_refused(file: SqliteDatabase, options: dict, problem: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ConfigError, match=problem):
        await migrate(file.url, **options)
    with pytest.raises(MigrationError, match="no folder"):
        await migrate(f"sqlite:///{file.path.parent}/missing/a.db")


def test_the_command_line_takes_the_url(
    file: SqliteDatabase, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", file.url)
    assert main(["retention"]) == 2
    assert "has no tables yet: run analytics-migrate all first" in capsys.readouterr().err
    assert [main([command]) for command in ("status", "all", "status", "refresh")] == [1, 0, 0, 0]
    assert "Nothing is pending" in capsys.readouterr().out
    assert main(["retention", "--set", "system=7", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["flavour"], report["changed"], report["drops"]) == ("sqlite", True, 0)
    assert [(one["category"], one["days"]) for one in report["categories"]][:2] == [("system", 7), ("interaction", 365)]
    assert main(["retention", "--set", "system=0"]) == 2
    assert "use a whole number from 1" in capsys.readouterr().err
    assert main(["roles"]) == 2
    assert "SQLite has no roles" in capsys.readouterr().err
    assert main(["drop"]) == 2
    assert "give --yes" in capsys.readouterr().err
    assert file.path.exists()
    assert main(["drop", "--yes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["flavour"] == "sqlite"
    assert not file.path.exists()


async def test_numbers_of_dashboards(file: SqliteDatabase) -> None:
    await file.migrate()
    for value in (4, 5):
        await set_dashboard_metric(file.url, "w", "k", value)
    await update_realtime_metric(file.url, "now", {"a": 1}, "day", 3600)
    await update_realtime_metric(file.url, "gone", 1, "day", 0.001)
    rows = [row for row in file.rows("analytics_dashboard_metrics") if row["widget_id"] == "w"]
    assert [(row["value"], row["previous_value"], row["change_percent"]) for row in rows] == [(5.0, 4.0, 25.0)]
    await file.refresh()
    assert [row["metric_key"] for row in file.rows("analytics_metrics_realtime")] == ["now"]


# -- out of it


async def test_drop_leaves_what_is_not_ours(file: SqliteDatabase) -> None:
    with pytest.raises(MigrationError):
        await drop(file.url, yes=True)
    await file.migrate()
    file.execute("CREATE TABLE orders (id INTEGER)")
    with pytest.raises(ConfigError, match="--yes"):
        await drop(file.url, yes=False)
    await drop(file.url, yes=True)
    assert [name for name, _ in schema_of(file.path)] == ["orders"]
    await file.migrate()


async def test_drop_on_postgresql_leaves_what_is_not_ours(database: Database) -> None:
    connection = await database.connect()
    await connection.execute("CREATE TABLE orders (id int); CREATE TABLE analytics_reports_of_mine (id int)")
    await connection.execute("CREATE VIEW mine AS SELECT count(*) FROM analytics_events")
    await connection.execute("CREATE FUNCTION analytics_function_of_mine() RETURNS int LANGUAGE sql RETURN 1")
    with pytest.raises(ConfigError, match="--yes"):
        await drop(database.dsn, yes=False)
    with pytest.raises(MigrationError, match="mine"):
        await drop(database.dsn, yes=True)
    assert await connection.fetchval("SELECT count(*) FROM analytics_migrations") > 0
    await connection.execute("DROP VIEW mine")
    report = await drop(database.dsn, yes=True)
    assert "table analytics_events" in report.dropped
    left = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v', 'm', 'p')"
        " AND relname NOT LIKE 'pg_%' UNION ALL SELECT proname FROM pg_proc"
        " WHERE pronamespace = 'public'::regnamespace AND proname LIKE 'analytics%'"
    )
    assert sorted(row[0] for row in left) == ["analytics_function_of_mine", "analytics_reports_of_mine", "orders"]
    if database.flavour == "timescaledb":
        jobs = (
            "SELECT count(*) FROM timescaledb_information.jobs"
            " WHERE proc_name LIKE 'analytics%' OR hypertable_name LIKE 'analytics%'"
        )
        assert await connection.fetchval(jobs) == 0
    await connection.close()
    assert (await migrate(database.dsn)).applied


def as_json(text: str | None) -> object:
    """Read JSON; PostgreSQL writes 1e200 with all its zeros."""
    return json.loads(text or "null", parse_int=float)


async def test_copy_is_gap_free_and_goes_on(
    database: Database, file: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    await file.migrate()
    client = AnalyticsClient.from_url(file.url, service="shop", strict=True)
    client.metrics.histogram("h", 3.5, a=1)
    client.metrics.counter("c", 2)
    client.track(events.identify(5, role="admin"))
    assert client.close(30)
    happened = some_events(Random(2), 700, now() - 20 * DAY, now())
    await file.insert(happened)
    file.execute("INSERT INTO funnels (id, name, steps) VALUES (?, 'f', '[]')", str(UUID(int=7)))
    file.execute(
        "INSERT INTO analytics_dead_letters (id, reason, payload) VALUES (?, 'check_violation', '{}')", str(UUID(int=8))
    )
    await set_dashboard_metric(file.url, "w", "k", 5)
    file.execute("INSERT INTO analytics_event_types (event_type, category) VALUES ('my_own', 'transaction')")
    monkeypatch.setattr("asgi_analytics.migrate.copy.BATCH", 100)

    write = TimescaleSink.write
    number = 0

    async def interrupted(sink: TimescaleSink, batch: list[bytes]) -> object:
        nonlocal number
        number += 1
        receipt = await write(sink, batch)
        if number == 3:
            raise OSError("the machine was switched off after the commit")
        return receipt

    monkeypatch.setattr(TimescaleSink, "write", interrupted)
    with pytest.raises(Exception, match="switched off"):
        await copy(file.url, database.dsn)
    # Those that come late, and with numbers of rows that were deleted, are not passed over.
    last = file.execute("SELECT id FROM analytics_events ORDER BY number DESC LIMIT 5")
    for (id_,) in last:
        file.execute("DELETE FROM analytics_events WHERE id = ?", id_)
    await file.insert(some_events(Random(3), 50, now() - 20 * DAY, now() - 19 * DAY))
    file.execute("VACUUM")
    report = await copy(file.url, database.dsn)
    assert report.known == 100
    await file.insert(some_events(Random(4), 30, now() - 5 * DAY, now()))
    again = await copy(file.url, database.dsn)
    assert (again.events, again.known, again.rejected, again.metrics) == (30, 0, 0, 0)

    connection = await database.connect()
    theirs = await connection.fetch(
        "SELECT id, timestamp, event_type, service, user_id, data::text, context::text FROM analytics_events"
    )
    mine = {row["id"]: row for row in file.rows("analytics_events")}
    assert {row["id"] for row in theirs} == set(mine)
    for row in theirs:
        for name in ("timestamp", "event_type", "service", "user_id"):
            assert row[name] == mine[row["id"]][name]
        for name in ("data", "context"):
            assert as_json(row[name]) == as_json(mine[row["id"]][name])
    metrics = await connection.fetch("SELECT name, sum, bins, tags::text FROM analytics_metrics ORDER BY name")
    assert [(row["name"], row["sum"]) for row in metrics] == [("c", 2.0), ("h", 3.5)]
    assert metrics[1]["bins"] == [20_000 + 32]
    assert await connection.fetchval("SELECT role FROM analytics_user_traits") == "admin"
    assert await connection.fetchval("SELECT conversion_window FROM analytics_funnels") == timedelta(days=14)
    assert await connection.fetchval("SELECT reason FROM analytics_dead_letters") == "check_violation"
    assert await connection.fetchval("SELECT value FROM analytics_dashboard_values") == 5.0
    own = "SELECT category FROM analytics_event_types WHERE event_type = 'my_own'"
    assert await connection.fetchval(own) == "transaction"


async def test_copy_says_what_is_wrong(file: SqliteDatabase) -> None:
    with pytest.raises(ConfigError, match="--from"):
        await copy("postgresql://a/b", "postgresql://a/c")
    with pytest.raises(ConfigError, match="--to"):
        await copy(file.url, file.url)
    with pytest.raises(MigrationError, match="copied stays"):
        await copy(file.url, "postgresql://nobody@127.0.0.1:1/x")
