"""How queries end, and what is not a query of the application."""

from __future__ import annotations

import asyncio
import contextlib
import io
from typing import Any

import asyncpg
import pytest

from asgi_analytics.testing import CapturedEvents
from tests.instrumentation.queries.asked import queries
from tests.kit.databases import query


async def test_a_timeout_of_the_driver(connection: Any, captured: CapturedEvents) -> None:
    with pytest.raises(TimeoutError):
        await connection.fetch("SELECT pg_sleep(10)", timeout=0.05)
    [event] = queries(captured)
    assert (event.data["outcome"], event.data["error_type"]) == ("timeout", "TimeoutError")


async def test_a_timeout_of_the_server(connection: Any, captured: CapturedEvents) -> None:
    await connection.execute("SET statement_timeout = 50")
    with pytest.raises(asyncpg.QueryCanceledError):
        await connection.fetch("SELECT pg_sleep(10)")
    event = queries(captured)[-1]
    assert (event.data["outcome"], event.data["sqlstate"]) == ("timeout", "57014")


async def test_a_query_that_another_session_cancels(dsn: str, connection: Any, captured: CapturedEvents) -> None:
    running = asyncio.create_task(connection.fetch("SELECT pg_sleep(10)"))
    await asyncio.sleep(0.05)
    await asyncio.to_thread(query, dsn, f"SELECT pg_cancel_backend({connection.get_server_pid()})")
    with pytest.raises(asyncpg.QueryCanceledError):
        await running
    [event] = [e for e in queries(captured) if "sleep" in e.data["statement"]]
    assert (event.data["outcome"], event.data["sqlstate"]) == ("cancelled", "57014")


async def test_a_cancelled_task(connection: Any, captured: CapturedEvents) -> None:
    running = asyncio.create_task(connection.fetch("SELECT pg_sleep(10)"))
    await asyncio.sleep(0.05)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    [event] = queries(captured)
    assert (event.data["outcome"], event.data["error_type"]) == ("cancelled", "asyncio.exceptions.CancelledError")


async def test_a_connection_that_is_gone(dsn: str, connection: Any, captured: CapturedEvents) -> None:
    await asyncio.to_thread(query, dsn, f"SELECT pg_terminate_backend({connection.get_server_pid()})")
    captured.clear()
    for _ in range(2):
        with pytest.raises(Exception):  # noqa: B017, PT011  # which of asyncpg's many depends on how far the news came
            await connection.fetch("SELECT 1")
    assert [event.data["outcome"] for event in queries(captured)] == ["error", "error"]


async def test_the_exception_is_the_same_object(connection: Any, captured: CapturedEvents) -> None:
    raised = ValueError("of the application")

    def encode(value: object) -> str:
        raise raised

    await connection.set_type_codec("text", schema="pg_catalog", encoder=encode, decoder=str)
    with pytest.raises(asyncpg.DataError) as info:
        await connection.fetch("SELECT $1::text", "x")
    assert info.value.__cause__ is raised
    [event] = queries(captured)  # and none of looking up the type
    assert event.data["statement"] == "SELECT $1::text"


async def test_transactions_make_no_events(connection: Any, captured: CapturedEvents) -> None:
    async with connection.transaction(isolation="serializable", readonly=True, deferrable=True):
        async with connection.transaction(isolation="serializable"):
            pass
        with contextlib.suppress(ZeroDivisionError):
            async with connection.transaction():
                _ = 1 / 0
    for sql in ("BEGIN", "SAVEPOINT a", "ROLLBACK TO SAVEPOINT a", "RELEASE a", "commit;"):
        await connection.execute(sql)
    await connection.fetchrow(";")  # how SQLAlchemy asks whether a connection is alive
    assert queries(captured) == []


async def test_a_pool_makes_no_events_of_its_own(dsn: str, captured: CapturedEvents) -> None:
    async def reset(connection: Any) -> None:
        await connection.execute("SET search_path = public")

    for options in ({}, {"reset": reset}):
        async with asyncpg.create_pool(dsn, min_size=1, max_size=2, **options) as pool:
            for _ in range(3):
                async with pool.acquire():
                    pass
            async with pool.acquire() as connection:
                await connection.reset()
    assert queries(captured) == []


async def test_arguments_are_not_captured(connection: Any, captured: CapturedEvents) -> None:
    secret = "hunter2"
    await connection.fetch("SELECT $1::text, 'hunter2' -- hunter2", secret)
    await connection.executemany("SELECT $1::text", [(secret,)])
    await connection.copy_from_query("SELECT $1::text", secret, output=io.BytesIO())
    await connection.copy_records_to_table("t", records=[(8, secret)])
    with pytest.raises(asyncpg.PostgresError):
        await connection.execute("INSERT INTO t VALUES ($1, $2)", 8, secret)
    assert len(queries(captured)) == 5
    assert not [event for event in queries(captured) if secret in event.to_json().decode()]
