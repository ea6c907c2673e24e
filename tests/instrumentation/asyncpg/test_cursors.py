"""Cursors: one event each, at the end, with what the server sent."""

from __future__ import annotations

import gc
from typing import Any

import asyncpg
import pytest

from asgi_analytics.context import RequestContext, current
from asgi_analytics.testing import CapturedEvents
from tests.instrumentation.asyncpg.cursors import iterate
from tests.instrumentation.queries.asked import brief, queries


async def test_an_iteration_is_one_event(connection: Any, captured: CapturedEvents) -> None:
    assert await iterate(connection, "SELECT generate_series(1, $1::int)", 1000, prefetch=10) == 1000
    assert brief(captured) == [("SELECT", 1000, "ok")]


async def test_an_empty_iteration_is_one_event(connection: Any, captured: CapturedEvents) -> None:
    assert await iterate(connection, "SELECT 1 WHERE false") == 0
    assert brief(captured) == [("SELECT", 0, "ok")]


async def test_an_iteration_that_is_left_counts_what_the_server_sent(connection: Any, captured: CapturedEvents) -> None:
    assert await iterate(connection, "SELECT generate_series(1, 1000)", prefetch=10, stop_at=15) == 15
    gc.collect()
    assert brief(captured) == [("SELECT", 20, "ok")]


async def test_a_cursor_is_one_event_at_its_end(connection: Any, captured: CapturedEvents) -> None:
    async with connection.transaction():
        cursor = await connection.cursor("SELECT * FROM t")
        await cursor.fetch(2)
        await cursor.fetchrow()
        assert queries(captured) == []
        await cursor.fetch(5)
        assert brief(captured) == [("SELECT", 5, "ok")]
        assert await cursor.fetch(5) == []
        del cursor
    gc.collect()
    assert len(queries(captured)) == 1


async def test_a_cursor_that_is_dropped_is_one_event(connection: Any, captured: CapturedEvents) -> None:
    async with connection.transaction():
        cursor = await connection.cursor("SELECT * FROM t")
        await cursor.fetch(2)
        del cursor
        gc.collect()
        assert brief(captured) == [("SELECT", 2, "ok")]


async def test_a_cursor_can_skip_rows(connection: Any, captured: CapturedEvents) -> None:
    async with connection.transaction():
        cursor = await connection.cursor("SELECT * FROM t")
        assert await cursor.forward(2) == 2
        assert await cursor.forward(9) == 3
    assert brief(captured) == [("SELECT", 0, "ok")]


async def test_a_prepared_cursor_is_one_event(connection: Any, captured: CapturedEvents) -> None:
    statement = await connection.prepare("SELECT * FROM t WHERE id > $1")
    async with connection.transaction():
        rows = [row async for row in statement.cursor(1)]
        cursor = await statement.cursor(3)
        await cursor.fetch(100)
    assert len(rows) == 4
    assert brief(captured) == [("SELECT", 4, "ok"), ("SELECT", 2, "ok")]


async def test_a_cursor_that_fails_half_way_tells_how_far_it_came(connection: Any, captured: CapturedEvents) -> None:
    with pytest.raises(asyncpg.DivisionByZeroError):
        await iterate(connection, "SELECT 1 / (25 - n) FROM generate_series(1, 100) n", prefetch=10)
    [event] = queries(captured)
    assert (event.data["outcome"], event.data["sqlstate"], event.data["rows_affected"]) == ("error", "22012", 20)


async def test_a_cursor_needs_a_transaction(connection: Any, captured: CapturedEvents) -> None:
    with pytest.raises(asyncpg.NoActiveSQLTransactionError):
        await connection.cursor("SELECT 1")
    with pytest.raises(asyncpg.NoActiveSQLTransactionError):
        async for _ in connection.cursor("SELECT 1"):
            pass
    assert [event.data["outcome"] for event in queries(captured)] == ["error", "error"]


async def test_a_cursor_belongs_to_the_request_that_opened_it(connection: Any, captured: CapturedEvents) -> None:
    request, other = RequestContext(), RequestContext()
    request.request_id, other.request_id = "first", "second"
    token = current.set(request)
    async with connection.transaction():
        cursor = await connection.cursor("SELECT * FROM t")
        await cursor.fetch(2)
        current.set(other)
        del cursor
        gc.collect()
    current.reset(token)
    [event] = queries(captured)
    assert event.context is not None
    assert event.context["request_id"] == "first"
    assert request.queries is not None
    assert (request.queries.count, request.queries.repeats, other.queries) == (1, 1, None)
    assert request.queries.duration_ms == pytest.approx(event.data["duration_ms"])
