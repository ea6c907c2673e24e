"""Many connections at once: nothing is mixed up, and nothing is kept alive."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import asyncpg
import pytest

from asgi_analytics.context import RequestContext, current
from asgi_analytics.testing import CapturedEvents
from tests.instrumentation.queries.asked import brief, queries


async def test_a_class_of_the_applications_own(dsn: str, captured: CapturedEvents) -> None:
    class Connection(asyncpg.Connection):  # type: ignore[misc]
        __slots__ = ()

        async def fetch(self, query: str, *args: Any, **kwargs: Any) -> Any:
            return await super().fetch(f"{query} LIMIT 2", *args, **kwargs)

    async with asyncpg.create_pool(dsn, connection_class=Connection, min_size=1, max_size=1) as pool:
        assert len(await pool.fetch("SELECT generate_series(1, 9)")) == 2
    assert brief(captured) == [("SELECT", 2, "ok")]


async def test_a_query_that_waits_for_its_tag_leaves_others_alone(dsn: str, captured: CapturedEvents) -> None:
    asks, reads = await asyncpg.connect(dsn), await asyncpg.connect(dsn)
    waiting = asyncio.create_task(asks.fetchval("SELECT 7 FROM pg_sleep(0.2)"))
    await asyncio.sleep(0.05)
    assert await reads.fetch("SELECT 1, 2 WHERE false") == []
    assert await reads.fetchval("SELECT NULL") is None
    assert await reads.fetch("CREATE TEMP TABLE u AS SELECT 1") == []
    assert not waiting.done()
    assert await waiting == 7
    await asks.close()
    await reads.close()
    assert [event.data["rows_affected"] for event in queries(captured)] == [0, 1, 1, 1]


async def test_a_hundred_connections_at_once_do_not_mix(dsn: str, captured: CapturedEvents) -> None:
    async def work(number: int) -> None:
        request = RequestContext()
        request.request_id = str(number)
        current.set(request)
        for _ in range(number % 4):
            assert await pool.fetchval("SELECT $1::int", number) == number
        assert (request.queries.count if request.queries else 0) == number % 4

    async with asyncpg.create_pool(dsn, min_size=5, max_size=5) as pool:
        await asyncio.gather(*(asyncio.create_task(work(number)) for number in range(100)))
    assert len(queries(captured)) == sum(number % 4 for number in range(100))
    assert all(event.data["rows_affected"] == 1 for event in queries(captured))


async def test_no_connection_is_kept_alive(dsn: str, captured: CapturedEvents) -> None:
    async def use() -> Any:
        connection = await asyncpg.connect(dsn)
        await connection.fetchval("SELECT 1")
        with pytest.raises(asyncpg.PostgresError):
            await connection.fetchval("SELECT * FROM missing")
        async with connection.transaction():
            await connection.cursor("SELECT 1")
            async for _ in connection.cursor("SELECT generate_series(1, 100)", prefetch=10):
                break
        await connection.close()
        return weakref.ref(connection)

    gone = await asyncio.create_task(use())
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("method", ["fetch", "fetchrow", "fetchval"])
async def test_no_result_is_kept_alive(dsn: str, captured: CapturedEvents, method: str) -> None:
    class Result(dict[str, Any]):
        pass

    connection = await asyncpg.connect(dsn)
    await connection.set_type_codec("json", schema="pg_catalog", encoder=str, decoder=lambda text: Result(text=text))

    async def use() -> Any:
        result = await getattr(connection, method)("SELECT '{}'::json AS value")
        while not isinstance(result, Result):
            result = result[0]
        return weakref.ref(result)

    gone = await use()
    await connection.fetch("SELECT 1")  # asyncpg itself keeps the last result of a connection
    gc.collect()
    assert gone() is None
    await connection.close()
