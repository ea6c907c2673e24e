"""The database becomes read-only, as after a failover, and another server takes its place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import urlsplit, urlunsplit

import pytest

from tests.faults.balance import assert_stored
from tests.faults.conftest import StartApplication
from tests.faults.standby import Standby, cluster, standby
from tests.kit.databases import Cluster, Database
from tests.kit.fakes import eventually
from tests.kit.proxy import Proxy

__all__ = ["cluster", "standby"]

pytestmark = pytest.mark.usefixtures("impatient")


async def set_read_only(cluster: Cluster, read_only: bool) -> None:
    """Make every session of a server read-only from its next transaction on, or end that."""
    database = Database(cluster, "postgres")
    connection = await database.connect()
    await connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {'on' if read_only else 'off'}")
    await connection.execute("SELECT pg_reload_conf()")
    await database.close()


async def test_a_server_that_is_read_only_for_a_while_is_waited_for(
    start_application: StartApplication, private_database: Database, cluster: Cluster
) -> None:
    application = start_application(private_database.dsn)
    client = application.client
    async with application.busy(500):
        await eventually(lambda: client.stats().stored)
        await set_read_only(cluster, True)
        await eventually(lambda: client.stats().retries >= 3)
        assert "25006" in str(client.stats().last_error)
        await set_read_only(cluster, False)
        await eventually(lambda: client.stats().last_error is None)
    await application.assert_stored_in(private_database)
    assert (application.refused, client.stats().rejected.total()) == (0, 0)


async def test_a_connection_to_a_server_that_has_become_read_only_is_given_up_for_the_new_primary(
    start_application: StartApplication,
    private_database: Database,
    cluster: Cluster,
    standby: Standby,
    make_proxy: Callable[..., Proxy],
) -> None:
    """The old primary lives on and keeps the connection: only who connects again is led to the new one."""
    proxy = make_proxy(private_database)
    application = start_application(proxy.dsn)
    client = application.client
    async with application.busy(500):
        await eventually(lambda: client.stats().stored)
        await set_read_only(cluster, True)
        await eventually(lambda: client.stats().retries >= 1)
        await asyncio.to_thread(standby.promote)
        proxy.target = (standby.host, standby.port)
        await eventually(lambda: client.stats().last_error is None)
    assert await client.aflush(20)
    new = Database(standby, private_database.name)
    await assert_stored(client, new, application.accepted)
    await new.close()
    assert application.refused == 0


async def test_a_primary_that_crashes_is_replaced_by_the_next_host_of_the_url(
    start_application: StartApplication, private_database: Database, cluster: Cluster, standby: Standby
) -> None:
    parts = urlsplit(private_database.dsn)
    hosts = f"{parts.netloc},{standby.host}:{standby.port}"
    application = start_application(urlunsplit(parts._replace(netloc=hosts, query="target_session_attrs=read-write")))
    client = application.client
    async with application.busy(500):
        await eventually(lambda: client.stats().stored)
        await asyncio.to_thread(cluster.stop, "immediate")
        await eventually(lambda: client.stats().retries >= 2)
        await asyncio.to_thread(standby.promote)
        await eventually(lambda: client.stats().last_error is None)
    assert await client.aflush(20)
    new = Database(standby, private_database.name)
    await assert_stored(client, new, application.accepted)
    await new.close()
    assert application.refused == 0
