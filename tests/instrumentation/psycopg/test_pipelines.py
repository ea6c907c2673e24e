"""Pipeline mode: a query is one event when its result has come, and its failure is its own."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from asgi_analytics.context import RequestContext, current
from asgi_analytics.testing import CapturedEvents
from tests.instrumentation.queries.asked import brief, queries
from tests.kit.databases import query

Connection = Any

pytestmark = pytest.mark.skipif(not psycopg.Pipeline.is_supported(), reason="libpq is older than 14")


def send(connection: Connection, *statements: str) -> None:
    with connection.pipeline():
        for statement in statements:
            connection.execute(statement)


def test_each_query_is_one_event_when_its_result_has_come(connection: Connection, captured: CapturedEvents) -> None:
    with connection.pipeline() as pipeline:
        selected = connection.execute("SELECT * FROM t")
        updated = connection.execute("UPDATE t SET name = %s WHERE id > %s", ("x", 2))
        assert queries(captured) == []
        pipeline.sync()
        assert brief(captured) == [("SELECT", 5, "ok"), ("UPDATE", 3, "ok")]
        deleted = connection.execute("DELETE FROM t")
    assert brief(captured)[2:] == [("DELETE", 5, "ok")]
    assert (selected.rowcount, updated.rowcount, deleted.rowcount) == (5, 3, 5)


async def test_an_async_pipeline(async_connection: Connection, captured: CapturedEvents) -> None:
    async with async_connection.pipeline():
        for number in range(20):
            await async_connection.execute("SELECT %s::int", (number,), prepare=True)
    assert brief(captured) == [("SELECT", 1, "ok")] * 20


def test_one_cursor_can_send_several_queries(connection: Connection, captured: CapturedEvents) -> None:
    cursor = connection.cursor()
    with connection.pipeline():
        cursor.execute("SELECT 1")
        cursor.executemany("INSERT INTO t VALUES (%s)", [(6,), (7,), (8,)])
        cursor.execute("SELECT * FROM t")
    assert brief(captured) == [("SELECT", 1, "ok"), ("INSERT", 3, "ok"), ("SELECT", 8, "ok")]


def test_a_failure_is_that_of_its_query_and_ends_the_ones_behind_it(
    connection: Connection, captured: CapturedEvents
) -> None:
    with pytest.raises(psycopg.errors.UndefinedTable):
        send(connection, "SELECT 1", "SELECT * FROM missing", "SELECT 2, 3")
    assert brief(captured) == [("SELECT", 1, "ok"), ("SELECT", None, "error"), ("SELECT", None, "error")]
    kinds = [event.data["error_type"] for event in queries(captured)]
    assert kinds[:2] == [None, "psycopg.errors.UndefinedTable"]
    assert kinds[2] in ("psycopg.errors.PipelineAborted", kinds[1])  # before 3.2 there is no answer to what is behind
    assert connection.execute("SELECT 1").fetchall() == [(1,)]


def test_a_query_that_meets_the_failure_of_another_is_not_to_blame(
    connection: Connection, captured: CapturedEvents
) -> None:
    with connection.pipeline():
        failing = connection.execute("SELECT * FROM missing")
        with pytest.raises(psycopg.errors.UndefinedTable):
            failing.fetchall()
    with connection.pipeline() as pipeline:
        connection.execute("SELECT 1")
        pipeline.sync()
        with pytest.raises(psycopg.ProgrammingError):
            connection.execute("SELECT %s", (1, 2))
    assert [outcome for _, _, outcome in brief(captured)] == ["error", "ok", "error"]


def test_a_connection_that_is_gone_fails_what_was_sent(
    dsn: str, connection: Connection, captured: CapturedEvents
) -> None:
    query(dsn, f"SELECT pg_terminate_backend({connection.info.backend_pid})")
    with pytest.raises(psycopg.OperationalError):
        send(connection, "SELECT 1")
    assert [outcome for _, _, outcome in brief(captured)] == ["error"]


def test_the_request_counts_each_query_once(connection: Connection, captured: CapturedEvents) -> None:
    request = RequestContext()
    token = current.set(request)
    with connection.pipeline():
        for _ in range(3):
            connection.execute("SELECT 1")
    current.reset(token)
    assert request.queries is not None
    assert (request.queries.count, request.queries.repeats) == (3, 3)
    assert request.queries.duration_ms == pytest.approx(sum(event.data["duration_ms"] for event in queries(captured)))
