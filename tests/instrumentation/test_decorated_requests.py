"""``capture_request``: a call is a request, with the outcome that the middleware would say."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Generator, Iterator
from typing import Any

import pytest

from asgi_analytics import AnalyticsMiddleware, capture_query, capture_request, set_user
from asgi_analytics.context import current
from asgi_analytics.testing import CapturedEvents
from tests.instrumentation.decorated import FUNCTIONS, Boom, call


async def test_a_call_is_a_request(captured: CapturedEvents) -> None:
    for function in FUNCTIONS:
        captured.clear()
        await call(capture_request(captured.client)(function), 1)
        [event] = captured.of("api_request")
        assert event.data == {
            "method": "_OTHER",
            "endpoint": function.__qualname__,
            "status_code": 200,
            "duration_ms": event.data["duration_ms"],
            "outcome": "ok",
        }


async def test_a_call_that_raises_is_a_failed_request(captured: CapturedEvents) -> None:
    for function in FUNCTIONS:
        captured.clear()
        with pytest.raises(Boom):
            await call(capture_request(captured.client, "/named")(function), 1, b="boom")
        [event] = captured.events
        assert (event.data["endpoint"], event.data["status_code"], event.data["outcome"]) == ("/named", 500, "error")
        assert event.data["error_type"] == f"{Boom.__module__}.Boom"


async def test_a_call_that_is_cancelled_is_no_error(captured: CapturedEvents) -> None:
    @capture_request(captured.client)
    async def handler() -> None:
        await asyncio.sleep(10)

    task = asyncio.create_task(handler())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    [event] = captured.events
    assert (event.data["status_code"], event.data["outcome"], event.data["error_type"]) == (499, "cancelled", None)


class ClientDisconnect(Exception):
    """As Starlette names it."""


class WebSocketDisconnect(Exception):
    """As Starlette names it."""


class Cancelled(BaseException):
    """As trio names it."""


ENDS: dict[str, tuple[BaseException, int, str]] = {
    "an error": (Boom(), 500, "error"),
    "a client that left": (ClientDisconnect(), 499, "disconnected"),
    "a WebSocket client that left": (WebSocketDisconnect(), 499, "disconnected"),
    "a task that is cancelled": (asyncio.CancelledError(), 499, "cancelled"),
    "a cancel scope of trio": (Cancelled(), 499, "cancelled"),
    "Ctrl-C": (KeyboardInterrupt(), 499, "cancelled"),
    "a coroutine that is thrown away": (GeneratorExit(), 499, "cancelled"),
    "the end of the program": (SystemExit(), 500, "error"),
    "a group of one": (ExceptionGroup("g", [Boom()]), 500, "error"),
    "a group of a group": (ExceptionGroup("g", [ExceptionGroup("h", [ClientDisconnect()])]), 499, "disconnected"),
    "a group with an error": (BaseExceptionGroup("g", [asyncio.CancelledError(), Boom()]), 500, "error"),
    "a group without": (BaseExceptionGroup("g", [Cancelled(), ClientDisconnect()]), 499, "disconnected"),
    "a group of cancellations": (BaseExceptionGroup("g", [Cancelled(), asyncio.CancelledError()]), 499, "cancelled"),
}


@pytest.mark.parametrize("name", ENDS)
async def test_an_end_is_what_it_is_under_the_middleware(captured: CapturedEvents, name: str) -> None:
    error, status, outcome = ENDS[name]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise error

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    for captures in (AnalyticsMiddleware(app, client=captured.client), capture_request(captured.client)(app)):
        # Stepped by hand: an event loop would stop at some of these.
        with pytest.raises(type(error)) as info:
            captures(scope, None, None).send(None)
        assert info.value is error
    under, alone = captured.of("api_request")
    facts = ("method", "status_code", "outcome", "error_type")
    assert [under.data[fact] for fact in facts] == [alone.data[fact] for fact in facts]
    assert (alone.data["status_code"], alone.data["outcome"]) == (status, outcome)
    assert (alone.data["error_type"] is None) is (outcome != "error")


async def test_what_a_call_leaves_running_is_no_part_of_it(captured: CapturedEvents) -> None:
    @capture_query(captured.client, "select")
    def query() -> None: ...

    @capture_request(captured.client)
    async def nested() -> None: ...

    async def later() -> None:
        await ended.wait()
        query()
        await nested()

    @capture_request(captured.client, "first")
    async def handler() -> asyncio.Task[None]:
        set_user("ada")
        query()
        return asyncio.create_task(later())

    ended = asyncio.Event()
    task = await handler()
    ended.set()
    await task
    first, second = captured.of("api_request")
    assert (first.data["endpoint"], first.data["db_queries"]) == ("first", 1)
    assert second.data["endpoint"].endswith("nested")
    assert [event.data["endpoint"] for event in captured.of("database_query")] == ["first", None]
    assert second.user_id == first.user_id is not None  # it still says who asked


async def test_a_call_that_fails_is_over_too(captured: CapturedEvents) -> None:
    @capture_request(captured.client)
    async def handler() -> None:
        kept.append(current.get())
        raise Boom

    @capture_request(captured.client)
    def streaming() -> Generator[int, None, None]:
        kept.append(current.get())
        yield 1
        yield 2

    kept: list[Any] = []
    with pytest.raises(Boom):
        await handler()
    rows = streaming()
    next(rows)
    assert [request.is_running for request in kept] == [False, True]
    rows.close()
    assert [request.is_running for request in kept] == [False, False]


async def test_the_status_is_that_of_the_response(captured: CapturedEvents) -> None:
    class Response:
        status_code = 201

    @capture_request(captured.client)
    async def handler() -> Response:
        return Response()

    await handler()
    assert captured.events[0].data["status_code"] == 201


@pytest.mark.parametrize(
    ("argument", "method"),
    [
        ({"type": "http", "method": "PUT"}, "PUT"),
        ({"type": "http", "method": "BREW"}, "_OTHER"),
        ({"type": "websocket"}, "WEBSOCKET"),
        ({"method": "of payment"}, "_OTHER"),
        (type("Request", (), {"method": "POST"})(), "POST"),
        (type("Request", (), {"scope": {"type": "http", "method": "PATCH"}})(), "PATCH"),
        (type("Socket", (), {"scope": {"type": "websocket"}})(), "WEBSOCKET"),
        (type("Request", (), {"method": 7})(), "_OTHER"),
        (None, "_OTHER"),
    ],
)
async def test_the_method_is_that_of_an_argument(captured: CapturedEvents, argument: Any, method: str) -> None:
    @capture_request(captured.client)
    async def handler(payment: object, request: object) -> None: ...

    await handler(type("Payment", (), {"method": "card"})(), argument)
    await handler(1, request=argument)
    assert [event.data["method"] for event in captured.events] == [method] * 2


async def test_what_happens_in_the_call_belongs_to_it(captured: CapturedEvents) -> None:
    @capture_query(captured.client, "select")
    def query() -> None: ...

    @capture_request(captured.client)
    async def handler() -> None:
        set_user(42)
        for _ in range(3):
            query()

    @capture_request(captured.client)
    def streaming() -> Iterator[int]:
        set_user(42)
        query()
        yield 1
        query()

    await handler()
    for _ in streaming():
        assert current.get() is None
    assert current.get() is None
    first, second = captured.of("api_request")
    assert (first.data["db_queries"], first.data["db_repeats"]) == (3, 3)
    assert (second.data["db_queries"], second.data["db_repeats"]) == (2, 2)
    assert first.user_id == second.user_id is not None
    assert {event.data["endpoint"] for event in captured.of("database_query")} == {
        first.data["endpoint"],
        second.data["endpoint"],
    }


async def test_a_user_who_was_named_before_is_the_calls(captured: CapturedEvents) -> None:
    @capture_request(captured.client)
    async def job() -> None: ...

    async def worker() -> None:
        set_user("ada")
        await job()

    await asyncio.create_task(worker())
    [event] = captured.events
    assert event.user_id is not None


async def test_below_another_there_is_no_second_event(captured: CapturedEvents) -> None:
    @capture_request(captured.client)
    async def inner() -> None: ...

    @capture_request(captured.client, "outer")
    async def outer() -> None:
        await inner()

    await outer()
    assert [event.data["endpoint"] for event in captured.events] == ["outer"]


def test_a_callable_object_and_a_partial_have_a_name(captured: CapturedEvents) -> None:
    class Importer:
        def __call__(self, rows: int) -> int:
            return rows

    def load(rows: int) -> int:
        return rows

    assert capture_request(captured.client)(Importer())(3) == 3
    assert capture_request(captured.client)(functools.partial(load, 4))() == 4
    assert capture_query(captured.client, "select")(Importer())(5) == 5
    here = "test_a_callable_object_and_a_partial_have_a_name.<locals>"
    assert [event.data["endpoint"] for event in captured.of("api_request")] == [f"{here}.Importer", f"{here}.load"]
    assert len(captured.of("database_query")) == 1
