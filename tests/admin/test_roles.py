"""Making the two roles of `analytics-migrate roles`: all or nothing, safe to repeat, and never with too much."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from asgi_analytics import TimescaleSink
from asgi_analytics.admin import roles as module
from asgi_analytics.admin.refresh import refresh_views
from asgi_analytics.admin.roles import make_roles
from asgi_analytics.errors import AnalyticsError, ConfigError, MigrationError, TransientError
from asgi_analytics.migrate.runner import dry_run, migrate, status
from tests.admin.roles import EVERY_ROLE, RIGHTS, Roles, psql, stored
from tests.kit.databases import Database
from tests.schema.happenings import midnight
from tests.sinks.contract import ids, line
from tests.sinks.test_poison import POISON, with_timestamp


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
            while True:
                with contextlib.suppress(
                    TransientError
                ):  # a chunk and rights at the same moment: the worker tries again
                    assert (await sink.write(batches[-1:])).duplicates == 0
                    break
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
        ({"writer": "public"}, "PostgreSQL keeps the name"),
        ({"writer": "pg_monitor"}, "PostgreSQL keeps the name"),
        ({"writer": "a", "reader": "a"}, 'both "a": give two names'),
        ({"writer": "postgres"}, "whose rights cannot be limited: use another name"),
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
    monkeypatch.setattr(module, "_grants", lambda session, names, views: statements)
    with pytest.raises(MigrationError, match=r"cannot grant single columns.*upgrade the extension"):
        await roles.make()
    assert not await roles.admin.fetchval("SELECT count(*) FROM pg_roles WHERE rolname = $1", roles.writer)
    monkeypatch.setattr(module, "_grants", lambda session, names, views: statements.replace(name, "another_table"))
    with pytest.raises(MigrationError) as other:
        await roles.make()
    assert "TimescaleDB cannot" not in str(other.value)


async def test_without_the_rights_to_it_nothing_is_made_and_the_cure_is_said(empty_database: Database) -> None:
    """The owner of the tables, without being a superuser, can do it once the roles exist, or with CREATEROLE."""
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
