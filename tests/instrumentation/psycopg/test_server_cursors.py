"""Server-side cursors: one event each, at the end, with what the server sent."""

from __future__ import annotations

import gc
import warnings
from typing import Any

import psycopg
import pytest

from asgi_analytics.context import RequestContext, current
from asgi_analytics.testing import CapturedEvents
from tests.instrumentation.queries.asked import brief, queries

Connection = Any
SERIES = "SELECT generate_series(1, 100)"


def test_an_iteration_is_one_event(connection: Connection, captured: CapturedEvents) -> None:
    with connection.transaction(), connection.cursor("c") as cursor:
        cursor.itersize = 30
        cursor.execute(SERIES)
        assert queries(captured) == []
        assert len(list(cursor)) == 100
        assert brief(captured) == [("SELECT", 100, "ok")]
    assert len(queries(captured)) == 1


async def test_an_iteration_of_an_async_cursor_is_one_event(
    async_connection: Connection, captured: CapturedEvents
) -> None:
    async with async_connection.transaction(), async_connection.cursor("c") as cursor:
        await cursor.execute(SERIES)
        assert len([row async for row in cursor]) == 100
    assert brief(captured) == [("SELECT", 100, "ok")]


def test_a_cursor_that_is_closed_counts_what_the_server_sent(connection: Connection, captured: CapturedEvents) -> None:
    with connection.transaction(), connection.cursor("c") as cursor:
        cursor.execute(SERIES)
        assert len(cursor.fetchmany(20)) == 20
        assert cursor.fetchone() == (21,)
        cursor.scroll(5)
        assert cursor.fetchone() == (27,)
        assert queries(captured) == []
    assert brief(captured) == [("SELECT", 22, "ok")]


def test_all_at_once(connection: Connection, captured: CapturedEvents) -> None:
    with connection.transaction(), connection.cursor("c") as cursor:
        assert len(cursor.execute(SERIES).fetchall()) == 100
    assert brief(captured) == [("SELECT", 100, "ok")]


def test_a_cursor_that_is_used_again_is_another_query(connection: Connection, captured: CapturedEvents) -> None:
    with connection.transaction(), connection.cursor("c") as cursor:
        cursor.execute(SERIES)
        cursor.fetchmany(7)
        cursor.execute("SELECT 1")
        cursor.fetchall()
    assert brief(captured) == [("SELECT", 7, "ok"), ("SELECT", 1, "ok")]


def test_a_cursor_that_is_dropped_belongs_to_the_request_that_opened_it(
    connection: Connection, captured: CapturedEvents
) -> None:
    request = RequestContext()
    request.request_id = "first"
    token = current.set(request)
    with connection.transaction(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        cursor = connection.cursor("c")
        cursor.execute(SERIES)
        cursor.fetchmany(3)
        current.reset(token)
        del cursor
        gc.collect()
        [event] = queries(captured)
    assert event.context is not None
    assert (event.context["request_id"], event.data["rows_affected"]) == ("first", 3)
    assert request.queries is not None
    assert request.queries.count == 1
    assert request.queries.duration_ms == pytest.approx(event.data["duration_ms"])


def test_a_cursor_that_fails_half_way_is_a_failed_query(connection: Connection, captured: CapturedEvents) -> None:
    with connection.transaction(force_rollback=True), connection.cursor("c") as cursor:
        cursor.itersize = 10
        cursor.execute("SELECT 1 / (25 - n) FROM generate_series(1, 100) n")
        with pytest.raises(psycopg.errors.DivisionByZero):
            list(cursor)
    [event] = queries(captured)
    assert (event.data["outcome"], event.data["sqlstate"], event.data["rows_affected"]) == ("error", "22012", 20)


def test_a_missing_table_is_a_failed_query(connection: Connection, captured: CapturedEvents) -> None:
    with pytest.raises(psycopg.errors.UndefinedTable), connection.transaction(), connection.cursor("c") as cursor:
        cursor.execute("SELECT * FROM missing")
    [event] = queries(captured)
    assert (event.data["outcome"], event.data["sqlstate"]) == ("error", "42P01")
