"""Every entry point of psycopg, sync and async, against a real server: how many events, which rows, which outcome."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections.abc import Callable
from typing import Any

import psycopg
import psycopg.types.range
import psycopg_pool
import pytest
from psycopg import sql

from asgi_analytics.context import RequestContext, current
from asgi_analytics.testing import CapturedEvents
from tests.instrumentation.queries.asked import brief, queries
from tests.kit.databases import query

Connection = Any
TABLE = sql.Identifier("t")


async def finished(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result


async def copy_out(connection: Connection, statement: Any) -> int:
    copy = connection.cursor().copy(statement)
    if hasattr(copy, "__enter__"):
        with copy as out:
            return sum(1 for _ in out.rows())
    async with copy as out:
        return len([row async for row in out.rows()])


async def copy_in(connection: Connection) -> None:
    copy = connection.cursor().copy("COPY t FROM STDIN")
    if hasattr(copy, "__enter__"):
        with copy as into:
            into.write_row((8, "x"))
            into.write_row((9, "y"))
    else:
        async with copy as into:
            await into.write_row((8, "x"))
            await into.write_row((9, "y"))


async def stream(connection: Connection, statement: Any, *, stop_at: int | None = None) -> list[Any]:
    rows = connection.cursor().stream(statement)
    found: list[Any] = []
    if hasattr(rows, "__next__"):
        with contextlib.closing(rows):
            for row in rows:
                found.append(row)
                if len(found) == stop_at:
                    break
    else:
        async with contextlib.aclosing(rows):
            async for row in rows:
                found.append(row)
                if len(found) == stop_at:
                    break
    return found


def client_cursor(connection: Connection) -> Any:
    cls = psycopg.ClientCursor if isinstance(connection, psycopg.Connection) else psycopg.AsyncClientCursor
    return cls(connection)


INSERT = "INSERT INTO t VALUES (%s, %s)"
ENTRY_POINTS: dict[str, tuple[Callable[[Connection], Any], str, int | None]] = {
    "execute": (lambda c: c.execute("SELECT * FROM t"), "SELECT", 5),
    "execute by keyword": (lambda c: c.cursor().execute(query="SELECT 1"), "SELECT", 1),
    "execute bytes": (lambda c: c.execute(b"SELECT * FROM t WHERE id > 2"), "SELECT", 3),
    "execute nothing": (lambda c: c.execute("SELECT * FROM t WHERE id = 0"), "SELECT", 0),
    "execute with parameters": (lambda c: c.execute("DELETE FROM t WHERE id > %s", (2,)), "DELETE", 3),
    "execute with names": (lambda c: c.execute("UPDATE t SET name = %(name)s", {"name": ""}), "UPDATE", 5),
    "execute binary": (lambda c: c.cursor(binary=True).execute("SELECT * FROM t"), "SELECT", 5),
    "execute prepared": (lambda c: c.execute("SELECT * FROM t WHERE id > %s", (1,), prepare=True), "SELECT", 4),
    "execute insert": (lambda c: c.execute(INSERT, (6, "x")), "INSERT", 1),
    "execute returning": (lambda c: c.execute("UPDATE t SET name = '' RETURNING id"), "UPDATE", 5),
    "execute create": (lambda c: c.execute("CREATE TEMP TABLE u (a int)"), "CREATE", None),
    "execute script": (lambda c: c.execute("BEGIN; UPDATE t SET name = ''; COMMIT"), "UPDATE", 5),
    "execute composed": (
        lambda c: c.execute(sql.SQL("SELECT {} FROM {} WHERE id < {}").format(sql.Literal("x"), TABLE, 4)),
        "SELECT",
        3,
    ),
    "execute CTE": (lambda c: c.execute("WITH n AS (SELECT 9 AS id) INSERT INTO t SELECT id FROM n"), "INSERT", 1),
    "client cursor": (lambda c: client_cursor(c).execute("SELECT * FROM t WHERE name <> %s", ("x",)), "SELECT", 5),
    "executemany": (lambda c: c.cursor().executemany(INSERT, [(6, "a"), (7, "b")]), "INSERT", 2),
    "executemany returning": (
        lambda c: c.cursor().executemany(f"{INSERT} RETURNING id", [(6, "a"), (7, "b")], returning=True),
        "INSERT",
        2,
    ),
    "stream": (lambda c: stream(c, "SELECT * FROM t"), "SELECT", 5),
    "stream nothing": (lambda c: stream(c, "SELECT * FROM t WHERE false"), "SELECT", 0),
    "copy out": (lambda c: copy_out(c, "COPY t TO STDOUT"), "COPY", 5),
    "copy a query": (lambda c: copy_out(c, sql.SQL("COPY (SELECT * FROM {}) TO STDOUT").format(TABLE)), "COPY", 5),
    "copy in": (copy_in, "COPY", 2),
}


@pytest.mark.parametrize("name", ENTRY_POINTS)
async def test_each_entry_point_makes_one_event(
    connection: Connection, async_connection: Connection, captured: CapturedEvents, name: str
) -> None:
    step, query_type, rows = ENTRY_POINTS[name]
    await finished(step(connection))
    assert brief(captured) == [(query_type, rows, "ok")]
    connection.execute("TRUNCATE t")
    connection.execute("INSERT INTO t SELECT n, 'name ' || n FROM generate_series(1, 5) n")
    captured.clear()
    await finished(step(async_connection))
    assert brief(captured) == [(query_type, rows, "ok")]


MISSING: dict[str, Callable[[Connection], Any]] = {
    "execute": lambda c: c.execute("SELECT * FROM missing"),
    "execute with parameters": lambda c: c.execute("SELECT %s FROM missing", (1,)),
    "execute prepared": lambda c: c.execute("SELECT * FROM missing", prepare=True),
    "executemany": lambda c: c.cursor().executemany("INSERT INTO missing VALUES (%s)", [(1,)]),
    "stream": lambda c: stream(c, "SELECT * FROM missing"),
    "copy": lambda c: copy_out(c, "COPY missing TO STDOUT"),
}


@pytest.mark.parametrize("name", MISSING)
async def test_a_missing_table_is_one_failed_query(
    connection: Connection, async_connection: Connection, captured: CapturedEvents, name: str
) -> None:
    for one in (connection, async_connection):
        captured.clear()
        with pytest.raises(psycopg.errors.UndefinedTable):
            await finished(MISSING[name](one))
        [event] = queries(captured)
        assert (event.data["outcome"], event.data["sqlstate"]) == ("error", "42P01")
        assert "missing" in event.data["statement"]


async def test_a_stream_that_is_left_counts_what_was_taken(
    connection: Connection, async_connection: Connection, captured: CapturedEvents
) -> None:
    for one in (connection, async_connection):
        captured.clear()
        assert len(await stream(one, "SELECT generate_series(1, 1000)", stop_at=15)) == 15
        assert brief(captured) == [("SELECT", 15, "ok")]
        await finished(one.execute("SELECT 1"))  # the connection can be used again


async def test_what_happens_between_two_rows_of_a_stream_is_not_the_querys(
    connection: Connection, captured: CapturedEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(range(0, 10**12, 10**6))
    monkeypatch.setattr("asgi_analytics.instrumentation.queries.open_query.perf_counter_ns", now.__next__)
    for _ in connection.cursor().stream("SELECT generate_series(1, 3)"):
        for _ in range(100):
            next(now)
    [event] = queries(captured)
    assert event.data["duration_ms"] == 4.0  # four steps, one tick each: three rows, and their end


async def test_values_are_not_captured(connection: Connection, captured: CapturedEvents) -> None:
    secret = "hunter2"
    connection.execute("SELECT %s, 'hunter2' -- hunter2", (secret,))
    connection.execute(sql.SQL("SELECT {}").format(sql.Literal(secret)))
    psycopg.ClientCursor(connection).execute("SELECT %s", (secret,))
    with connection.cursor().copy("COPY t FROM STDIN") as copy:
        copy.write_row((8, secret))
    with pytest.raises(psycopg.errors.UniqueViolation):
        connection.execute(INSERT, (8, secret))
    assert len(queries(captured)) == 5
    assert not [event for event in queries(captured) if secret in event.to_json().decode()]


def test_a_composed_query_has_the_text_and_the_table_of_a_plain_one(
    connection: Connection, captured: CapturedEvents
) -> None:
    composed = sql.SQL("SELECT {} FROM {} WHERE {} = {}").format(
        sql.Identifier("name"), sql.Identifier("public", "t"), sql.Identifier("id"), sql.Placeholder()
    )
    connection.execute(composed, (1,))
    [event] = queries(captured)
    assert event.data["statement"] == 'SELECT "name" FROM "public"."t" WHERE "id" = %s'
    assert event.data["table"] == "public.t"


def test_a_query_that_psycopg_refuses_is_refused_by_psycopg(connection: Connection, captured: CapturedEvents) -> None:
    with pytest.raises(psycopg.ProgrammingError):
        connection.execute("SELECT %s", (1, 2))
    with pytest.raises(TypeError):
        connection.execute()
    with pytest.raises(Exception, match="int"):
        connection.execute(5)
    assert [event.data["outcome"] for event in queries(captured)] == ["error"]


# -- outcomes


def test_a_timeout_of_the_server(connection: Connection, captured: CapturedEvents) -> None:
    connection.execute("SET statement_timeout = 50")
    with pytest.raises(psycopg.errors.QueryCanceled):
        connection.execute("SELECT pg_sleep(10)")
    event = queries(captured)[-1]
    assert (event.data["outcome"], event.data["sqlstate"]) == ("timeout", "57014")


async def test_a_cancelled_task(dsn: str, captured: CapturedEvents) -> None:
    connection = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
    running = asyncio.create_task(connection.execute("SELECT pg_sleep(10)"))
    await asyncio.sleep(0.2)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await connection.close()
    [event] = queries(captured)
    assert (event.data["outcome"], event.data["error_type"]) == ("cancelled", "asyncio.exceptions.CancelledError")


async def test_a_connection_that_is_gone(
    dsn: str, connection: Connection, async_connection: Connection, captured: CapturedEvents
) -> None:
    for one in (connection, async_connection):
        captured.clear()
        await asyncio.to_thread(query, dsn, f"SELECT pg_terminate_backend({one.info.backend_pid})")
        for _ in range(2):
            with pytest.raises(psycopg.OperationalError):
                await finished(one.execute("SELECT 1"))
        assert [event.data["outcome"] for event in queries(captured)] == ["error", "error"]


# -- what is not a query of the application


async def test_transactions_and_introspection_make_no_events(
    connection: Connection, async_connection: Connection, captured: CapturedEvents
) -> None:
    with connection.transaction(), contextlib.suppress(ZeroDivisionError), connection.transaction():
        _ = 1 / 0
    for statement in ("BEGIN", "SAVEPOINT a", "ROLLBACK TO SAVEPOINT a", "RELEASE a", "commit;", "", ";"):
        connection.execute(statement)
    connection.autocommit = False
    connection.rollback()
    assert psycopg.types.TypeInfo.fetch(connection, "mood") is not None
    fetched: Any = psycopg.types.range.RangeInfo.fetch(async_connection, "int4range")
    assert await fetched is not None
    assert connection.tpc_recover() == []
    assert await async_connection.tpc_recover() == []
    assert queries(captured) == []


def test_a_pool_makes_no_events_of_its_own(dsn: str, captured: CapturedEvents) -> None:
    def asks(connection: Connection) -> None:
        connection.execute("SELECT 'about the connection'")
        connection.rollback()

    with psycopg_pool.ConnectionPool(dsn, min_size=1, max_size=2, check=asks, reset=asks) as pool:
        for _ in range(3):
            with pool.connection() as connection:
                connection.execute("SELECT 1")
    assert {event.data["statement"] for event in queries(captured)} == {"SELECT ?"}
    assert len(queries(captured)) == 3


# -- threads and requests


def test_threads_do_not_mix(dsn: str, captured: CapturedEvents) -> None:
    counts: dict[int, int | None] = {}

    def work(number: int) -> None:
        request = RequestContext()
        request.request_id = str(number)
        current.set(request)
        with psycopg.connect(dsn, autocommit=True) as connection:
            for _ in range(number):
                assert connection.execute("SELECT %s::int", (number,)).fetchone() == (number,)
        counts[number] = request.queries.count if request.queries else 0

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == {number: number for number in range(8)}
    asked = [event.context["request_id"] for event in queries(captured) if event.context]
    assert sorted(asked) == sorted(str(number) for number in range(8) for _ in range(number))
