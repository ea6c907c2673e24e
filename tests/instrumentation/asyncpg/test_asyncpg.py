"""Every entry point of asyncpg, against a real server: how many events, which rows, which outcome."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import io
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import asyncpg
import asyncpg.cursor
import asyncpg.pool
import asyncpg.prepared_stmt
import asyncpg.utils
import pytest

from asgi_analytics.context import RequestContext, current
from asgi_analytics.events import EnrichedEvent
from asgi_analytics.instrumentation.asyncpg import instrument_asyncpg
from asgi_analytics.testing import CapturedEvents, capture_events
from tests.kit.databases import query
from tests.kit.servers import Servers

Step = Callable[[Any], Awaitable[Any]]

OWNERS: list[Any] = [
    asyncpg.connection.Connection,
    asyncpg.prepared_stmt.PreparedStatement,
    asyncpg.cursor.BaseCursor,
    asyncpg.cursor.Cursor,
    asyncpg.cursor.CursorIterator,
    asyncpg.pool.PoolConnectionHolder,
    asyncpg.pool.PoolConnectionProxy,
    asyncpg.pool.Pool,
    asyncpg.utils,
]


@pytest.fixture(scope="module")
def dsn(servers: Servers) -> Iterator[str]:
    server = servers.shared("postgresql")
    name = server.create()
    query(server.dsn(name), "CREATE TABLE t (id int PRIMARY KEY, name text)")
    query(server.dsn(name), "CREATE TYPE mood AS ENUM ('fine', 'so so')")
    yield server.dsn(name)
    server.drop(name)


@pytest.fixture
def captured() -> Iterator[CapturedEvents]:
    with capture_events() as captured:
        handle = instrument_asyncpg(captured.client)
        yield captured
        handle.uninstrument()


@pytest.fixture
async def connection(dsn: str, captured: CapturedEvents) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(dsn)
    await connection.execute("TRUNCATE t")
    await connection.execute("INSERT INTO t SELECT n, 'name ' || n FROM generate_series(1, 5) n")
    captured.clear()
    yield connection
    await connection.close()


def queries(captured: CapturedEvents) -> list[EnrichedEvent]:
    return captured.of("database_query")


def brief(captured: CapturedEvents) -> list[tuple[Any, ...]]:
    return [(e.data["query_type"], e.data["rows_affected"], e.data["outcome"]) for e in queries(captured)]


async def copied_out(connection: Any) -> Any:
    return await connection.copy_from_table("t", output=io.BytesIO())


async def prepared(connection: Any, method: str, sql: str, *args: Any, **kwargs: Any) -> Any:
    return await getattr(await connection.prepare(sql), method)(*args, **kwargs)


ENTRY_POINTS: dict[str, tuple[Step, str, int | None]] = {
    "execute": (lambda c: c.execute("SELECT * FROM t"), "SELECT", 5),
    "execute insert": (lambda c: c.execute("INSERT INTO t VALUES (6), (7)"), "INSERT", 2),
    "execute with arguments": (lambda c: c.execute("DELETE FROM t WHERE id > $1", 2), "DELETE", 3),
    "execute select with arguments": (lambda c: c.execute("SELECT * FROM t WHERE id > $1", 2), "SELECT", 3),
    "execute update": (lambda c: c.execute("UPDATE t SET name = ''"), "UPDATE", 5),
    "execute merge": (
        lambda c: c.execute("MERGE INTO t USING (SELECT 1 AS id) s ON s.id = t.id WHEN MATCHED THEN DELETE"),
        "MERGE",
        1,
    ),
    "execute create": (lambda c: c.execute("CREATE TEMP TABLE u (a int)"), "CREATE", None),
    "execute create as": (lambda c: c.execute("CREATE TEMP TABLE v AS SELECT * FROM t"), "CREATE", 5),
    "execute script": (lambda c: c.execute("BEGIN; UPDATE t SET name = ''; COMMIT"), "UPDATE", None),
    "execute by keyword": (lambda c: c.execute(query="SELECT 1", timeout=5), "SELECT", 1),
    "executemany": (lambda c: c.executemany("INSERT INTO t VALUES ($1)", [(6,), (7,)]), "INSERT", None),
    "executemany by keyword": (lambda c: c.executemany(command="SELECT $1::int", args=[(6,)]), "SELECT", None),
    "fetch": (lambda c: c.fetch("SELECT * FROM t"), "SELECT", 5),
    "fetch by keyword": (lambda c: c.fetch(query="SELECT * FROM t WHERE id = 1"), "SELECT", 1),
    "fetch nothing": (lambda c: c.fetch("SELECT * FROM t WHERE id = 0"), "SELECT", 0),
    "fetch insert": (lambda c: c.fetch("INSERT INTO t VALUES (6), (7)"), "INSERT", 2),
    "fetch insert returning": (lambda c: c.fetch("INSERT INTO t VALUES (6), (7) RETURNING id"), "INSERT", 2),
    "fetch into": (lambda c: c.fetch("SELECT * INTO TEMP u FROM t"), "SELECT", 5),
    "fetch cte": (lambda c: c.fetch("WITH n AS (SELECT 9 AS id) INSERT INTO t SELECT id FROM n"), "INSERT", 1),
    "fetchrow": (lambda c: c.fetchrow("SELECT * FROM t"), "SELECT", 1),
    "fetchrow nothing": (lambda c: c.fetchrow("SELECT * FROM t WHERE id = 0"), "SELECT", 0),
    "fetchrow update": (lambda c: c.fetchrow("UPDATE t SET name = ''"), "UPDATE", 5),
    "fetchrow update returning": (lambda c: c.fetchrow("UPDATE t SET id = 1 WHERE id = 1 RETURNING 1"), "UPDATE", 1),
    "fetchval": (lambda c: c.fetchval("SELECT count(*) FROM t"), "SELECT", 1),
    "fetchval null": (lambda c: c.fetchval("SELECT NULL"), "SELECT", 1),
    "fetchval nothing": (lambda c: c.fetchval("SELECT id FROM t WHERE id = 0"), "SELECT", 0),
    "fetchval by keyword": (lambda c: c.fetchval(query="SELECT 1", column=0), "SELECT", 1),
    "fetchmany": (lambda c: c.fetchmany("INSERT INTO t VALUES ($1) RETURNING id", [(6,), (7,)]), "INSERT", 2),
    "fetchmany by keyword": (lambda c: c.fetchmany(query="SELECT $1::int", args=[(6,), (7,)]), "SELECT", 2),
    "fetchmany without rows": (lambda c: c.fetchmany("INSERT INTO t VALUES ($1)", [(6,), (7,)]), "INSERT", None),
    "new type": (lambda c: c.fetch("SELECT 'fine'::mood, $1::mood[]", ["fine"]), "SELECT", 1),
    "prepared fetch": (lambda c: prepared(c, "fetch", "SELECT * FROM t WHERE id > $1", 2), "SELECT", 3),
    "prepared fetch update": (lambda c: prepared(c, "fetch", "UPDATE t SET name = $1", ""), "UPDATE", 5),
    "prepared fetchrow": (lambda c: prepared(c, "fetchrow", "SELECT * FROM t"), "SELECT", 1),
    "prepared fetchval": (lambda c: prepared(c, "fetchval", "SELECT NULL"), "SELECT", 1),
    "prepared fetchval nothing": (lambda c: prepared(c, "fetchval", "SELECT 1 WHERE false"), "SELECT", 0),
    "prepared fetchmany": (lambda c: prepared(c, "fetchmany", "SELECT $1::int", [(1,), (2,)]), "SELECT", 2),
    "prepared executemany": (
        lambda c: prepared(c, "executemany", "DELETE FROM t WHERE id = $1", [(1,)]),
        "DELETE",
        None,
    ),
    "prepared explain": (lambda c: prepared(c, "explain", "SELECT * FROM t", analyze=True), "EXPLAIN", 1),
    "copy_from_table": (copied_out, "COPY", 5),
    "copy_from_query": (lambda c: c.copy_from_query("SELECT * FROM t", output=io.BytesIO()), "COPY", 5),
    "copy_from_query with arguments": (
        lambda c: c.copy_from_query("SELECT * FROM t WHERE id > $1", 2, output=io.BytesIO()),
        "COPY",
        3,
    ),
    "copy_to_table": (lambda c: c.copy_to_table("t", source=io.BytesIO(b"8\tx\n9\ty\n")), "COPY", 2),
    "copy_records_to_table": (lambda c: c.copy_records_to_table("t", records=[(8, "x")]), "COPY", 1),
}


@pytest.mark.parametrize("name", ENTRY_POINTS)
async def test_each_entry_point_makes_one_event(connection: Any, captured: CapturedEvents, name: str) -> None:
    step, query_type, rows = ENTRY_POINTS[name]
    await step(connection)
    assert brief(captured) == [(query_type, rows, "ok")]


@pytest.mark.parametrize("name", ENTRY_POINTS)
async def test_each_entry_point_makes_one_event_through_a_pool(dsn: str, captured: CapturedEvents, name: str) -> None:
    step, query_type, rows = ENTRY_POINTS[name]
    async with asyncpg.create_pool(dsn, min_size=1, max_size=1) as pool, pool.acquire() as proxy:
        await proxy.execute("TRUNCATE t")
        await proxy.execute("INSERT INTO t SELECT n, 'name ' || n FROM generate_series(1, 5) n")
        captured.clear()
        await step(proxy)
    assert brief(captured) == [(query_type, rows, "ok")]


@pytest.mark.parametrize("name", [name for name in ENTRY_POINTS if "prepared" not in name])
async def test_the_pool_has_the_same_methods(dsn: str, captured: CapturedEvents, name: str) -> None:
    step, query_type, rows = ENTRY_POINTS[name]
    async with asyncpg.create_pool(dsn, min_size=1, max_size=1) as pool:
        await pool.execute("TRUNCATE t")
        await pool.execute("INSERT INTO t SELECT n, 'name ' || n FROM generate_series(1, 5) n")
        captured.clear()
        await step(pool)
    assert brief(captured) == [(query_type, rows, "ok")]


MISSING: dict[str, Step] = {
    "execute": lambda c: c.execute("SELECT * FROM missing"),
    "execute with arguments": lambda c: c.execute("SELECT $1 FROM missing", 1),
    "executemany": lambda c: c.executemany("INSERT INTO missing VALUES ($1)", [(1,)]),
    "fetch": lambda c: c.fetch("SELECT * FROM missing"),
    "fetchrow": lambda c: c.fetchrow("SELECT * FROM missing"),
    "fetchval": lambda c: c.fetchval("SELECT * FROM missing"),
    "fetchmany": lambda c: c.fetchmany("SELECT $1 FROM missing", [(1,)]),
    "prepare": lambda c: c.prepare("SELECT * FROM missing"),
    "copy_from_table": lambda c: c.copy_from_table("missing", output=io.BytesIO()),
    "copy_from_query": lambda c: c.copy_from_query("SELECT * FROM missing", output=io.BytesIO()),
    "copy_from_query with arguments": lambda c: c.copy_from_query("SELECT $1 FROM missing", 1, output=io.BytesIO()),
    "copy_to_table": lambda c: c.copy_to_table("missing", source=io.BytesIO()),
    "copy_records_to_table": lambda c: c.copy_records_to_table("missing", records=[]),
    "cursor": lambda c: iterate(c, "SELECT * FROM missing"),
    "awaited cursor": lambda c: open_cursor(c, "SELECT * FROM missing"),
}


async def iterate(connection: Any, sql: str, *args: Any, stop_at: int | None = None, **options: Any) -> int:
    number = 0
    async with connection.transaction():
        async for _ in connection.cursor(sql, *args, **options):
            number += 1
            if number == stop_at:
                break
    return number


async def open_cursor(connection: Any, sql: str, *args: Any) -> None:
    async with connection.transaction():
        await connection.cursor(sql, *args)


@pytest.mark.parametrize("name", MISSING)
async def test_a_missing_table_is_one_failed_query(connection: Any, captured: CapturedEvents, name: str) -> None:
    with pytest.raises(asyncpg.UndefinedTableError):
        await MISSING[name](connection)
    [event] = queries(captured)
    assert (event.data["outcome"], event.data["sqlstate"], event.data["rows_affected"]) in [
        ("error", "42P01", None),
        ("error", "42P01", 0),
    ]
    assert event.data["statement"] is not None
    assert "missing" in event.data["statement"]


async def test_preparing_is_no_query(connection: Any, captured: CapturedEvents) -> None:
    await connection.prepare("SELECT * FROM t")
    assert queries(captured) == []


# -- cursors


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
    assert (request.queries.count, request.queries.repeats, other.queries) == (1, 1, None)
    assert request.queries.duration_ms == pytest.approx(event.data["duration_ms"])


# -- outcomes


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


# -- what is no query of the application


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


# -- patching


def everything() -> dict[tuple[str, str], Any]:
    return {(owner.__name__, name): value for owner in OWNERS for name, value in vars(owner).items()}


def test_uninstrument_leaves_no_trace() -> None:
    before = everything()
    with capture_events() as captured:
        first, second = instrument_asyncpg(captured.client), instrument_asyncpg(captured.client, sample_rate=0.5)
        during = everything()
        assert {key for key in during if during[key] is not before[key]}
        second.uninstrument()
        after = everything()
        assert list(after) == list(before)
        assert all(after[key] is before[key] for key in before)
        again = instrument_asyncpg(captured.client)
        first.uninstrument()
        assert any(value is not before[key] for key, value in everything().items())
        again.uninstrument()
    assert all(value is before[key] for key, value in everything().items())


def test_signatures_and_kinds_stay() -> None:
    def facts() -> dict[tuple[str, str], tuple[Any, ...]]:
        return {
            key: (inspect.signature(value), inspect.iscoroutinefunction(value), value.__name__, value.__qualname__)
            for key, value in everything().items()
            if key in functions
        }

    functions = {key for key, value in everything().items() if inspect.isfunction(value)}
    before = facts()
    with capture_events() as captured:
        handle = instrument_asyncpg(captured.client)
        during = facts()
        handle.uninstrument()
    changed = {key[1] for key in before if before[key] != during[key]}
    assert changed <= {"_execute"}  # private, and awaited all the same


async def test_the_last_client_gets_the_events(dsn: str) -> None:
    with capture_events(service="first") as first, capture_events(service="second") as second:
        instrument_asyncpg(first.client)
        handle = instrument_asyncpg(second.client)
        connection = await asyncpg.connect(dsn)
        await connection.fetch("SELECT 1")
        handle.uninstrument()
        await connection.close()
        assert (len(queries(first)), len(queries(second))) == (0, 1)


async def test_a_query_that_ends_after_uninstrument_is_captured(dsn: str) -> None:
    with capture_events() as captured:
        handle = instrument_asyncpg(captured.client)
        connection = await asyncpg.connect(dsn)
        pending = asyncio.create_task(connection.fetchval("SELECT 7 FROM pg_sleep(0.2)"))
        await asyncio.sleep(0.05)
        handle.uninstrument()
        assert await pending == 7
        await connection.fetch("SELECT 1")
        await connection.close()
        assert len(queries(captured)) == 1


async def test_a_missing_target_is_left_out_with_a_warning(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(asyncpg.connection.Connection, "fetchmany")
    monkeypatch.delattr(asyncpg.cursor.Cursor, "forward")
    with capture_events() as captured:
        with pytest.warns(RuntimeWarning) as caught:
            handle = instrument_asyncpg(captured.client)
        connection = await asyncpg.connect(dsn)
        await connection.fetch("SELECT 1")
        handle.uninstrument()
        await connection.close()
        assert len(queries(captured)) == 1
    assert ["Connection.fetchmany" in str(caught[0].message), "Cursor.forward" in str(caught[1].message)] == [True] * 2
    assert len(caught) == 2
    assert caught[0].filename == __file__


async def test_an_execute_that_gives_no_tag_is_left_alone(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = asyncpg.connection.Connection._execute

    async def of_another_version(self: Any, query: Any, args: Any, limit: Any, timeout: Any, **options: Any) -> Any:
        return await original(self, query, args, limit, timeout, **options)

    monkeypatch.setattr(asyncpg.connection.Connection, "_execute", of_another_version)
    with capture_events() as captured:
        with pytest.warns(RuntimeWarning, match="without their rows"):
            handle = instrument_asyncpg(captured.client)
        connection = await asyncpg.connect(dsn)
        assert await connection.fetchval("SELECT 1") == 1
        assert await connection.fetchrow("SELECT 1 WHERE false") is None
        assert await connection.fetch("CREATE TEMP TABLE u AS SELECT 1") == []
        handle.uninstrument()
        await connection.close()
        assert brief(captured) == [("SELECT", 1, "ok"), ("SELECT", 0, "ok"), ("CREATE", None, "ok")]


async def test_who_replaces_our_replacement_keeps_theirs(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    with capture_events() as captured:
        handle = instrument_asyncpg(captured.client)
        ours = asyncpg.connection.Connection.fetch

        async def theirs(self: Any, *args: Any, **kwargs: Any) -> Any:
            calls.append(args)
            return await ours(self, *args, **kwargs)

        monkeypatch.setattr(asyncpg.connection.Connection, "fetch", theirs)
        connection = await asyncpg.connect(dsn)
        await connection.fetch("SELECT 1")
        handle.uninstrument()
        await connection.fetch("SELECT 2")
        await connection.close()
        assert (len(queries(captured)), len(calls)) == (1, 2)
        assert asyncpg.connection.Connection.fetch is theirs
    monkeypatch.setattr(asyncpg.connection.Connection, "fetch", inspect.unwrap(ours))


async def test_a_class_of_the_applications_own(dsn: str, captured: CapturedEvents) -> None:
    class Connection(asyncpg.Connection):  # type: ignore[misc]
        __slots__ = ()

        async def fetch(self, query: str, *args: Any, **kwargs: Any) -> Any:
            return await super().fetch(f"{query} LIMIT 2", *args, **kwargs)

    async with asyncpg.create_pool(dsn, connection_class=Connection, min_size=1, max_size=1) as pool:
        assert len(await pool.fetch("SELECT generate_series(1, 9)")) == 2
    assert brief(captured) == [("SELECT", 2, "ok")]


async def test_a_tag_is_asked_for_on_its_own_connection_only(dsn: str) -> None:
    with capture_events() as captured:
        handle = instrument_asyncpg(captured.client)
        asks, reads = await asyncpg.connect(dsn), await asyncpg.connect(dsn)
        waiting = asyncio.create_task(asks.fetchval("SELECT pg_sleep(0.2)"))
        while not handle._tap.tags:
            await asyncio.sleep(0)
        await reads.fetch("SELECT 1")
        assert list(handle._tap.tags) == [id(asks)]
        await waiting
        assert handle._tap.tags == {}
        await asks.close()
        await reads.close()
        handle.uninstrument()
        assert [event.data["rows_affected"] for event in queries(captured)] == [1, 1]


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


async def test_no_connection_is_kept_alive(connection: Any, captured: CapturedEvents) -> None:
    from asgi_analytics.instrumentation import asyncpg as module

    await connection.fetchval("SELECT 1")
    with pytest.raises(asyncpg.PostgresError):
        await connection.fetchval("SELECT * FROM missing")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with connection.transaction():
            await connection.cursor("SELECT 1")
    gc.collect()
    assert module._installed is not None
    assert not module._installed.tags
    assert not module._installed.cursors._open
