"""What is peculiar to a file: no server ends a question, and no rights but those of the file."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from random import Random
from statistics import quantiles
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from asgi_analytics.database.sqlite.times import to_text
from asgi_analytics.errors import ConfigError, NoConnection, NotMigrated, QueryTimeout, ReadError
from asgi_analytics.reading import QUESTIONS, AnalyticsReader, sqlite_functions
from asgi_analytics.reading.statements import Dialect, Statements
from tests.kit.sqlite import SqliteDatabase
from tests.reading.happened import REQUIRED, an_event, insert, random_events

NOW = datetime.now(UTC)
DIALECTS: tuple[Dialect, ...] = ("sqlite", "postgresql")
OF_SERVERS = {"source": {"settings"}, "pipeline": {"exports", "is_filled", "database_plain", "database_timescaledb"}}
"""Statements about a server."""
ENDLESS = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n) SELECT count(*) FROM n"


@pytest.fixture
async def file(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    """Give a migrated file."""
    database = SqliteDatabase(tmp_path / "analytics.db")
    await database.migrate()
    yield database
    await database.close()


def reading(file: SqliteDatabase, **settings: Any) -> AnalyticsReader:
    return AnalyticsReader.from_url(file.dsn, **settings)


async def ask_without_end(reader: AnalyticsReader) -> None:
    async with reader.snapshot() as snapshot:
        await snapshot.records(ENDLESS)


async def test_a_question_that_takes_too_long_is_ended(file: SqliteDatabase) -> None:
    async with reading(file, statement_timeout=0.3, connections=1) as reader:
        with pytest.raises(QueryTimeout, match=r"^no answer within 0.3 s: narrow the range, or raise"):
            await ask_without_end(reader)
        assert (await reader.get_overview_stats()).total_tasks == 0  # the connection is fit for the next


@pytest.mark.parametrize("times", [1, 3])
async def test_cancelling_the_task_ends_the_statement(file: SqliteDatabase, times: int) -> None:
    async with reading(file, statement_timeout=60, connections=1) as reader:
        began = asyncio.Event()
        loop = asyncio.get_running_loop()

        async def ask() -> None:
            async with reader.snapshot() as snapshot:
                loop.call_later(0.05, began.set)  # it runs in its thread by then, or it ends before it does
                await snapshot.records(ENDLESS)

        task = asyncio.create_task(ask())
        await began.wait()
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(10):
            assert (await reader.get_overview_stats()).total_tasks == 0


async def test_the_loop_goes_on_while_a_question_is_answered(file: SqliteDatabase) -> None:
    async with reading(file, statement_timeout=0.5) as reader:
        asked = asyncio.create_task(ask_without_end(reader))
        ticks = 0
        while not asked.done():
            await asyncio.sleep(0)
            ticks += 1
        assert isinstance(asked.exception(), QueryTimeout)
        assert ticks > 100


async def test_a_reader_does_not_wait_for_who_writes_and_sees_one_state(file: SqliteDatabase) -> None:
    connection = await file.connect()
    await insert(connection, random_events(Random(1), 5, NOW, NOW))
    async with reading(file) as reader:
        connection.connection.execute("BEGIN IMMEDIATE")
        connection.connection.execute("DELETE FROM analytics_events")
        async with reader.snapshot() as snapshot:
            [before] = await snapshot.records("SELECT count(*) FROM analytics_events")
            connection.connection.execute("COMMIT")
            [after] = await snapshot.records("SELECT count(*) FROM analytics_events")
        assert [*before, *after] == [5, 5]
        async with reader.snapshot() as snapshot:
            [[last]] = await snapshot.records("SELECT count(*) FROM analytics_events")
        assert last == 0


async def test_a_question_cannot_write(file: SqliteDatabase) -> None:
    async with reading(file) as reader:
        with pytest.raises(ReadError, match="may not be written"):
            async with reader.snapshot() as snapshot:
                await snapshot.records("DELETE FROM analytics_events")


async def test_what_is_in_the_way_is_told(tmp_path: Path) -> None:
    nowhere = SqliteDatabase(tmp_path / "analytics.db")
    async with reading(nowhere) as reader:
        with pytest.raises(NoConnection, match=r"cannot be opened: run analytics-migrate all to make it"):
            await reader.ready()
        assert not (tmp_path / "analytics.db").exists(), "a reader makes no file"
        sqlite3.connect(tmp_path / "analytics.db").close()
        (tmp_path / "analytics.db").write_bytes(b"")
        for name in QUESTIONS:
            with pytest.raises(NotMigrated, match="run analytics-migrate all"):
                await getattr(reader, name)(**REQUIRED.get(name, {}))
    (tmp_path / "analytics.db").write_bytes(b"a text of somebody else's, not a database" * 100)
    async with reading(nowhere) as reader:
        with pytest.raises(NoConnection, match="is not a SQLite database: correct its path"):
            await reader.get_overview_stats()


async def test_no_text_of_a_row_is_in_an_error(file: SqliteDatabase) -> None:
    async with reading(file) as reader:
        with pytest.raises(ReadError) as caught:
            async with reader.snapshot() as snapshot:
                await snapshot.records("SELECT json_extract('a secret value', '$.a')")
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_every_statement_is_written_for_sqlite_too() -> None:
    folder = resources.files("asgi_analytics.reading")
    subjects = sorted(file.name.removesuffix(".sql") for file in folder.iterdir() if file.name.endswith(".sql"))
    assert len(subjects) > 20
    for subject in subjects:
        ours, theirs = (set(Statements(subject).blocks(dialect)) for dialect in DIALECTS)
        if subject != "attempts":  # which are found by a function here
            assert theirs - ours == OF_SERVERS.get(subject, set()), subject
            assert len(ours - theirs) <= (subject == "pipeline"), subject


def test_a_schema_is_refused() -> None:
    with pytest.raises(ConfigError, match="SQLite has no schemas"):
        AnalyticsReader.from_url("sqlite:///analytics.db", schema="stats")


async def test_a_reader_that_is_not_open_says_how_to_open_it(file: SqliteDatabase) -> None:
    with pytest.raises(NoConnection, match="use async with"):
        await reading(file).get_overview_stats()


async def test_closing_waits_for_what_runs_and_leaves_no_thread(file: SqliteDatabase) -> None:
    def threads() -> int:
        return sum("asgi-analytics-reader" in thread.name for thread in threading.enumerate())

    reader = reading(file, statement_timeout=0.3)
    await reader.open()
    asked = asyncio.create_task(ask_without_end(reader))
    await asyncio.sleep(0)
    await reader.aclose()
    assert asked.done()
    assert isinstance(asked.exception(), QueryTimeout)
    async with asyncio.timeout(10):
        while threads():  # they end by themselves
            await asyncio.sleep(0.01)


async def test_many_rows_are_given_in_batches(file: SqliteDatabase) -> None:
    connection = await file.connect()
    one = an_event(Random(1), NOW, "integration_used")
    events = [
        one._replace(id=uuid4(), timestamp=NOW - timedelta(seconds=n), data={"provider": str(n)}) for n in range(12_000)
    ]
    await insert(connection, events)
    sizes: list[int] = []

    async def write(rows: list[Any]) -> None:
        sizes.append(len(rows))

    async with reading(file) as reader:
        await reader.stream("get_integration_health", write)
    assert (sum(sizes), max(sizes)) == (12_000, 1000)


async def test_numbers_of_dashboards_and_of_the_moment(file: SqliteDatabase) -> None:
    connection = await file.connect()
    one = an_event(Random(1), NOW, "api_request")
    times = [NOW - n * timedelta(hours=25) for n in range(1, 11)]
    await insert(
        connection,
        [one._replace(id=uuid4(), timestamp=at, user_id=uuid4(), data={"duration_ms": 10}) for at in times],
    )
    await connection.execute(
        "INSERT INTO dashboard_metrics (widget_id, metric_key, value, previous_value, updated_at)"
        " VALUES ('sales', 'orders', -15, 5, $1)",
        NOW,
    )
    for key, ttl in (("gone", -1), ("queue", 3600)):
        await connection.execute(
            "INSERT INTO analytics_metrics_realtime VALUES ($1, '{\"length\": [2]}', 'hour', $2, $3)",
            key, NOW, NOW + timedelta(seconds=ttl),
        )  # fmt: skip
    async with reading(file) as reader:
        [number] = await reader.get_dashboard_metrics(widget_id="sales")
        assert (number.value, number.previous_value, number.change_percent) == (-15.0, 5.0, -400.0)
        assert number.updated_at == NOW
        overview = {n.metric_key: n for n in await reader.get_dashboard_metrics(widget_id="overview")}
        assert (overview["events"].value, overview["events"].previous_value) == (6.0, 4.0)
        assert (overview["active_users"].value, overview["api_requests"].change_percent) == (6.0, 50.0)
        [moment] = await reader.get_realtime_metrics()
        assert (moment.metric_key, moment.metric_value, moment.time_window) == ("queue", {"length": [2]}, "hour")


async def test_answers_are_of_the_types_that_they_say(file: SqliteDatabase) -> None:
    """What SQLite knows no type for must not go out as a number or a text."""
    connection = await file.connect()
    await insert(connection, random_events(Random(3), 400, NOW - timedelta(days=5), NOW))
    async with reading(file) as reader:
        await reader.create_funnel("checkout", ["task_created", "task_completed"])
        for name, question in QUESTIONS.items():
            if question.changes:
                continue
            arguments = {**REQUIRED.get(name, {}), **({"name": "checkout"} if "{name}" in question.path else {})}
            answer = await getattr(reader, name)(**arguments)
            msgspec.convert(msgspec.to_builtins(answer), question.types["return"], strict=True)


TEXTS: list[tuple[Any, str | None]] = [
    ("a \"text\"", 'a "text"'), ("", ""), (None, None), (True, "true"), (0, "0"), (-5, "-5"), (2.50, "2.5"),
    ({"b": 1, "a": [None, "x", 2.5, False]}, '{"a": [null, "x", 2.5, false], "b": 1}'), ([], "[]"), ({}, "{}"),
    ({"bb": 1, "a": 2}, '{"a": 2, "bb": 1}'), ("ä\n", "ä\n"), ([1, "ä"], '[1, "ä"]'),
]  # fmt: skip


@pytest.mark.parametrize(("value", "text"), TEXTS)
def test_a_text_of_json_is_that_of_postgresql(value: Any, text: str | None) -> None:
    assert sqlite_functions.json_text(json.dumps({"a": {"b": [value]}}), "a", "b", "0") == text
    assert sqlite_functions.json_text(json.dumps({"a": {"b": [value]}}), "a", "b", "-1") == text
    for path in (("a", "c"), ("a", "b", "1"), ("a", "b", "x"), ("x",), ("a", "b", "0", "z")):
        assert sqlite_functions.json_text(json.dumps({"a": {"b": [7]}}), *path) is None


@pytest.mark.parametrize(
    ("number", "text"), [("1e3", "1000"), ("1.50", "1.50"), ("1e-3", "0.001"), ("0.0", "0.0"), ("1" * 30, "1" * 30)]
)
def test_a_number_is_shown_with_its_digits(number: str, text: str) -> None:
    assert sqlite_functions.json_text(f'{{"a": {number}}}', "a") == text


def test_a_quantile_is_that_of_percentile_cont() -> None:
    random = Random(1)
    for size in (2, 3, 10, 101):
        numbers = [random.random() for _ in range(size)]
        found = sqlite_functions.Quantiles()
        for number in [*numbers, None]:
            found.step(number, "[0.25, 0.5, 0.75]")
        assert json.loads(str(found.finalize())) == pytest.approx(quantiles(numbers, n=4, method="inclusive"))
    assert sqlite_functions.Quantiles().finalize() is None
    one = sqlite_functions.Quantile()
    one.step(3, 0.9)
    assert one.finalize() == 3


def test_a_moment_is_microseconds_to_the_last() -> None:
    random = Random(1)
    for _ in range(100):
        at = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(microseconds=random.randrange(3 * 10**15))
        number = sqlite_functions.microseconds(to_text(at))
        assert sqlite_functions.time_of(number) == to_text(at)
    assert sqlite_functions.microseconds("1999-12-31T23:59:59.999999Z") == -1


def test_the_id_of_a_session_is_that_of_postgresql() -> None:
    wanted = UUID(hashlib.md5(b"v1 1764499999.012300").hexdigest())
    assert sqlite_functions.session_id("v1", "2025-11-30T10:53:19.012300Z") == str(wanted)


@pytest.mark.parametrize(
    ("known", "value", "same"),
    [
        ([1], 1.0, True),
        ([1], True, False),
        ([True], True, True),
        ([True], 1, False),
        ([2, 2.5], 2.5, True),
        ([1], "1", False),
    ],
)
def test_equal_values_of_json(known: list[Any], value: Any, same: bool) -> None:
    assert sqlite_functions.is_any(json.dumps(known), json.dumps({"a": value}), "a") is same
