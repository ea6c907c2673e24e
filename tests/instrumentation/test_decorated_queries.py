"""``capture_query`` and ``capture_errors``: a call is a query; an exception that leaves a call is an error."""

from __future__ import annotations

import asyncio
import gc
import sqlite3

import pytest

from asgi_analytics import capture_errors, capture_query
from asgi_analytics.context import RequestContext, current, suppress
from asgi_analytics.testing import CapturedEvents
from tests.instrumentation.decorated import FUNCTIONS, Boom, call, generator, plain


async def test_a_call_is_a_query(captured: CapturedEvents, request_context: RequestContext) -> None:
    for function in FUNCTIONS:
        captured.clear()
        await call(capture_query(captured.client, "select", "things")(function), 1)
        [event] = captured.of("database_query")
        assert event.data == {
            "query_type": "SELECT",
            "table": "things",
            "fingerprint": event.data["fingerprint"],
            "duration_ms": event.data["duration_ms"],
            "outcome": "ok",
            "endpoint": "/things/{id}",
        }
    assert request_context.queries is not None
    assert (request_context.queries.count, request_context.queries.repeats) == (4, 1)
    assert request_context.queries.duration_ms > 0


async def test_a_call_that_raises_is_a_failed_query(captured: CapturedEvents) -> None:
    class DriverError(Exception):
        sqlstate = "23505"

    outcomes = [
        (ValueError(), ("error", "ValueError", None)),
        (TimeoutError(), ("timeout", "TimeoutError", None)),
        (DriverError(), ("error", f"{DriverError.__module__}.{DriverError.__qualname__}", "23505")),
        (asyncio.CancelledError(), ("cancelled", "asyncio.exceptions.CancelledError", None)),
    ]
    for error, expected in outcomes:
        captured.clear()

        @capture_query(captured.client, "insert")
        def query(error: BaseException = error) -> None:
            raise error

        with pytest.raises(type(error)) as info:
            query()
        assert info.value is error
        [event] = captured.events
        assert (event.data["outcome"], event.data["error_type"], event.data["sqlstate"]) == expected


def test_rows_of_a_cursor(captured: CapturedEvents) -> None:
    database = sqlite3.connect(":memory:")

    @capture_query(captured.client, "insert", "t")
    def insert() -> sqlite3.Cursor:
        return database.execute("INSERT INTO t VALUES (1), (2)")

    database.execute("CREATE TABLE t (a)")
    insert()
    database.close()
    assert captured.events[0].data["rows_affected"] == 2


def test_a_generator_that_is_left_is_a_query_that_went_well(captured: CapturedEvents) -> None:
    rows = capture_query(captured.client, "select")(generator)(1)
    next(rows)
    assert captured.events == []
    rows.close()
    assert [event.data["outcome"] for event in captured.events] == ["ok"]
    capture_query(captured.client, "select")(generator)(1)  # never begun
    gc.collect()
    assert len(captured.events) == 1


def test_the_consumers_time_is_not_the_querys(captured: CapturedEvents, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(0, 10**12, 10**6))
    monkeypatch.setattr("asgi_analytics.instrumentation.decorators.perf_counter_ns", now.__next__)
    for _ in capture_query(captured.client, "select")(generator)(1):
        for _ in range(100):
            next(now)
    assert captured.events[0].data["duration_ms"] == 3.0  # three steps, one tick each


def test_an_excluded_request_and_suppression_make_nothing(
    captured: CapturedEvents, request_context: RequestContext
) -> None:
    query = capture_query(captured.client, "select")(plain)
    with suppress():
        query(1)
    request_context.excluded = True
    query(1)
    assert captured.events == []
    assert request_context.queries is None


async def test_an_exception_is_one_error(captured: CapturedEvents) -> None:
    for function in FUNCTIONS:
        captured.clear()
        await call(capture_errors(captured.client)(function), 1)
        assert captured.events == []
        with pytest.raises(Boom):
            await call(capture_errors(captured.client)(function), 1, b="boom")
        [event] = captured.of("application_error")
        assert (event.data["error_type"], event.data["error_message"]) == (f"{Boom.__module__}.Boom", "boom")
        assert event.data["handled"] is False
        assert event.data["stack"][0]["function"] == function.__name__


@pytest.mark.parametrize("in_request", [True, False])
async def test_nested_layers_report_an_exception_once(captured: CapturedEvents, in_request: bool) -> None:
    @capture_errors(captured.client)
    def inner() -> None:
        raise Boom("once")

    @capture_errors(captured.client)
    async def outer() -> None:
        inner()

    async def work() -> None:
        if in_request:
            current.set(RequestContext())
        with pytest.raises(Boom):
            await outer()
        with pytest.raises(Boom):
            await outer()

    await asyncio.create_task(work())
    assert len(captured.events) == 2  # two exception objects


@pytest.mark.parametrize(
    "error", [asyncio.CancelledError(), KeyboardInterrupt(), SystemExit(), GeneratorExit(), StopIteration()]
)
def test_what_ends_a_program_or_a_task_is_no_error(captured: CapturedEvents, error: BaseException) -> None:
    @capture_errors(captured.client)
    def function() -> None:
        raise error

    with pytest.raises(type(error)):
        function()
    assert captured.events == []
