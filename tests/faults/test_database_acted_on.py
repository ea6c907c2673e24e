"""What waits for somebody to act: room on the disk, a table, a password. Then everything is there."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from asgi_analytics import AnalyticsClient, AnalyticsWorker, TimescaleSink
from asgi_analytics.migrate.runner import migrate
from tests.faults.balance import assert_stored
from tests.faults.conftest import Application, StartApplication
from tests.faults.small_disk import SmallDisk
from tests.kit.databases import PASSWORD, Cluster, Database
from tests.kit.fakes import eventually

pytestmark = pytest.mark.usefixtures("impatient")


# -- the disk


@pytest.fixture
def disk(private_database: Database) -> Iterator[SmallDisk]:
    assert isinstance(private_database.cluster, Cluster)
    disk = SmallDisk.beside(private_database.cluster, 64)
    yield disk
    disk.unmount()


async def test_a_disk_that_is_full_is_waited_for(
    start_application: StartApplication, private_database: Database, disk: SmallDisk
) -> None:
    server = await private_database.connect()
    await server.execute(f"CREATE TABLESPACE small LOCATION '{disk.tablespace}'")
    await server.close()
    cluster = private_database.cluster
    postgres = Database(cluster, "postgres")
    administrator = await postgres.connect()
    await administrator.execute(f'CREATE DATABASE "on_disk" TEMPLATE "{private_database.name}" TABLESPACE small')
    database = Database(cluster, "on_disk")
    application = start_application(database.dsn)
    client = application.client
    async with application.busy(500):
        await eventually(lambda: client.stats().stored)
        disk.fill()
        await eventually(lambda: client.stats().retries >= 3, 20)
        assert "No space left on device" in str(client.stats().last_error)
        assert "53100" in str(client.stats().last_error)
        disk.make_room()
        await eventually(lambda: client.stats().last_error is None, 20)
    await application.assert_stored_in(database)
    assert (application.refused, client.stats().rejected.total()) == (0, 0)
    await client.aclose(5)
    await database.close()
    await administrator.execute('DROP DATABASE "on_disk" WITH (FORCE)')
    await administrator.execute("DROP TABLESPACE small")
    await postgres.close()


async def test_a_table_without_room_is_waited_for(start_application: StartApplication, database: Database) -> None:
    """The same as the server says it, where nobody may mount a small disk."""
    administrator = await database.connect()
    await administrator.execute(
        "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$;"
        "CREATE TRIGGER no_room BEFORE INSERT ON analytics_events FOR EACH ROW EXECUTE FUNCTION no_room()"
    )
    application = start_application(database.dsn)
    client = application.client
    async with application.busy(500):
        await eventually(lambda: client.stats().retries >= 3)
        assert "53100" in str(client.stats().last_error)
        await administrator.execute("DROP TRIGGER no_room ON analytics_events")
        await eventually(lambda: client.stats().stored)
    await application.assert_stored_in(database)
    assert (application.refused, client.stats().rejected.total()) == (0, 0)


# -- the tables


async def test_tables_that_are_made_under_a_running_application_get_everything_it_said(
    start_application: StartApplication, empty_database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    application = start_application(empty_database.dsn)
    client = application.client
    async with application.busy(500):
        await eventually(lambda: client.stats().retries >= 2)
        assert "run analytics-migrate all" in str(client.stats().last_error)
        await migrate(empty_database.dsn)
        await eventually(lambda: client.stats().stored)
    await application.assert_stored_in(empty_database)
    assert (application.refused, client.stats().rejected.total()) == (0, 0)
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "events wait until somebody acts" in errors[0].getMessage()


async def test_tables_that_are_moved_away_and_made_anew_lose_nothing(
    start_application: StartApplication, database: Database
) -> None:
    administrator = await database.connect()
    application = start_application(database.dsn)
    client = application.client
    async with application.busy(500):
        for _ in range(3):
            await application.stores_more()
            await administrator.execute("ALTER TABLE analytics_events RENAME TO elsewhere")
            await eventually(lambda: client.stats().last_error)
            await administrator.execute("ALTER TABLE elsewhere RENAME TO analytics_events")
    await application.assert_stored_in(database)


# -- the credentials


@pytest.fixture
async def writer(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """Make a role of the name of the database, with `PASSWORD`, and give an administrator's connection."""
    administrator = await database.connect()
    await administrator.execute(
        f"CREATE ROLE \"{database.name}\" LOGIN PASSWORD '{PASSWORD}';"
        f' GRANT INSERT, SELECT ON analytics_events, analytics_dead_letters TO "{database.name}"'
    )
    yield administrator
    await administrator.execute(f'DROP OWNED BY "{database.name}"; DROP ROLE "{database.name}"')


async def change_password(administrator: asyncpg.Connection, role: str, password: str) -> None:
    """Give a role another password, and end its sessions: they would go on under the old one."""
    await administrator.execute(f"ALTER ROLE \"{role}\" PASSWORD '{password}'")
    await administrator.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", role)


async def test_a_password_that_was_changed_is_said_and_changed_back_everything_arrives(
    start_application: StartApplication,
    database: Database,
    writer: asyncpg.Connection,
    caplog: pytest.LogCaptureFixture,
) -> None:
    application = start_application(database.cluster.dsn(database.name, database.name))
    client = application.client
    async with application.busy(500):
        await eventually(lambda: client.stats().stored)
        await change_password(writer, database.name, "another")
        await eventually(lambda: "wrong user or password" in str(client.stats().last_error))
        await change_password(writer, database.name, PASSWORD)
        await eventually(lambda: client.stats().last_error is None)
    await application.assert_stored_in(database)
    assert application.refused == 0
    assert any(record.levelno == logging.ERROR for record in caplog.records), "somebody has to act"
    await client.aclose(5)


async def test_a_password_in_a_file_is_read_anew_at_each_connection(
    start_application: StartApplication, database: Database, writer: asyncpg.Connection, tmp_path: Path
) -> None:
    secret = tmp_path / "pgpass"

    def write(password: str) -> None:
        secret.write_text(f"*:*:*:*:{password}\n")  # asyncpg does not undo an escaped colon: it stands as it is
        os.chmod(secret, 0o600)

    write(PASSWORD)
    parts = urlsplit(database.dsn)
    netloc = f"{database.name}@{parts.hostname}:{parts.port}"
    application = start_application(urlunsplit(parts._replace(netloc=netloc, query=f"passfile={secret}")))
    client = application.client
    async with application.busy(500):
        await eventually(lambda: client.stats().stored)
        await change_password(writer, database.name, "rotated:1")
        await eventually(lambda: "wrong user or password" in str(client.stats().last_error))
        write("rotated:1")
        await eventually(lambda: client.stats().last_error is None)
    await application.assert_stored_in(database)
    assert application.refused == 0
    await client.aclose(5)


async def test_a_pool_that_asks_for_its_password_gets_the_new_one(
    database: Database, writer: asyncpg.Connection
) -> None:
    current = [PASSWORD]
    client = AnalyticsClient(service="shop", flush_interval=0.05)
    application = Application(client)
    parts = urlsplit(database.dsn)
    async with (
        asyncpg.create_pool(
            host=parts.hostname,
            port=parts.port,
            user=database.name,
            database=database.name,
            password=lambda: current[0],
            min_size=0,
        ) as pool,
        AnalyticsWorker(client, TimescaleSink(pool)),
    ):
        async with application.busy(500):
            await eventually(lambda: client.stats().stored)
            await change_password(writer, database.name, "rotated")
            await eventually(lambda: "wrong user or password" in str(client.stats().last_error))
            current[0] = "rotated"
            await eventually(lambda: client.stats().last_error is None)
        assert await client.aflush(20)
    await assert_stored(client, database, application.accepted)
    assert application.refused == 0


async def test_a_password_that_is_changed_while_the_sessions_live_on_is_not_even_noticed(
    start_application: StartApplication, database: Database, writer: asyncpg.Connection
) -> None:
    application = start_application(database.cluster.dsn(database.name, database.name))
    client = application.client
    async with application.busy(500):
        await eventually(lambda: client.stats().stored)
        await writer.execute(f"ALTER ROLE \"{database.name}\" PASSWORD 'another'")
        stored = client.stats().stored
        await eventually(lambda: client.stats().stored > stored + 100)
    assert await client.aflush(20)
    assert client.stats().retries == 0
    await assert_stored(client, database, application.accepted)
    await client.aclose(5)
