"""Every entry point of asyncpg, against a real server: how many events, which rows."""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from asgi_analytics.testing import CapturedEvents
from tests.instrumentation.asyncpg.cursors import iterate, open_cursor
from tests.instrumentation.queries.asked import brief, queries

Step = Callable[[Any], Awaitable[Any]]


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
