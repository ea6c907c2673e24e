"""Somebody must act: rights, passwords, settings; until then it is said, and afterwards everything is there.

`tests/faults/test_database_acted_on.py` has missing tables and changed passwords under load.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from asyncpg.pool import PoolConnectionHolder

from asgi_analytics import TimescaleSink
from asgi_analytics.database import pool as keeper
from asgi_analytics.errors import OperatorError, TransientError
from asgi_analytics.sinks import timescale
from tests.kit.databases import PASSWORD, Database
from tests.kit.fakes import eventually
from tests.sinks.conftest import Connect, Rows, say
from tests.sinks.contract import ids, line

ID = UUID("0198c1a2-0000-7000-8000-000000000001")


async def test_a_wrong_password_is_an_operator_error_that_does_not_repeat_it(database: Database) -> None:
    sink = TimescaleSink(database.cluster.dsn(database.name, "postgres", "wr0ng"))
    with pytest.raises(OperatorError, match="wrong user or password") as caught:
        await sink.write([line()])
    assert "wr0ng" not in str(caught.value)
    await sink.aclose()


async def test_a_database_that_does_not_exist_is_an_operator_error(database: Database) -> None:
    sink = TimescaleSink(database.cluster.dsn("no_such_database"))
    with pytest.raises(OperatorError, match="create it, or correct the database URL"):
        await sink.write([line()])
    await sink.aclose()


async def test_missing_rights_are_an_operator_error_and_once_granted_everything_arrives(
    connect: Connect, database: Database, rows: Rows
) -> None:
    owner = await database.connect()
    name = f"writer_{database.name}"
    await owner.execute(f"CREATE ROLE \"{name}\" LOGIN PASSWORD '{PASSWORD}'")
    try:
        client = connect(database.cluster.dsn(database.name, name))
        say(client, 3)
        await eventually(lambda: client.stats().retries >= 1)
        assert "grant INSERT on analytics_events" in str(client.stats().last_error)
        # What the message says, and no more.
        await owner.execute(f'GRANT INSERT ON analytics_events, analytics_dead_letters TO "{name}"')
        await owner.execute(f'GRANT SELECT (timestamp, id) ON analytics_events TO "{name}"')
        await owner.execute(f'GRANT SELECT (id) ON analytics_dead_letters TO "{name}"')
        assert await client.aflush(20)
        assert len(await rows()) == 3
        await client.aclose(5)
    finally:
        await owner.execute(f'DROP OWNED BY "{name}"; DROP ROLE "{name}"')


async def test_a_table_that_changes_under_a_connection_costs_nothing(
    connect: Connect, database: Database, rows: Rows
) -> None:
    client = connect(database.dsn)
    say(client)
    assert await client.aflush(20)
    connection = await database.connect()
    await connection.execute("ALTER TABLE analytics_events ADD COLUMN note text")
    say(client)
    assert await client.aflush(20)
    await connection.execute("ALTER TABLE analytics_events DROP COLUMN note")
    say(client)
    assert await client.aflush(20)
    assert len(await rows()) == 3


async def test_a_table_that_is_locked_is_waited_for(
    connect: Connect, database: Database, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timescale, "WRITE_TIMEOUT", 0.1)
    client = connect(database.dsn)
    connection = await database.connect()
    async with connection.transaction():
        await connection.execute("LOCK TABLE analytics_events IN ACCESS EXCLUSIVE MODE")
        say(client, 5)
        await eventually(lambda: client.stats().retries >= 2)
    assert await client.aflush(20)
    assert len(await rows()) == 5


async def test_a_pool_without_a_place_left_is_replaced(
    database: Database, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "CONNECT_TIMEOUT", 0.5)
    sink = TimescaleSink(database.dsn)
    await sink.write([line()])
    assert sink._connections._pool is not None
    sink._connections._kept.clear()  # one is never given back, nor is the other
    await sink._connections._pool.acquire()
    with pytest.raises(TransientError):
        await sink.write([line()])
    await sink.write([line()])
    assert len(await rows()) == 2
    await sink.aclose()


async def test_connections_that_end_while_they_are_opened_cost_no_place(
    database: Database, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    acquire = PoolConnectionHolder.acquire
    ends = 3

    async def ending(holder: Any) -> Any:
        nonlocal ends
        connection = await acquire(holder)
        if ends:
            ends -= 1
            place, holder._in_use = holder._in_use, None  # it is not in use before acquire() has ended
            connection._con.terminate()
            holder._in_use = place
        return connection

    monkeypatch.setattr(PoolConnectionHolder, "acquire", ending)
    sink = TimescaleSink(database.dsn)
    for _ in range(3):
        with pytest.raises(TransientError, match="was lost"):
            await sink.write([line()])
    await sink.write([line()])
    assert len(await rows()) == 1
    await sink.aclose()


async def test_a_pool_that_was_closed_is_an_operator_error(database: Database) -> None:
    pool = await asyncpg.create_pool(database.dsn, min_size=0)
    await pool.close()
    with pytest.raises(OperatorError, match="the pool that was given to the sink is closed"):
        await TimescaleSink(pool).write([line()])


async def test_wrong_parameters_of_a_url_are_an_operator_error(database: Database) -> None:
    sink = TimescaleSink(f"{database.dsn}?target_session_attrs=bogus")
    with pytest.raises(OperatorError) as caught:
        await sink.write([line()])
    assert PASSWORD not in str(caught.value)
    await sink.aclose()


async def test_a_cancelled_write_leaves_the_sink_usable(database: Database, rows: Rows) -> None:
    sink = TimescaleSink(database.dsn)
    connection = await database.connect()
    batch = [line("a")]
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("LOCK TABLE analytics_events IN ACCESS EXCLUSIVE MODE")
    writing = asyncio.create_task(sink.write(batch))
    await asyncio.sleep(0.05)
    writing.cancel()
    with contextlib.suppress(asyncio.CancelledError, TransientError):
        await writing
    await transaction.rollback()
    await sink.write(batch)
    assert [row["id"] for row in await rows()] == ids(batch)
    await sink.aclose()


def test_the_url_of_another_driver_is_taken() -> None:
    sink: Any = TimescaleSink("postgresql+asyncpg://u:p@db/shop?sslmode=require")
    assert sink._url.dsn == "postgresql://u:p@db/shop?sslmode=require"


async def test_a_url_with_parameters_of_other_clients_works(database: Database, rows: Rows) -> None:
    sink = TimescaleSink(f"{database.dsn}?channel_binding=prefer&connect_timeout=5&keepalives=1")
    batch = [line("a")]
    await sink.write(batch)
    assert [row["id"] for row in await rows()] == ids(batch)
    await sink.aclose()
