"""The server ends what takes too long, or the connection with it: half as many events may get through."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asgi_analytics import TimescaleSink
from asgi_analytics.errors import TransientError
from asgi_analytics.migrate.runner import migrate
from tests.kit.databases import Database
from tests.kit.fakes import eventually
from tests.kit.proxy import Proxy
from tests.sinks.conftest import Connect, Rows, connect, discreet_log, impatient, rows, say
from tests.sinks.contract import ids, line

__all__ = ["connect", "discreet_log", "impatient", "rows"]

TOO_MANY = 10
"""So many rows are too much in one transaction."""


async def react(database: Database, body: str) -> None:
    """Let the table run some statements for each row, after the first few of a transaction."""
    connection = await database.connect()
    await connection.execute(
        "CREATE FUNCTION react() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " PERFORM set_config('t.rows', current_setting('t.rows', true) || 'x', true);"
        f" IF length(current_setting('t.rows')) > {TOO_MANY} THEN {body} END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER react BEFORE INSERT ON analytics_events FOR EACH ROW EXECUTE FUNCTION react()"
    )


async def limit(database: Database, setting: str) -> None:
    connection = await database.connect()
    await connection.execute(f'ALTER DATABASE "{database.name}" SET {setting} = 1000')


@pytest.mark.parametrize("setting", ["transaction_timeout", "statement_timeout"])
async def test_what_the_server_ends_by_time_is_written_in_smaller_parts_until_all_is_stored(
    database: Database, rows: Rows, connect: Connect, setting: str
) -> None:
    await react(database, "PERFORM pg_sleep(0.15);")
    await limit(database, setting)
    client = connect(database.dsn)
    say(client, 60)
    await eventually(lambda: client.stats().retries, 20)
    assert "timeout" in str(client.stats().last_error)
    assert await client.aflush(60), client.stats().last_error
    assert len(await rows()) == 60


@pytest.mark.parametrize("setting", ["transaction_timeout", "statement_timeout"])
async def test_a_write_that_the_server_ends_by_time_is_not_repeated_as_it_is(
    database: Database, rows: Rows, setting: str
) -> None:
    await react(database, "PERFORM pg_sleep(0.15);")
    await limit(database, setting)
    sink = TimescaleSink(database.dsn)
    batch = [line(f"{number}") for number in range(30)]
    with pytest.raises(TransientError) as caught:
        await sink.write(batch)
    assert caught.value.fewer
    assert await rows() == []
    await sink.write(batch[:TOO_MANY])
    await sink.aclose()


async def test_time_that_runs_out_between_two_statements_asks_for_fewer_events(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await limit(database, "idle_in_transaction_session_timeout")
    sink = TimescaleSink(database.dsn)
    find_poison = sink._find_poison

    async def dawdle(connection: Any, batch: Any) -> Any:
        await asyncio.sleep(1.5)  # a process that gets no time from its machine
        return await find_poison(connection, batch)

    monkeypatch.setattr(sink, "_find_poison", dawdle)
    bad = line().replace(b'"service":"shop"', b'"service":null')
    with pytest.raises(TransientError) as caught:
        await sink.write([line(), bad])
    assert caught.value.fewer
    monkeypatch.undo()
    assert len((await sink.write([line(), bad])).rejected) == 1
    await sink.aclose()


async def test_a_batch_that_loses_its_connection_twice_is_halved(
    database: Database, rows: Rows, connect: Connect
) -> None:
    """Out of memory in one session is such a case: the server's log tells, the client only sees the end."""
    await react(database, "PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(0.1);")
    client = connect(database.dsn)
    say(client, 60)
    assert await client.aflush(60), client.stats().last_error
    assert client.stats().retries
    assert len(await rows()) == 60


async def test_a_session_that_was_idle_too_long_costs_no_attempt(
    database: Database, rows: Rows, connect: Connect
) -> None:
    await limit(database, "idle_session_timeout")
    client = connect(database.dsn)
    for _ in range(3):
        say(client)
        assert await client.aflush(20)
        await asyncio.sleep(1.5)
    assert client.stats().retries == 0
    assert len(await rows()) == 3


@pytest.mark.parametrize("how", ["cut", "terminate"])
async def test_a_connection_that_ends_during_a_write_is_replaced_once_without_an_error(
    database: Database, proxy: Proxy, rows: Rows, how: str
) -> None:
    sink = TimescaleSink(proxy.dsn)
    await sink.ready()
    batch = [line(f"{number}") for number in range(10)]
    connection = await database.connect()
    waits = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = $1"
    async with connection.transaction():
        await connection.execute("LOCK TABLE analytics_events IN ACCESS EXCLUSIVE MODE")
        writing = asyncio.create_task(sink.write(batch))
        while not (pid := await connection.fetchval(waits, database.name)):
            await asyncio.sleep(0.02)
        if how == "cut":
            proxy.cut()
        await connection.execute("SELECT pg_terminate_backend($1)", pid)
    assert (await writing).duplicates == 0
    assert [row["id"] for row in await rows()] == ids(batch)
    await sink.aclose()


async def test_an_answer_that_was_lost_is_found_out_by_the_same_write(
    database: Database, proxy: Proxy, rows: Rows
) -> None:
    sink = TimescaleSink(proxy.dsn)
    batch = [line("a"), line("b")]
    await sink.ready()
    proxy.lose_answer(b"INSERT 0 2")
    receipt = await sink.write(batch)
    assert (receipt.duplicates, receipt.duplicate_at) == (2, [0, 1])
    assert [row["id"] for row in await rows()] == ids(batch)
    await sink.aclose()


async def test_no_timeout_of_the_server_ends_a_migration(empty_database: Database, tmp_path: Any) -> None:
    (tmp_path / "001_pre_a.sql").write_text("-- A\nCREATE TABLE a (x int);\nSELECT pg_sleep(1.2);")
    (tmp_path / "002_pre_b.sql").write_text("-- B\n-- transaction: no\nSELECT pg_sleep(1.2);")
    for setting in (
        "transaction_timeout",
        "statement_timeout",
        "idle_in_transaction_session_timeout",
        "idle_session_timeout",
    ):
        await limit(empty_database, setting)
    assert len((await migrate(empty_database.dsn, folder=tmp_path)).applied) == 2
    connection = await empty_database.connect()
    await migrate(connection, folder=tmp_path, schema="other")
    assert await connection.fetchval("SHOW transaction_timeout") == "1s"
    assert await connection.fetchval("SHOW idle_session_timeout") == "1s"


async def test_a_write_on_a_wire_that_stalls_asks_for_fewer_events(
    database: Database, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server does not even answer the cancellation: that is not the error to be told."""
    monkeypatch.setattr("asgi_analytics.sinks.timescale.WRITE_TIMEOUT", 0.2)
    monkeypatch.setattr("asgi_analytics.database.pool.CONNECT_TIMEOUT", 0.5)
    sink = TimescaleSink(proxy.dsn)
    await sink.ready()
    proxy.stall()
    with pytest.raises(TransientError, match="the database did not answer in time") as caught:
        await sink.write([line()])
    assert caught.value.fewer
    proxy.cut()
    proxy.resume()
    await sink.aclose()
