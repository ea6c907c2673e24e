"""The roles of `analytics-migrate roles`: a writer that can insert and nothing else, a reader that can only read."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from datetime import timedelta
from random import Random
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from asgi_analytics import AnalyticsClient, TimescaleSink, events
from asgi_analytics.admin import roles as module
from asgi_analytics.admin.roles import RolesReport, make_roles
from asgi_analytics.errors import AnalyticsError, ConfigError, MigrationError, OperatorError
from asgi_analytics.migrate.files import find_migrations
from asgi_analytics.migrate.runner import dry_run, migrate, refresh_views, status
from tests.faults.balance import assert_balanced, assert_stored
from tests.kit.databases import Database
from tests.kit.fakes import eventually
from tests.schema.happenings import DAY, VIEWS, happened, midnight, now
from tests.sinks.contract import ids, line
from tests.sinks.test_poison import POISON, with_timestamp

QUANTILE = "SELECT analytics_latency_quantile(0.5, now() - interval '9 days', now())"
ON = ("analytics_events", "analytics_dead_letters")
EVERY_ROLE = "SELECT rolname FROM pg_roles ORDER BY rolname"
RIGHTS = """
SELECT c.relname, coalesce(a.attname, '') AS attname, coalesce(c.relacl::text, '') AS rights,
       coalesce(a.attacl::text, '') AS of_column
FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
WHERE (c.relacl IS NOT NULL OR a.attacl IS NOT NULL) AND c.relname LIKE 'analytics%' ORDER BY 1, 2
"""


class Roles:
    """A writer and a reader of this test's own, and a login role that is a member of each."""

    def __init__(self, database: Database, admin: asyncpg.Connection) -> None:
        self.database = database
        self.admin = admin
        self.writer, self.reader = f"writer_{database.name}", f"reader_{database.name}"
        self.made: list[str] = [self.writer, self.reader]

    async def make(self, **options: Any) -> RolesReport:
        return await make_roles(self.database.dsn, **{"writer": self.writer, "reader": self.reader, **options})

    async def login(self, name: str, *, member_of: str | None = None, **settings: str) -> str:
        """Make a login role, and return its URL."""
        role = f"{name}_{self.database.name}"
        self.made.append(role)
        await self.admin.execute(f"CREATE ROLE \"{role}\" LOGIN PASSWORD 'pass'")
        if member_of is not None:
            await self.admin.execute(f'GRANT "{member_of}" TO "{role}"')
        return self.database.cluster.dsn(self.database.name, role, "pass")

    async def drop(self) -> None:
        known = {row["rolname"] for row in await self.admin.fetch(EVERY_ROLE)}
        for role in [role for role in self.made if role in known]:
            name = role.replace('"', '""')
            await self.admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", role)
            await self.admin.execute(f'REASSIGN OWNED BY "{name}" TO CURRENT_USER; DROP OWNED BY "{name}"')
        for role in [role for role in self.made if role in known]:
            await self.admin.execute('DROP ROLE "{}"'.format(role.replace('"', '""')))


@pytest.fixture
async def roles(database: Database) -> AsyncIterator[Roles]:
    roles = Roles(database, await database.connect())
    yield roles
    await roles.drop()


@pytest.fixture
async def writer_dsn(roles: Roles) -> str:
    """Give the URL of a login role that is a member of the writer."""
    await roles.make()
    return await roles.login("application", member_of=roles.writer)


@pytest.fixture
async def reader_dsn(roles: Roles) -> str:
    """Give the URL of a login role that is a member of the reader."""
    await roles.make()
    return await roles.login("analyst", member_of=roles.reader)


async def stored(connection: asyncpg.Connection, table: str = "analytics_events") -> list[UUID]:
    return [row["id"] for row in await connection.fetch(f"SELECT id FROM {table} ORDER BY id")]


async def refused(connection: asyncpg.Connection, statement: str) -> None:
    """Fail unless the server says that the right is missing."""
    try:
        await connection.execute(statement)
    except asyncpg.InsufficientPrivilegeError:
        if connection.is_in_transaction():
            await connection.execute("ROLLBACK")
        return
    except asyncpg.PostgresError as error:
        raise AssertionError(f"{statement}: {type(error).__name__}: {error}") from error
    raise AssertionError(f"{statement}: it was done")


async def psql(database: Database, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script as somebody would who got it from a dry run."""
    return await asyncio.to_thread(
        subprocess.run,
        [database.psql, "-X", "-v", "ON_ERROR_STOP=1", "-d", database.dsn],
        input=script,
        text=True,
        capture_output=True,
        check=False,
    )


@pytest.mark.parametrize("careful", [0.0, 60.0])
async def test_the_writer_can_do_all_that_the_sink_does(
    roles: Roles, writer_dsn: str, careful: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asgi_analytics.sinks.timescale.CAREFUL_SECONDS", careful)
    sink = TimescaleSink(writer_dsn)
    await sink.ready()
    good = [line("a"), line("b"), line("c")]
    assert (await sink.write(good)).duplicates == 0
    assert (await sink.write([*good, good[0]])).duplicates == 4
    late = with_timestamp((now() - 20 * DAY).isoformat(), "late")
    bad = [make() for make, _, _ in POISON.values()]
    receipt = await sink.write([*bad, late, good[1]])
    assert receipt.duplicates == 1
    assert [one.index for one in receipt.rejected] == list(range(len(bad)))
    again = await sink.write([*bad, late])
    assert (again.duplicates, len(again.rejected)) == (1, len(bad))
    assert await stored(roles.admin) == ids([*good, late])
    assert len(await stored(roles.admin, "analytics_dead_letters")) == len(bad)
    await sink.upkeep()
    await sink.aclose()


async def test_a_running_application_whose_rights_were_taken_stores_everything_once_they_are_back(
    roles: Roles, writer_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asgi_analytics.worker.worker.OPERATOR_BACKOFF", 0.05)
    monkeypatch.setattr("asgi_analytics.worker.worker.LAST_OPERATOR_BACKOFF", 0.1)
    client = AnalyticsClient.from_url(writer_dsn, service="shop", flush_interval=0.05, strict=True)
    task = UUID(int=7)
    tracked = 0

    def track() -> int:
        for _ in range(50):
            client.track(events.TaskStarted(task_id=task, user_id="ada"))
        return tracked + 50

    tracked = track()
    assert await client.aflush(20)
    await roles.admin.execute(f'REVOKE ALL ON analytics_events FROM "{roles.writer}"')
    tracked = track()
    await eventually(lambda: client.stats().retries >= 2)
    assert "analytics-migrate roles" in str(client.stats().last_error)
    assert_balanced(client.stats())
    await roles.make()
    assert await client.aclose(20)
    stats = client.stats()
    assert (stats.accepted, stats.stored, stats.rejected) == (tracked, tracked, {})
    await assert_stored(client, roles.database, await stored(roles.admin))
    assert len(await stored(roles.admin)) == tracked == 100


async def test_the_writer_can_do_nothing_else(roles: Roles, writer_dsn: str) -> None:
    sink = TimescaleSink(writer_dsn)
    batch = [line("a"), POISON["no service"][0]()]
    await sink.write(batch)
    await sink.aclose()
    connection = await asyncpg.connect(writer_dsn)
    columns = ["event_type", "service", "user_id", "session_id", "data", "context"]
    statements = [
        *(f"SELECT {column} FROM analytics_events" for column in columns),
        *(f"SELECT {column} FROM analytics_dead_letters" for column in ("reason", "payload", "service", "received_at")),
        *(f"SELECT * FROM {table}" for table in (*ON, "analytics_migrations", *VIEWS, "analytics_user_days")),
        "TABLE analytics_latency_histogram",
        "COPY analytics_events TO STDOUT",
        "SELECT analytics_events FROM analytics_events",
        "SELECT 1 FROM analytics_events WHERE data ? 'name'",
        QUANTILE,
        *(f"DELETE FROM {table}" for table in ON),
        *(f"UPDATE {table} SET id = gen_random_uuid()" for table in ON),
        *(f"TRUNCATE {table}" for table in ON),
        *(f"SELECT id FROM {table} FOR UPDATE" for table in ON),
        *(f"BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE; COMMIT" for table in ON),
        *(f"ALTER TABLE {table} ADD COLUMN x int" for table in ON),
        *(f"DROP TABLE {table}" for table in ON),
        *(f"CREATE INDEX ON {table} (id)" for table in ON),
        "INSERT INTO analytics_events (id, timestamp, event_type, service, data) SELECT gen_random_uuid(), now(), 'x', "
        "'x', '{}' RETURNING data",
        "INSERT INTO analytics_events (id, timestamp, event_type, service, data) SELECT id, timestamp, 'x', 'x', '{}' "
        "FROM analytics_events ON CONFLICT (timestamp, id) DO UPDATE SET data = '{}'",
        "INSERT INTO analytics_dead_letters (id, reason, payload) SELECT id, 'x', 'x' FROM analytics_dead_letters "
        "ON CONFLICT (id) DO UPDATE SET reason = 'x'",
        "INSERT INTO analytics_migrations (version, name, phase, checksum, duration_ms, library_version) "
        "VALUES (999, 'x', 'pre', 'x', 0, 'x')",
        "CREATE TABLE mine (x int)",
        "CREATE VIEW mine AS SELECT 1",
        "CREATE FUNCTION mine() RETURNS int LANGUAGE sql RETURN 1",
        "CREATE SCHEMA mine",
        "CREATE EXTENSION hstore",
        "CREATE TRIGGER mine BEFORE INSERT ON analytics_events FOR EACH ROW EXECUTE FUNCTION "
        "suppress_redundant_updates_trigger()",
        "CREATE ROLE mine",
        f'SET ROLE "{roles.reader}"',
        f'GRANT "{roles.writer}" TO "{roles.reader}"',
    ]
    parts = await roles.admin.fetch(PARTS[roles.database.flavour])
    assert parts
    part = parts[-1][0]
    statements += [f"SELECT data FROM {part}", f"DELETE FROM {part}", f"TRUNCATE {part}", f"DROP TABLE {part}"]
    if roles.database.flavour == "timescaledb":
        statements += [
            "SELECT drop_chunks('analytics_events', now())",
            "SELECT remove_retention_policy('analytics_events')",
            "SELECT delete_job(job_id) FROM timescaledb_information.jobs WHERE hypertable_name = 'analytics_events'",
            "SELECT compress_chunk(c) FROM show_chunks('analytics_events') AS c",
            "CALL analytics_refresh_pending()",
            "CALL refresh_continuous_aggregate('analytics_user_days', NULL, NULL)",
        ]
    else:
        statements += [
            *(f"TABLE analytics_{name}" for name in ("changes", "stale", "fills", "gone_days", "events_default")),
            "INSERT INTO analytics_changes VALUES (now())",
            "UPDATE analytics_fills SET filled_until = now()",
            "SELECT analytics_drop_partitions()",
            "SELECT analytics_fill('analytics_user_days', now() - interval '3 days', now())",
            "SELECT analytics_collect()",
        ]
    before = await roles.admin.fetch("SELECT * FROM analytics_events"), await roles.admin.fetch(RIGHTS)
    for statement in statements:
        await refused(connection, statement)
    await connection.close()
    assert (await roles.admin.fetch("SELECT * FROM analytics_events"), await roles.admin.fetch(RIGHTS)) == before
    assert await stored(roles.admin) == ids(batch[:1])


PARTS = {
    "timescaledb": "SELECT show_chunks('analytics_events')::text",
    "postgresql": "SELECT partition::text FROM analytics_partitions() ORDER BY day",
}


async def test_the_reader_can_read_everything(roles: Roles, reader_dsn: str) -> None:
    sink = TimescaleSink(roles.database.dsn)
    batch = [line("a"), POISON["no service"][0]()]
    await sink.write(batch)
    await sink.aclose()
    request = happened(Random(1), now() - 3 * DAY, "api_request", 1, method="GET", status_code=200, duration_ms=12.5)
    insert = "INSERT INTO analytics_events (id, timestamp, event_type, service, data) VALUES ($1, $2, $3, $4, $5)"
    await roles.admin.execute(
        insert, request.id, request.timestamp, request.event_type, request.service, json.dumps(request.data)
    )
    connection = await asyncpg.connect(reader_dsn)
    for when in ("before a refresh", "after it"):
        assert sorted(row["id"] for row in await connection.fetch("TABLE analytics_events")) == sorted(
            [*ids(batch[:1]), request.id]
        ), when
        assert len(await connection.fetch("TABLE analytics_dead_letters")) == 1
        for view in VIEWS:
            assert await connection.fetch(f"TABLE {view}") == await roles.admin.fetch(f"TABLE {view}"), when
        assert len(await connection.fetch("TABLE analytics_daily_active_users")) == 2
        assert len(await connection.fetch("TABLE analytics_api_latency_hourly")) == 1
        assert await connection.fetchval(QUANTILE) == pytest.approx(12.5, rel=0.02)
        await refresh_views(roles.database.dsn)
    await connection.close()
    report = await status(reader_dsn)
    assert (report.pending, report.flavour) == ((), roles.database.flavour)


async def test_the_reader_can_write_nothing(roles: Roles, reader_dsn: str) -> None:
    connection = await asyncpg.connect(reader_dsn)
    tables = (*ON, "analytics_migrations")
    for statement in [
        "INSERT INTO analytics_events (id, timestamp, event_type, service, data) VALUES "
        "(gen_random_uuid(), now(), 'x', 'x', '{}')",
        "INSERT INTO analytics_dead_letters (id, reason, payload) VALUES (gen_random_uuid(), 'x', 'x')",
        "COPY analytics_events FROM STDIN",
        *(f"DELETE FROM {table}" for table in tables),
        *(f"TRUNCATE {table}" for table in tables),
        "UPDATE analytics_events SET data = '{}'",
        "UPDATE analytics_migrations SET checksum = ''",
        "CREATE TABLE mine (x int)",
        "DROP VIEW analytics_daily_active_users",
        f'SET ROLE "{roles.writer}"',
        "SELECT drop_chunks('analytics_events', now())"
        if roles.database.flavour == "timescaledb"
        else "SELECT analytics_upkeep()",
    ]:
        await refused(connection, statement)
    await connection.close()
    with pytest.raises(OperatorError, match="analytics-migrate roles"):
        await (sink := TimescaleSink(reader_dsn)).ready()
    await sink.aclose()


UPKEEP = "analytics_upkeep()"


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_without_the_right_to_the_upkeep_a_writer_leaves_it_to_cron_and_says_so_once(
    roles: Roles, writer_dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    sink = TimescaleSink(writer_dsn)
    await sink.upkeep()
    assert UPKEEP not in caplog.text
    await roles.admin.execute(f'REVOKE EXECUTE ON FUNCTION {UPKEEP} FROM "{roles.writer}"')
    await sink.upkeep()
    await sink.upkeep()
    [said] = [message for message in caplog.messages if UPKEEP in message]
    assert "analytics-migrate refresh in cron" in said
    assert "analytics-migrate roles" in said
    await roles.make()
    await sink.upkeep()
    await sink.aclose()


async def test_who_may_insert_when_the_upkeep_is_taken_from_everybody_may_still_call_it(roles: Roles) -> None:
    """Before it was taken from PUBLIC, whoever had been granted the INSERT by hand could call it."""
    await roles.make()
    application, analyst = await roles.login("An application"), await roles.login("analyst")
    await roles.admin.execute(
        f'GRANT INSERT ON analytics_events TO "{roles.made[-2]}";'
        f"GRANT EXECUTE ON FUNCTION {UPKEEP} TO PUBLIC;"
        f'REVOKE EXECUTE ON FUNCTION {UPKEEP} FROM "{roles.writer}"'
    )
    [step] = [file for file in find_migrations() if file.name == "198_post_upkeep_rights.sql"]
    may = f"SELECT has_function_privilege('{UPKEEP}', 'EXECUTE')"
    plain = roles.database.flavour == "postgresql"
    if plain:
        await roles.admin.execute(step.sql)
    assert step.flavours == ("postgresql",)
    for dsn, allowed in ((application, True), (analyst, not plain)):
        connection = await asyncpg.connect(dsn)
        assert await connection.fetchval(may) is allowed, dsn
        await connection.close()
    who = "SELECT has_function_privilege($1::name, $2, 'EXECUTE')"
    assert await roles.admin.fetchval(who, roles.writer, UPKEEP)
    assert await roles.admin.fetchval(who, roles.reader, UPKEEP) is not plain
    if plain:
        await roles.admin.execute("GRANT INSERT ON analytics_events TO PUBLIC")
        await roles.admin.execute(step.sql)
        assert await roles.admin.fetchval(who, roles.reader, UPKEEP)


@pytest.mark.parametrize("database", ["timescaledb"], indirect=True)
@pytest.mark.parametrize("careful", [0.0, 60.0])
async def test_the_writer_writes_into_compressed_chunks_and_new_ones(
    roles: Roles, writer_dsn: str, reader_dsn: str, careful: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asgi_analytics.sinks.timescale.CAREFUL_SECONDS", careful)
    sink = TimescaleSink(writer_dsn)
    old = [with_timestamp((midnight(10) + timedelta(minutes=minute)).isoformat(), f"{minute}") for minute in range(20)]
    assert (await sink.write(old[:10])).duplicates == 0
    compressed = await roles.admin.fetch("SELECT compress_chunk(c) FROM show_chunks('analytics_events') AS c")
    assert len(compressed) == 1
    assert (await sink.write(old)).duplicates == 10
    bad = with_timestamp("1999-12-31T23:59:59Z")
    assert len((await sink.write([old[3], bad])).rejected) == 1
    new = [with_timestamp((midnight(days) + timedelta(hours=1)).isoformat(), f"{days}") for days in (40, 30, 20, -1)]
    assert (await sink.write(new)).duplicates == 0
    await sink.aclose()
    assert len(await roles.admin.fetch("SELECT show_chunks('analytics_events')")) == 5
    reader = await asyncpg.connect(reader_dsn)
    assert await stored(reader) == ids([*old, *new])
    assert len(await reader.fetch("TABLE analytics_events")) == 24
    assert await reader.fetchval("SELECT sum(total_events) FROM analytics_daily_active_users") == 24
    await reader.close()
    writer = await asyncpg.connect(writer_dsn)
    for row in await roles.admin.fetch("SELECT show_chunks('analytics_events')::text AS chunk"):
        await refused(writer, f"SELECT data FROM {row['chunk']}")
        await refused(writer, f"DELETE FROM {row['chunk']}")
    await writer.close()


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_the_writer_keeps_plain_postgresql_fresh_or_leaves_it_to_cron(
    roles: Roles, writer_dsn: str, reader_dsn: str
) -> None:
    newest = "SELECT max(day) FROM analytics_partitions()"
    sink = TimescaleSink(writer_dsn)
    await sink.write([with_timestamp((midnight(2) + timedelta(hours=1)).isoformat(), "a")])
    last = await roles.admin.fetchval(newest)
    name = f"analytics_events_{last:%Y%m%d}"
    await roles.admin.execute(f"DROP TABLE {name}")
    await roles.admin.execute(f'REVOKE EXECUTE ON FUNCTION analytics_upkeep() FROM PUBLIC, "{roles.writer}"')
    await sink.upkeep()
    assert await roles.admin.fetchval(newest) == last - DAY
    await roles.make()
    await sink.upkeep()
    assert await roles.admin.fetchval(newest) == last
    new = with_timestamp((midnight(0) + 3 * DAY).isoformat(), "b")
    await sink.write([new])
    assert await roles.admin.fetchval("SELECT count(*) FROM analytics_user_days_filled") == 1
    reader = await asyncpg.connect(reader_dsn)
    assert await reader.fetchval("SELECT sum(total_events) FROM analytics_daily_active_users") == 2
    await reader.close()
    await sink.aclose()


async def test_run_again_it_changes_nothing_and_takes_back_what_is_too_much(roles: Roles) -> None:
    report = await roles.make()
    assert [(role.name, role.purpose, role.is_new) for role in report.roles] == [
        (roles.writer, "writer", True),
        (roles.reader, "reader", True),
    ]
    logins = await roles.admin.fetch("SELECT rolcanlogin FROM pg_roles WHERE rolname = ANY ($1)", roles.made)
    assert [row["rolcanlogin"] for row in logins] == [False, False]
    assert report.warnings == ()
    rights = await roles.admin.fetch(RIGHTS)
    report = await roles.make()
    assert [role.is_new for role in report.roles] == [False, False]
    assert await roles.admin.fetch(RIGHTS) == rights
    await roles.admin.execute(f'GRANT ALL ON analytics_events, analytics_dead_letters TO "{roles.writer}"')
    await roles.admin.execute(f'GRANT UPDATE (data), SELECT (data) ON analytics_events TO "{roles.reader}"')
    assert await roles.admin.fetch(RIGHTS) != rights
    await roles.make()
    assert await roles.admin.fetch(RIGHTS) == rights


async def test_what_a_role_has_from_elsewhere_is_warned_about(roles: Roles) -> None:
    await roles.admin.execute("GRANT SELECT ON analytics_events TO PUBLIC")
    await roles.make()
    await roles.admin.execute(f'GRANT pg_write_all_data TO "{roles.reader}"')
    assert (await roles.make()).warnings == (
        f'the writer "{roles.writer}" also has SELECT on analytics_events, from PUBLIC or from a role that it is a '
        "member of: revoke it there",
        f'the reader "{roles.reader}" also has DELETE, INSERT, UPDATE on analytics_dead_letters, from PUBLIC or from a '
        "role that it is a member of: revoke it there",
        f'the reader "{roles.reader}" also has DELETE, INSERT, UPDATE on analytics_events, from PUBLIC or from a role '
        "that it is a member of: revoke it there",
    )


async def test_they_may_be_made_again_while_the_writer_writes(roles: Roles, writer_dsn: str, reader_dsn: str) -> None:
    sink, reader = TimescaleSink(writer_dsn), await asyncpg.connect(reader_dsn)
    done = asyncio.Event()
    batches: list[bytes] = []

    async def write() -> None:
        while not done.is_set():
            day = (midnight(len(batches) % 60) + timedelta(hours=2)).isoformat()
            batches.append(with_timestamp(day, "x"))
            assert (await sink.write(batches[-1:])).duplicates == 0
            assert await reader.fetchval("SELECT count(*) FROM analytics_events") == len(batches)

    writing = asyncio.create_task(write())
    for _ in range(5):
        await roles.make()
    done.set()
    await writing
    await sink.aclose()
    await reader.close()
    assert len(batches) > 5
    assert await stored(roles.admin) == ids(batches)


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
@pytest.mark.parametrize("failures", [3, 100])
async def test_what_another_session_changed_meanwhile_is_tried_again_a_few_times(
    roles: Roles, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    real, tried = module._demand_usage, []

    async def demand(*arguments: Any) -> None:
        tried.append(arguments)
        if len(tried) <= failures:
            raise asyncpg.InternalServerError("tuple concurrently updated")
        await real(*arguments)

    monkeypatch.setattr(module, "_demand_usage", demand)
    if failures < module.ATTEMPTS:
        assert [role.is_new for role in (await roles.make()).roles] == [True, True]
        assert len(tried) == failures + 1
    else:
        with pytest.raises(MigrationError, match="tuple concurrently updated"):
            await roles.make()
        assert len(tried) == module.ATTEMPTS
        assert roles.writer not in {row["rolname"] for row in await roles.admin.fetch(EVERY_ROLE)}


async def test_two_runs_at_once_make_the_roles_once(roles: Roles) -> None:
    reports = await asyncio.gather(*(roles.make() for _ in range(4)))
    assert sorted(role.is_new for report in reports for role in report.roles) == [False] * 6 + [True] * 2


async def test_a_dry_run_is_a_script_for_psql_and_changes_nothing(roles: Roles) -> None:
    rights, known = await roles.admin.fetch(RIGHTS), await roles.admin.fetch(EVERY_ROLE)
    report = await roles.make(dry_run=True)
    assert (await roles.admin.fetch(RIGHTS), await roles.admin.fetch(EVERY_ROLE)) == (rights, known)
    assert [role.is_new for role in report.roles] == [True, True]
    assert report.sql is not None
    ran = await psql(roles.database, report.sql)
    assert (ran.returncode, ran.stderr) == (0, "")
    rights = await roles.admin.fetch(RIGHTS)
    assert [role.is_new for role in (await roles.make()).roles] == [False, False]
    assert await roles.admin.fetch(RIGHTS) == rights
    again = await roles.make(dry_run=True)
    assert again.sql is not None
    assert "CREATE ROLE" not in again.sql


@pytest.mark.parametrize(
    "name",
    [
        'o"reilly',
        "{reader}",
        "x; DROP TABLE analytics_events",
        "$$",
        "-- a",
        "'; --",
        "é 😀 {0} %s \\",
        "\\! x :a :'b'",
    ],
)
async def test_names_are_names_whatever_stands_in_them(empty_database: Database, name: str) -> None:
    admin = await empty_database.connect()
    schema, suffix = f"schema {name}", empty_database.name[-12:]
    roles = Roles(empty_database, admin)
    writer, reader = f"{name}{suffix}", f"{name}{suffix}r"
    roles.made = [writer, reader]
    whole = await dry_run(empty_database.dsn, schema=schema)
    assert whole.sql is not None
    assert (await psql(empty_database, whole.sql)).returncode == 0
    assert (await status(empty_database.dsn, schema=schema)).pending == ()
    try:
        script = (await roles.make(writer=writer, reader=reader, schema=schema, dry_run=True)).sql
        report = await roles.make(writer=writer, reader=reader, schema=schema)
        assert [role.name for role in report.roles] == [writer, reader]
        assert report.schema == schema
        assert script is not None
        dsn = await roles.login("application")
        await admin.execute('GRANT "{}" TO "{}"'.format(writer.replace('"', '""'), roles.made[-1]))
        sink = TimescaleSink(dsn, schema=schema)
        await sink.ready()
        batch = [line("a"), POISON["no service"][0]()]
        await sink.write(batch)
        await sink.upkeep()
        await sink.aclose()
        path = '"{}"'.format(schema.replace('"', '""'))
        assert await stored(admin, f"{path}.analytics_events") == ids(batch[:1])
        if empty_database.flavour == "timescaledb":
            await admin.execute(f"CALL {path}.analytics_refresh_late(0, NULL)")
        await refresh_views(empty_database.dsn, schema=schema)
        ran = await psql(empty_database, script.replace("CREATE ROLE", "ALTER ROLE"))
        assert (ran.returncode, ran.stderr) == (0, "")
    finally:
        await roles.drop()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"writer": ""}, "name of a role"),
        ({"writer": "x" * 64}, "name of a role"),
        ({"reader": "a\nb"}, "leave out control characters"),
        ({"reader": "a\0"}, "name of a role"),
        ({"reader": "\ud800"}, "name of a role"),
        ({"writer": "public"}, "a name that PostgreSQL keeps"),
        ({"writer": "pg_monitor"}, "a name that PostgreSQL keeps"),
        ({"writer": "a", "reader": "a"}, 'both "a": give two names'),
        ({"writer": "postgres"}, "whose rights cannot be limited: give another name"),
    ],
)
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_a_name_that_cannot_be_a_role_of_ours_is_said(roles: Roles, options: Any, says: str) -> None:
    before = await roles.admin.fetch(RIGHTS)
    with pytest.raises(ConfigError, match=says) as caught:
        await roles.make(**options)
    assert str(caught.value).isprintable()
    assert await roles.admin.fetch(RIGHTS) == before


async def test_a_release_that_cannot_grant_columns_is_told_so_and_nothing_is_made(
    roles: Roles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TimescaleDB 2.22 hands the grant on to a table without these columns; here that table stands by itself."""
    name = "_compressed_hypertable_2"
    statements = f'CREATE TABLE {name} (); GRANT SELECT (timestamp) ON {name} TO "{roles.writer}";'
    monkeypatch.setattr(module, "_grants", lambda session, names: statements)
    with pytest.raises(MigrationError, match=r"cannot grant single columns.*upgrade the extension"):
        await roles.make()
    assert not await roles.admin.fetchval("SELECT count(*) FROM pg_roles WHERE rolname = $1", roles.writer)
    monkeypatch.setattr(module, "_grants", lambda session, names: statements.replace(name, "another_table"))
    with pytest.raises(MigrationError) as other:
        await roles.make()
    assert "TimescaleDB cannot" not in str(other.value)


async def test_without_the_rights_to_it_nothing_is_made_and_the_cure_is_said(empty_database: Database) -> None:
    """The owner of the tables, who is no superuser, can do it once the roles are there, or may be made."""
    admin = await empty_database.connect()
    roles = Roles(empty_database, admin)
    if empty_database.flavour == "timescaledb":
        await admin.execute("CREATE EXTENSION timescaledb")
    try:
        owner, other = await roles.login("owner"), await roles.login("other")
        owner_role, other_role = roles.made[-2:]
        await admin.execute(f'CREATE SCHEMA ours AUTHORIZATION "{owner_role}"')
        options: dict[str, Any] = {"writer": roles.writer, "reader": roles.reader, "schema": "ours"}
        with pytest.raises(AnalyticsError, match="run analytics-migrate all first"):
            await make_roles(owner, **options)
        await migrate(owner, schema="ours")
        rights, known = await admin.fetch(RIGHTS), await admin.fetch(EVERY_ROLE)
        await admin.execute(f'GRANT USAGE ON SCHEMA ours TO "{other_role}"')
        await admin.execute(f'GRANT SELECT ON ours.analytics_migrations TO "{other_role}"')
        with pytest.raises(MigrationError, match=f'may not grant rights on the tables of "{owner_role}"'):
            await make_roles(other, **options)
        wanted = f'run CREATE ROLE "{roles.writer}" NOLOGIN and CREATE ROLE "{roles.reader}" NOLOGIN, then this again'
        with pytest.raises(MigrationError, match=wanted):
            await make_roles(owner, **options)
        with pytest.raises(ConfigError, match="owns the tables"):
            await make_roles(empty_database.dsn, **{**options, "writer": owner_role})
        assert await admin.fetch(EVERY_ROLE) == known
        await admin.execute(f'CREATE ROLE "{roles.writer}" NOLOGIN')
        await admin.execute(f'ALTER ROLE "{owner_role}" CREATEROLE')
        report = await make_roles(owner, **options)
        assert [role.is_new for role in report.roles] == [False, True]
        assert await admin.fetch(RIGHTS) != rights
        await admin.execute("ALTER SCHEMA ours OWNER TO CURRENT_USER")
        await admin.execute(f'REVOKE ALL ON SCHEMA ours FROM "{roles.reader}"')
        await admin.execute(f'GRANT USAGE ON SCHEMA ours TO "{owner_role}"')
        with pytest.raises(MigrationError, match=f'run GRANT USAGE ON SCHEMA "ours" TO "{roles.reader}"'):
            await make_roles(owner, **options)
    finally:
        await roles.drop()
