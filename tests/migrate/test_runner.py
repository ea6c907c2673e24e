"""The runner on real databases: each step once, whole or not at all, and never two runs at a time."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from asgi_analytics import __version__
from asgi_analytics.database.connection import NoConnection
from asgi_analytics.errors import ConfigError, MigrationError
from asgi_analytics.migrate.lock import LockNotHad, key
from asgi_analytics.migrate.plan import ChangedFile, MissingFile, OutOfOrder, PreFirst
from asgi_analytics.migrate.runner import StepFailed, dry_run, migrate, status
from tests.kit.databases import TIME_ZONE, Database
from tests.kit.proxy import Proxy

OWN = {"timescaledb": "004_post_hyper.sql", "postgresql": "005_post_plain.sql"}


def names(steps: object) -> list[str]:
    return [step.name for step in steps]  # type: ignore[attr-defined]


async def test_all_applies_every_step_once_and_notes_it(empty_database: Database, folder: Path) -> None:
    report = await migrate(empty_database.dsn, folder=folder)
    expected = ["001_pre_events.sql", "003_pre_rows.sql", "002_post_view.sql", OWN[empty_database.flavour]]
    assert names(report.applied) == expected
    assert report.pending == ()
    assert (report.flavour, report.schema) == (empty_database.flavour, "public")
    assert report.database == empty_database.version

    again = await migrate(empty_database.dsn, folder=folder)
    assert again.applied == ()

    connection = await empty_database.connect()
    rows = await connection.fetch("SELECT * FROM analytics_migrations ORDER BY applied_at")
    assert list(rows[0].keys()) == [
        "version", "name", "phase", "checksum", "applied_at", "duration_ms", "library_version",
    ]  # fmt: skip
    assert [row["name"] for row in rows] == expected
    assert {row["library_version"] for row in rows} == {__version__}
    assert all(row["duration_ms"] > 0 for row in rows)
    assert await connection.fetchval("SELECT n FROM seen") == 2


async def test_pre_then_post(empty_database: Database, folder: Path) -> None:
    with pytest.raises(PreFirst, match="run analytics-migrate pre first"):
        await migrate(empty_database.dsn, phase="post", folder=folder)
    connection = await empty_database.connect()
    assert await connection.fetchval("SELECT count(*) FROM pg_extension") == 1, "a refused run created an extension"

    pre = await migrate(empty_database.dsn, phase="pre", folder=folder)
    assert names(pre.applied) == ["001_pre_events.sql", "003_pre_rows.sql"]
    assert names(pre.pending) == ["002_post_view.sql", OWN[empty_database.flavour]]
    post = await migrate(empty_database.dsn, phase="post", folder=folder)
    assert names(post.applied) == names(pre.pending)
    assert post.pending == ()


async def test_concurrent_runs_apply_each_step_once(empty_database: Database, folder_of: Callable[..., Path]) -> None:
    steps = {f"{n:03}_pre_a.sql": f"-- A\nCREATE TABLE t{n} (x int); SELECT pg_sleep(0.02);" for n in range(1, 5)}
    folder = folder_of(steps)
    reports = await asyncio.gather(*(migrate(empty_database.dsn, folder=folder, schema="new") for _ in range(6)))
    assert sorted(len(report.applied) for report in reports) == [0, 0, 0, 0, 0, 4]


async def test_concurrent_runs_in_two_schemas_create_one_extension(empty_database: Database, folder: Path) -> None:
    reports = await asyncio.gather(
        *(migrate(empty_database.dsn, folder=folder, schema=name) for name in ("one", "two", "three"))
    )
    assert {report.flavour for report in reports} == {empty_database.flavour}
    assert [len(report.applied) for report in reports] == [4, 4, 4]


async def test_open_connections_that_race_for_the_extension_are_left_outside_a_transaction(
    empty_database: Database, folder: Path
) -> None:
    connections = [await empty_database.connect() for _ in range(3)]
    reports = await asyncio.gather(
        *(migrate(connection, folder=folder, schema=f"s{n}") for n, connection in enumerate(connections))
    )
    assert {report.flavour for report in reports} == {empty_database.flavour}
    assert not any(connection.is_in_transaction() for connection in connections)


async def test_an_index_is_made_concurrently_while_another_run_waits(
    empty_database: Database, folder_of: Callable[..., Path]
) -> None:
    steps = {
        "001_pre_a.sql": "-- A\nCREATE TABLE a (x int);\nSELECT pg_sleep(0.3);",
        "002_pre_b.sql": "-- B\n-- transaction: no\nCREATE INDEX CONCURRENTLY IF NOT EXISTS i ON a (x);",
    }
    folder = folder_of(steps)
    reports = await asyncio.gather(*(migrate(empty_database.dsn, folder=folder) for _ in range(3)))
    assert sorted(len(report.applied) for report in reports) == [0, 0, 2]


async def test_a_failing_step_leaves_nothing_and_can_be_run_again(
    empty_database: Database, folder_of: Callable[..., Path]
) -> None:
    broken = {
        "001_pre_a.sql": "-- A\nCREATE TABLE a (x int);",
        "002_pre_b.sql": "-- B\n\nCREATE TABLE b (x int);\n\n-- it fails\nSELECT 1\n  / 0;\nSELECT 1;",
    }
    with pytest.raises(StepFailed) as caught:
        await migrate(empty_database.dsn, folder=folder_of(broken))
    text = str(caught.value)
    assert text.startswith("002_pre_b.sql, line 6, 'SELECT 1': division by zero (22012); nothing of this file is kept")
    assert "\n" not in text
    assert caught.value.file == "002_pre_b.sql"
    assert names(caught.value.applied) == ["001_pre_a.sql"]
    connection = await empty_database.connect()
    assert await connection.fetchval("SELECT to_regclass('b')") is None
    assert await connection.fetchval("SELECT count(*) FROM analytics_migrations") == 1

    mended = folder_of({**broken, "002_pre_b.sql": "-- B\nCREATE TABLE b (x int);"}, "mended")
    report = await migrate(empty_database.dsn, folder=mended)
    assert names(report.applied) == ["002_pre_b.sql"]


async def test_a_step_without_transaction_runs_each_statement_alone_and_again_after_a_failure(
    empty_database: Database, folder_of: Callable[..., Path]
) -> None:
    sql = "-- A\n-- transaction: no\nCREATE TABLE IF NOT EXISTS a (x int)\n-- next\nVACUUM a\n-- next\nSELECT * FROM b;"
    folder = folder_of({"001_pre_a.sql": sql})
    with pytest.raises(StepFailed, match=r"001_pre_a\.sql, line 7, .* what ran before it in this file is kept"):
        await migrate(empty_database.dsn, folder=folder)
    connection = await empty_database.connect()
    assert await connection.fetchval("SELECT count(*) FROM analytics_migrations") == 0
    await connection.execute("CREATE TABLE b (x int)")
    assert names((await migrate(empty_database.dsn, folder=folder)).applied) == ["001_pre_a.sql"]


async def test_drift_is_refused_and_nothing_is_run(empty_database: Database, folder: Path) -> None:
    await migrate(empty_database.dsn, phase="pre", folder=folder)
    file, late = folder / "001_pre_events.sql", folder / "000_pre_late.sql"
    original = file.read_text()
    for run in (migrate, status, dry_run):
        file.write_text(original + "-- more\n")
        with pytest.raises(ChangedFile, match=r"001_pre_events\.sql"):
            await run(empty_database.dsn, folder=folder)
        file.unlink()
        with pytest.raises(MissingFile, match=r"001_pre_events\.sql"):
            await run(empty_database.dsn, folder=folder)
        file.write_bytes(original.replace("\n", "\r\n").encode())
        late.write_text("-- Late\nSELECT 1;")
        with pytest.raises(OutOfOrder, match=r"000_pre_late\.sql"):
            await run(empty_database.dsn, folder=folder)
        late.unlink()
        file.write_text(original)
    connection = await empty_database.connect()
    assert await connection.fetchval("SELECT count(*) FROM analytics_migrations") == 2


async def test_a_schema_of_any_name_is_made_and_holds_all(empty_database: Database, folder: Path) -> None:
    report = await migrate(empty_database.dsn, folder=folder, schema='Ours "x"; DROP')
    assert report.schema == 'Ours "x"; DROP'
    connection = await empty_database.connect()
    sql = "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace($1) AND relkind IN ('r', 'v') ORDER BY 1"
    made = [row[0] for row in await connection.fetch(sql, '"Ours ""x""; DROP"')]
    assert made == ["analytics_migrations", "h", "seen", "things"]
    assert (await status(empty_database.dsn, folder=folder)).pending, "another schema is another installation"
    assert not (await status(empty_database.dsn, folder=folder, schema='Ours "x"; DROP')).pending


async def test_an_installation_in_public_is_not_seen_from_another_schema(
    empty_database: Database, folder: Path
) -> None:
    await migrate(empty_database.dsn, folder=folder)
    assert len((await migrate(empty_database.dsn, folder=folder, schema="second")).applied) == 4


@pytest.mark.parametrize("schema", ["", "x" * 64, "a\0b"])
async def test_what_is_no_schema_is_refused(empty_database: Database, folder: Path, schema: str) -> None:
    with pytest.raises(ConfigError, match="cannot be the name of a schema"):
        await migrate(empty_database.dsn, folder=folder, schema=schema)


async def test_an_open_connection_is_used_and_gets_its_settings_back(empty_database: Database, folder: Path) -> None:
    connection = await empty_database.connect()
    await connection.execute("SET search_path TO public; SET statement_timeout TO '7s'")
    report = await migrate(connection, folder=folder)
    assert len(report.applied) == 4
    assert report.flavour == empty_database.flavour
    assert await connection.fetchval("SHOW search_path") == "public"
    assert await connection.fetchval("SHOW statement_timeout") == "7s"
    assert await connection.fetchval("SHOW timezone") == TIME_ZONE
    assert await connection.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0


async def test_a_connection_inside_a_transaction_is_refused(empty_database: Database, folder: Path) -> None:
    connection = await empty_database.connect()
    async with connection.transaction():
        with pytest.raises(ConfigError, match="inside a transaction"):
            await migrate(connection, folder=folder)


async def test_days_in_a_file_are_utc_whatever_the_server_says(
    empty_database: Database, folder_of: Callable[..., Path]
) -> None:
    sql = "-- A\nCREATE TABLE a AS SELECT '2026-11-20'::timestamptz AS day;"
    await migrate(empty_database.dsn, folder=folder_of({"001_pre_a.sql": sql}))
    connection = await empty_database.connect()
    assert str(await connection.fetchval("SELECT day FROM a")) == "2026-11-20 00:00:00+00:00"


async def test_status_tells_what_is_applied_and_pending_and_changes_nothing(
    empty_database: Database, folder: Path
) -> None:
    connection = await empty_database.connect()
    everything = "SELECT count(*), max(oid::bigint) FROM pg_class"
    before = await connection.fetchrow(everything)
    report = await status(empty_database.dsn, folder=folder, schema="nowhere")
    assert report.applied == ()
    assert len(report.pending) == 4
    assert report.flavour == empty_database.flavour
    assert await connection.fetchrow(everything) == before
    assert await connection.fetchval("SELECT to_regnamespace('nowhere')") is None

    await migrate(empty_database.dsn, folder=folder, phase="pre")
    report = await status(empty_database.dsn, folder=folder)
    assert names(report.applied) == ["001_pre_events.sql", "003_pre_rows.sql"]
    assert all(step.applied_at and step.duration_ms for step in report.applied)
    assert names(report.pending) == ["002_post_view.sql", OWN[empty_database.flavour]]


async def test_a_dry_run_changes_nothing_and_its_script_does_what_the_run_does(
    empty_database: Database, folder: Path
) -> None:
    connection = await empty_database.connect()
    report = await dry_run(empty_database.dsn, folder=folder, schema="Ours")
    assert await connection.fetchval("SELECT to_regnamespace('\"Ours\"')") is None
    assert await connection.fetchval("SELECT count(*) FROM pg_extension") == 1
    assert report.sql is not None
    for name in names(report.pending):
        assert f"-- {name}: " in report.sql
    done = subprocess.run(
        [empty_database.psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", empty_database.dsn],
        input=report.sql, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    after = await status(empty_database.dsn, folder=folder, schema="Ours")
    assert after.pending == ()
    assert after.flavour == empty_database.flavour
    assert (await dry_run(empty_database.dsn, folder=folder, schema="Ours")).sql == ""


async def test_a_run_waits_for_another_as_long_as_it_takes(empty_database: Database, folder: Path) -> None:
    holder = await empty_database.connect()
    await holder.execute("SELECT pg_advisory_lock($1)", key("public"))
    told: list[str] = []
    waiting = asyncio.ensure_future(migrate(empty_database.dsn, folder=folder, tell=told.append))
    while not told:
        await asyncio.sleep(0.01)
    assert f"(server process {holder.get_server_pid()}); waiting for it" in told[0]
    assert not waiting.done()
    await holder.execute("SELECT pg_advisory_unlock($1)", key("public"))
    assert len((await waiting).applied) == 4
    assert len(told) == 1


@pytest.mark.parametrize("seconds", [0, 0.2])
async def test_a_run_gives_up_the_lock_in_time(empty_database: Database, folder: Path, seconds: float) -> None:
    holder = await empty_database.connect()
    await holder.execute("SELECT pg_advisory_lock($1)", key("public"))
    with pytest.raises(LockNotHad, match=rf"server process {holder.get_server_pid()}.*--wait"):
        await migrate(empty_database.dsn, folder=folder, wait=seconds)
    assert (await status(empty_database.dsn, folder=folder, wait=seconds)).pending, "looking needs no lock"


KILLED = """
import asyncio, pathlib, sys
from asgi_analytics.migrate.runner import migrate
asyncio.run(migrate(sys.argv[1], folder=pathlib.Path(sys.argv[2])))
"""


async def test_a_killed_run_leaves_no_lock_and_no_half_of_a_step(
    empty_database: Database, folder_of: Callable[..., Path]
) -> None:
    sleeper = folder_of({"001_pre_a.sql": "-- A\nCREATE TABLE a (x int);\nSELECT pg_sleep(600);"})
    process = subprocess.Popen([sys.executable, "-c", KILLED, empty_database.dsn, str(sleeper)])
    connection = await empty_database.connect()
    while not await connection.fetchval("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)'"):
        assert process.poll() is None
        await asyncio.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    quick = folder_of({"001_pre_a.sql": "-- A\nCREATE TABLE a (x int);"}, "quick")
    report = await migrate(empty_database.dsn, folder=quick, wait=60)
    assert names(report.applied) == ["001_pre_a.sql"]


async def test_a_cancelled_run_rolls_back_and_leaves_no_lock(
    empty_database: Database, folder_of: Callable[..., Path]
) -> None:
    sleeper = folder_of({"001_pre_a.sql": "-- A\nCREATE TABLE a (x int);\nSELECT pg_sleep(600);"})
    connection = await empty_database.connect()
    run = asyncio.ensure_future(migrate(empty_database.dsn, folder=sleeper))
    while not await connection.fetchval("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)'"):
        await asyncio.sleep(0.02)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert await connection.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0
    assert await connection.fetchval("SELECT to_regclass('a')") is None


async def test_a_connection_that_breaks_in_a_step_is_said_in_one_line(
    empty_database: Database, folder_of: Callable[..., Path], make_proxy: Callable[..., Proxy]
) -> None:
    proxy = make_proxy(empty_database)
    folder = folder_of({"001_pre_a.sql": "-- A\nCREATE TABLE a (x int);"})
    proxy.lose_answer(b"CREATE TABLE\0")
    with pytest.raises(MigrationError) as caught:
        await migrate(proxy.dsn, folder=folder)
    assert "run again" in str(caught.value) or "run this again" in str(caught.value)
    assert len((await migrate(empty_database.dsn, folder=folder, wait=30)).applied) == 1


async def test_a_server_that_says_nothing_is_given_up(
    empty_database: Database, folder: Path, make_proxy: Callable[..., Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asgi_analytics.database.connection.ANSWER_WITHIN", 0.2)
    proxy = make_proxy(empty_database)
    proxy.stall()
    with pytest.raises(NoConnection, match=r"no answer from .* in time"):
        await migrate(proxy.dsn, folder=folder)


async def test_a_server_that_comes_later_is_waited_for(
    empty_database: Database, folder: Path, make_proxy: Callable[..., Proxy]
) -> None:
    proxy = make_proxy(empty_database)
    proxy.refuse()
    with pytest.raises(NoConnection, match="no server answers"):
        await migrate(proxy.dsn, folder=folder)
    with pytest.raises(NoConnection, match="no server answers"):
        await migrate(proxy.dsn, folder=folder, wait=0)
    with pytest.raises(NoConnection, match="no server answers"):
        await migrate(proxy.dsn, folder=folder, wait=0.3)
    told: list[str] = []

    def come(text: str) -> None:
        told.append(text)
        proxy.accept()

    report = await migrate(proxy.dsn, folder=folder, wait=60, tell=come)
    assert len(report.applied) == 4
    assert told == [f"no server yet for database \"{empty_database.name}\" on 127.0.0.1:{proxy.port} as "
                    '"postgres"; waiting for it']  # fmt: skip


async def test_an_owner_who_is_no_superuser_migrates(empty_database: Database, folder: Path) -> None:
    admin = await empty_database.connect()
    owner = f"owner_of_{empty_database.name}"
    await admin.execute(f"CREATE ROLE {owner} LOGIN PASSWORD 'secret'")
    try:
        await admin.execute(f'ALTER DATABASE "{empty_database.name}" OWNER TO {owner}')
        dsn = empty_database.cluster.dsn(empty_database.name, user=owner, password="secret")
        report = await migrate(dsn, folder=folder)
        assert (report.flavour, report.warnings == ()) == (empty_database.flavour, report.flavour == "timescaledb")
        assert len(report.applied) == 4
        report = await migrate(dsn, folder=folder, schema="own")
        assert len(report.applied) == 4
    finally:
        await empty_database.close()
        await asyncio.to_thread(empty_database.cluster.drop, empty_database.name)
        connection = await asyncpg.connect(empty_database.cluster.dsn())
        await connection.execute(f"DROP ROLE {owner}")
        await connection.close()
