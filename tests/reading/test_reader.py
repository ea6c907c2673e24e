"""The reader asks with the rights of the reader role, within limits, and says what is wrong without telling secrets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any

import asyncpg
import msgspec
import pytest

from asgi_analytics.errors import ConfigError, InvalidQuery, NoConnection, NotMigrated, QueryTimeout, ReadError
from asgi_analytics.reading import QUESTIONS, AnalyticsReader, question
from asgi_analytics.reading.source import Source
from tests.kit.databases import PASSWORD, Database
from tests.kit.proxy import Proxy
from tests.reading.happened import ABOUT_WHAT_IS_KEPT, REQUIRED, insert, random_events

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


class Slept(msgspec.Struct, frozen=True):
    done: str


async def sleep(source: Source, seconds: float) -> None:
    """Ask something that takes a while."""
    async with source.snapshot() as snapshot:
        await snapshot.row(Slept, "SELECT pg_sleep($1)::text", seconds)


async def running(connection: asyncpg.Connection) -> int:
    sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'"
    return int(await connection.fetchval(sql))


async def until_running(connection: asyncpg.Connection, number: int) -> None:
    async with asyncio.timeout(20):
        while await running(connection) != number:
            await asyncio.sleep(0.01)


@pytest.mark.on_servers("a reader has a pool of asyncpg of the caller's for a server only")
async def test_a_pool_of_the_caller_stays_open(database: Database, reader_dsn: str) -> None:
    async with asyncpg.create_pool(reader_dsn, min_size=1, max_size=2) as pool:
        async with AnalyticsReader(pool) as reader:
            assert (await reader.get_overview_stats()).total_users == 0
        assert await pool.fetchval("SELECT 1") == 1


@pytest.mark.on_servers("SQLite has no such settings")
async def test_settings_last_as_long_as_the_transaction(database: Database, reader_dsn: str) -> None:
    async with asyncpg.create_pool(reader_dsn, min_size=1, max_size=1) as pool:
        reader = AnalyticsReader(pool, statement_timeout=2.5)
        names = ("statement_timeout", "work_mem", "jit", "transaction_read_only", "timezone", "transaction_isolation")
        ask = "SELECT " + ", ".join(f"current_setting('{name}')" for name in names)
        before = await pool.fetchrow(ask)
        async with reader.snapshot() as snapshot:
            [inside] = await snapshot.records(ask)
        assert tuple(inside) == ("2500ms", "64MB", "off", "on", "UTC", "repeatable read")
        assert await pool.fetchrow(ask) == before


async def test_one_question_sees_one_state_of_the_database(database: Database, reader: AnalyticsReader) -> None:
    writer = await database.connect()
    async with reader.snapshot() as snapshot:
        [(before,)] = await snapshot.records("SELECT count(*) FROM analytics_events")
        await insert(writer, random_events(Random(1), 5, NOW, NOW))
        [(after,)] = await snapshot.records("SELECT count(*) FROM analytics_events")
    assert (before, after) == (0, 0)


@pytest.mark.on_servers("test_sqlite.py has the same for a file")
async def test_a_question_that_takes_too_long_is_ended_in_the_server(database: Database, reader_dsn: str) -> None:
    connection = await database.connect()
    async with AnalyticsReader.from_url(reader_dsn, statement_timeout=1) as reader:
        with pytest.raises(QueryTimeout, match=r"^no answer within 1 s: narrow the range, or raise"):
            await sleep(reader, 60)
        assert await running(connection) == 0
        assert (await reader.get_overview_stats()).total_tasks == 0  # the connection is fit for the next


@pytest.mark.on_servers("test_sqlite.py has the same for a file")
async def test_cancelling_the_task_cancels_the_statement_in_the_server(
    database: Database, reader: AnalyticsReader
) -> None:
    connection = await database.connect()
    task = asyncio.create_task(sleep(reader, 60))
    await until_running(connection, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until_running(connection, 0)
    assert (await reader.get_overview_stats()).total_tasks == 0


@pytest.mark.on_servers("a file is never silent")
async def test_a_server_that_falls_silent_is_given_up(database: Database, reader_dsn: str, monkeypatch: Any) -> None:
    monkeypatch.setattr("asgi_analytics.reading.source.LATE", 0.2)
    host = Proxy(database.cluster.host, database.cluster.port, reader_dsn)
    try:
        async with AnalyticsReader.from_url(host.dsn, statement_timeout=2) as reader:
            await reader.get_overview_stats()
            host.stall()
            began = asyncio.get_running_loop().time()
            with pytest.raises(NoConnection, match="does not answer: check the host, the port and the network"):
                await reader.get_overview_stats()
            assert asyncio.get_running_loop().time() - began < 10, "that is no limit of ours"
    finally:
        host.close()


@pytest.mark.on_servers("test_sqlite.py has the same for a file")
async def test_a_question_that_is_cancelled_twice_leaves_no_transaction_to_the_next(
    database: Database, reader_dsn: str
) -> None:
    host = Proxy(database.cluster.host, database.cluster.port, reader_dsn)
    try:
        async with AnalyticsReader.from_url(host.dsn, connections=1) as reader:
            async with reader.snapshot() as snapshot:
                [(before,)] = await snapshot.records("SELECT pg_backend_pid()")
            host.stall()
            asked = asyncio.create_task(reader.get_overview_stats())
            for _ in range(2):  # while it asks, and while it ends its transaction
                await asyncio.sleep(0.2)
                asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
            host.resume()
            async with reader.snapshot() as snapshot:
                [(after,)] = await snapshot.records("SELECT pg_backend_pid()")
            assert after != before
    finally:
        host.close()


@pytest.mark.on_servers("test_sqlite.py has the same for a file")
async def test_a_database_that_is_away_is_said_to_be_and_is_asked_again(
    database: Database, reader_dsn: str, make_proxy: Callable[..., Proxy]
) -> None:
    proxy = Proxy(database.cluster.host, database.cluster.port, reader_dsn)
    try:
        async with AnalyticsReader.from_url(proxy.dsn) as reader:
            await reader.get_overview_stats()
            proxy.refuse()
            proxy.cut()
            for _ in range(2):
                with pytest.raises(NoConnection, match="cannot be reached: start the server") as caught:
                    await reader.get_overview_stats()
                assert "pass" not in str(caught.value).replace("password", "")
            proxy.accept()
            await reader.get_overview_stats()
    finally:
        proxy.close()


@pytest.mark.on_servers("a file has no connections")
async def test_a_connection_that_ends_at_this_moment_is_no_error_of_ours(database: Database) -> None:
    async with AnalyticsReader.from_url(database.dsn) as reader:
        await reader.get_overview_stats()
        await database.end_connections()
        with pytest.raises(NoConnection, match="cannot be reached: start the server"):
            await reader.get_overview_stats()
        await reader.get_overview_stats()


async def test_opening_does_not_need_the_database() -> None:
    async with AnalyticsReader.from_url("postgresql://nobody:secret@127.0.0.1:1/none") as reader:
        with pytest.raises(NoConnection, match=r'database "none" on 127.0.0.1:1 as "nobody" cannot be reached'):
            await reader.get_pipeline_health()


@pytest.mark.on_servers("a file has no password")
async def test_a_wrong_password_is_said_without_telling_it(database: Database) -> None:
    dsn = database.cluster.dsn(database.name, "postgres", "wr0ng")
    async with AnalyticsReader.from_url(dsn) as reader:
        with pytest.raises(NoConnection, match="does not accept the user or the password") as caught:
            await reader.get_overview_stats()
    assert "wr0ng" not in str(caught.value)
    assert PASSWORD not in str(caught.value)


@pytest.mark.on_servers("test_sqlite.py has the same for a file")
async def test_a_database_that_does_not_exist_is_named(database: Database) -> None:
    async with AnalyticsReader.from_url(database.cluster.dsn("nowhere")) as reader:
        with pytest.raises(NoConnection, match=r'database "nowhere" on .* does not exist'):
            await reader.get_overview_stats()


async def test_every_question_says_that_nothing_is_migrated(empty_database: Database) -> None:
    async with AnalyticsReader.from_url(empty_database.dsn) as reader:
        for name in QUESTIONS:
            with pytest.raises(NotMigrated, match="run analytics-migrate all"):
                await getattr(reader, name)(**REQUIRED.get(name, {}))


@pytest.mark.on_servers("rights on a file are those of the file")
async def test_missing_rights_name_the_command(database: Database, reader_dsn: str) -> None:
    admin = await database.connect()
    login = f"login_{database.name}"
    await admin.execute(f'REVOKE "reader_{database.name}" FROM "{login}"')
    async with AnalyticsReader.from_url(reader_dsn) as reader:
        with pytest.raises(ReadError, match=r"run analytics-migrate roles, then GRANT analytics_reader"):
            await reader.get_overview_stats()


@pytest.mark.on_servers("test_sqlite.py has the same for a file")
async def test_no_error_of_the_server_is_quoted(database: Database, reader: AnalyticsReader) -> None:
    async with reader.snapshot() as snapshot:
        with contextlib.suppress(asyncpg.PostgresError):
            await snapshot.records("SELECT 'a secret value'::integer")
    with pytest.raises(ReadError) as caught:
        async with reader.snapshot() as snapshot:
            await snapshot.records("SELECT 'a secret value'::integer")
    assert str(caught.value).endswith("did not answer the question (SQLSTATE 22P02): see the log of the server")
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


async def test_an_answer_is_never_cut(database: Database, reader: AnalyticsReader) -> None:
    async with reader.snapshot() as snapshot:
        numbers = "WITH RECURSIVE g (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM g WHERE n < {})"
        rows = f"{numbers} SELECT CAST(n AS text) FROM g"
        assert len(await snapshot.rows(Slept, rows.format(10_000))) == 10_000
        with pytest.raises(InvalidQuery, match="more than 10,000 rows: narrow the range, or page"):
            await snapshot.rows(Slept, rows.format(10_001))


async def test_a_reader_that_is_not_open_says_how_to_open_it() -> None:
    with pytest.raises(NoConnection, match="use async with"):
        await AnalyticsReader.from_url("postgresql://localhost/none").get_overview_stats()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"timezone": "Berlin"}, "timezone: must be the IANA name"),
        ({"statement_timeout": 0}, "statement_timeout must be from"),
        ({"schema": ""}, "schema"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AnalyticsReader.from_url("postgresql://localhost/none", **settings)


def test_a_url_is_not_a_pool() -> None:
    with pytest.raises(ConfigError, match=r"use AnalyticsReader.from_url"):
        AnalyticsReader("postgresql://localhost/none")


async def test_an_answer_says_what_it_is_about(database: Database, reader_dsn: str) -> None:
    async with AnalyticsReader.from_url(reader_dsn, timezone="Europe/Berlin", clock=lambda: NOW) as reader:
        answered = await reader.answer("get_endpoint_latency", bucket="day", start=date(2026, 11, 1))
        assert answered.results == []
        meta = answered.meta
        assert meta.start == datetime(2026, 10, 31, 23, tzinfo=UTC)
        assert meta.end == datetime(2026, 11, 29, 23, tzinfo=UTC)
        assert (meta.timezone, meta.complete_until, meta.approximate) == ("Europe/Berlin", NOW, True)
        assert meta.definition.startswith("Count the requests to each endpoint")
        over = await reader.answer(
            "get_endpoint_latency", start=date(2026, 11, 1), end=date(2026, 11, 2), timezone="UTC"
        )
        assert (over.meta.timezone, over.meta.complete_until) == ("UTC", datetime(2026, 11, 3, tzinfo=UTC))
        assert not over.meta.approximate
        overview = (await reader.answer("get_overview_stats")).meta
        assert (overview.start, overview.end, overview.complete_until) == (None, None, NOW)
        assert overview.definition.startswith("Count all users")
        with pytest.raises(InvalidQuery, match=r"question: must be one of .*get_overview_stats"):
            await reader.answer("drop_everything")


@pytest.mark.parametrize("name", QUESTIONS)
def test_every_question_says_what_it_counts_in_one_sentence_and_has_types(name: str) -> None:
    asked = QUESTIONS[name]
    assert asked.definition.endswith(".")
    assert 30 < len(asked.definition) < 160
    assert ("service" in asked.signature.parameters) is (name not in ABOUT_WHAT_IS_KEPT)
    for parameter in asked.signature.parameters.values():
        assert parameter.annotation is not parameter.empty
    assert asked.signature.return_annotation not in (None, asked.signature.empty)
    # An API makes its description of these.
    msgspec.json.schema_components([asked.signature.return_annotation])


def test_a_question_is_found_by_being_one() -> None:
    @question("/test")
    async def count_nothing(source: Source, *, service: str | None = None) -> int:
        """Count nothing."""
        return 0

    try:
        assert QUESTIONS["count_nothing"].definition == "Count nothing."
    finally:
        del QUESTIONS["count_nothing"]


async def test_the_time_of_a_question_is_one(database: Database, reader_dsn: str) -> None:
    ticks = iter(NOW + timedelta(seconds=n) for n in range(100))
    async with AnalyticsReader.from_url(reader_dsn, clock=lambda: next(ticks)) as reader:
        answered = await reader.answer("get_overview_stats")
    assert answered.meta.complete_until == NOW
