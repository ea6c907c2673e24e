"""The decorators: what they capture, and that nobody notices them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import inspect
import pickle
import sqlite3
import weakref
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any, Protocol, TypeVar

import pytest

from asgi_analytics import capture_errors, capture_query, capture_request, set_user
from asgi_analytics.context import RequestContext, current, suppress
from asgi_analytics.errors import ConfigError
from asgi_analytics.testing import CapturedEvents, capture_events


@pytest.fixture
def captured() -> Iterator[CapturedEvents]:
    with capture_events() as captured:
        yield captured


@pytest.fixture
def request_context() -> Iterator[RequestContext]:
    request = RequestContext()
    request.method, request.endpoint = "GET", "/things/{id}"
    token = current.set(request)
    yield request
    current.reset(token)


F = TypeVar("F")


class Decorator(Protocol):
    def __call__(self, function: F, /) -> F: ...


DECORATORS: dict[str, Callable[[Any], Any]] = {
    "request": capture_request,
    "query": lambda client: capture_query(client, "select"),
    "errors": capture_errors,
}
every_decorator = pytest.mark.parametrize("name", DECORATORS)


@pytest.fixture
def decorate(name: str, captured: CapturedEvents) -> Any:
    return DECORATORS[name](captured.client)


class Boom(Exception):
    pass


def plain(a: int, *, b: str = "x") -> tuple[int, str]:
    """Say."""
    if b == "boom":
        raise Boom(b)
    return a, b


async def coroutine(a: int, *, b: str = "x") -> tuple[int, str]:
    """Say."""
    await asyncio.sleep(0)
    if b == "boom":
        raise Boom(b)
    return a, b


def generator(a: int, *, b: str = "x") -> Generator[int, None, None]:
    """Say."""
    yield a
    if b == "boom":
        raise Boom(b)
    yield a + 1


async def async_generator(a: int, *, b: str = "x") -> AsyncIterator[int]:
    """Say."""
    yield a
    await asyncio.sleep(0)
    if b == "boom":
        raise Boom(b)
    yield a + 1


FUNCTIONS = [plain, coroutine, generator, async_generator]
every_function = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)


async def call(function: Any, *args: Any, **kwargs: Any) -> Any:
    result = function(*args, **kwargs)
    if inspect.isawaitable(result):
        return await result
    if inspect.isgenerator(result):
        return list(result)
    if inspect.isasyncgen(result):
        return [item async for item in result]
    return result


# -- nobody notices


@every_decorator
@every_function
async def test_results_and_exceptions_are_the_functions(decorate: Decorator, function: Any) -> None:
    decorated = decorate(function)
    assert await call(decorated, 1, b="y") == await call(function, 1, b="y")
    with pytest.raises(Boom):
        await call(decorated, 1, b="boom")
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'a'"):
        decorated()


@every_decorator
@every_function
def test_the_function_looks_like_itself(decorate: Decorator, function: Any) -> None:
    decorated = decorate(function)
    assert inspect.signature(decorated) == inspect.signature(function)
    for attribute in ("__name__", "__qualname__", "__module__", "__doc__", "__code__", "__annotations__"):
        assert getattr(decorated, attribute) == getattr(function, attribute)
    for kind in (
        inspect.iscoroutinefunction,
        inspect.isgeneratorfunction,
        inspect.isasyncgenfunction,
        inspect.isfunction,
        asyncio.iscoroutinefunction,
    )[: 4 if hasattr(inspect, "markcoroutinefunction") else 5]:
        assert kind(decorated) == kind(function)
    assert decorated.__wrapped__ is function
    assert isinstance(decorated, type(function))


@every_decorator
async def test_methods_of_every_kind(decorate: Decorator) -> None:
    class Repository:
        name = "things"

        @decorate
        def method(self, a: int) -> Any:
            return self.name, a

        @decorate
        async def coroutine(self, a: int) -> Any:
            return self.name, a

        @decorate
        @classmethod
        def above_classmethod(cls, a: int) -> Any:
            return cls, a

        @classmethod
        @decorate
        def below_classmethod(cls, a: int) -> Any:
            return cls, a

        @decorate
        @staticmethod
        async def above_staticmethod(a: int) -> int:
            return a

        @staticmethod
        @decorate
        def below_staticmethod(a: int) -> Iterator[int]:
            yield a

    repository = Repository()
    assert repository.method(1) == ("things", 1)
    assert Repository.method(repository, 1) == ("things", 1)
    assert await repository.coroutine(1) == ("things", 1)
    assert repository.above_classmethod(1) == Repository.above_classmethod(1) == (Repository, 1)
    assert repository.below_classmethod(1) == Repository.below_classmethod(1) == (Repository, 1)
    assert await repository.above_staticmethod(1) == await Repository.above_staticmethod(1) == 1
    assert list(repository.below_staticmethod(1)) == [1]
    assert list(inspect.signature(repository.method).parameters) == ["a"]


@every_decorator
async def test_other_callables(decorate: Decorator) -> None:
    class Callable:
        async def __call__(self, a: int) -> int:
            return a

    assert await call(decorate(functools.partial(coroutine, b="y")), 1) == (1, "y")
    assert await call(decorate(lambda a: coroutine(a)), 1) == (1, "x")
    assert await decorate(Callable.__call__)(Callable(), 1) == 1
    assert decorate(len)([1, 2]) == 2


@every_decorator
def test_a_generator_can_be_sent_to_and_thrown_at(decorate: Decorator) -> None:
    closed = []

    @decorate
    def echo() -> Any:
        got = "nothing"
        try:
            while got != "end":
                try:
                    got = yield got
                except Boom as error:
                    got = str(error)
            return "the end"
        finally:
            closed.append(True)

    generator = echo()
    assert next(generator) == "nothing"
    assert generator.send("a") == "a"
    assert generator.throw(Boom("b")) == "b"
    with pytest.raises(StopIteration) as stop:
        generator.send("end")
    assert stop.value.value == "the end"
    generator = echo()
    next(generator)
    generator.close()
    generator = echo()
    next(generator)
    with pytest.raises(KeyError):
        generator.throw(KeyError("c"))
    assert closed == [True] * 3


@every_decorator
async def test_an_async_generator_too(decorate: Decorator) -> None:
    closed = []

    @decorate
    async def echo() -> Any:
        got = "nothing"
        try:
            while got != "end":
                try:
                    got = yield got
                except Boom as error:
                    got = str(error)
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    generator = echo()
    assert await anext(generator) == "nothing"
    assert await generator.asend("a") == "a"
    assert await generator.athrow(Boom("b")) == "b"
    with pytest.raises(StopAsyncIteration):
        await generator.asend("end")
    generator = echo()
    await anext(generator)
    await generator.aclose()
    generator = echo()
    await anext(generator)
    with pytest.raises(KeyError):
        await generator.athrow(KeyError("c"))
    assert closed == [True] * 3


@every_decorator
async def test_context_managers_of_generators(decorate: Decorator) -> None:
    @contextlib.contextmanager
    @decorate
    def manager() -> Iterator[int]:
        with contextlib.suppress(Boom):
            yield 1

    @contextlib.asynccontextmanager
    @decorate
    async def async_manager() -> AsyncIterator[int]:
        with contextlib.suppress(Boom):
            yield 1

    with manager():
        raise Boom
    async with async_manager():
        raise Boom


@every_decorator
async def test_what_goes_wrong_in_capturing_stays_there(
    decorate: Decorator, captured: CapturedEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("broken")

    for way in ("event", "record", "error"):
        monkeypatch.setattr(captured.client.intake, way, broken)
    for function in FUNCTIONS:
        assert await call(decorate(function), 1) == await call(function, 1)
        with pytest.raises(Boom):
            await call(decorate(function), 1, b="boom")


@every_decorator
@every_function
async def test_no_exception_is_kept_alive(decorate: Decorator, function: Any) -> None:
    decorated = decorate(function)

    async def fail() -> weakref.ref[Boom]:
        try:
            await call(decorated, 1, b="boom")
        except Boom as error:
            return weakref.ref(error)
        raise AssertionError

    gc.disable()
    try:
        assert (await fail())() is None
    finally:
        gc.enable()


def test_a_decorated_function_can_be_pickled() -> None:
    assert pickle.loads(pickle.dumps(decorated_here)) is decorated_here


with capture_events() as _elsewhere:

    @capture_errors(_elsewhere.client)
    def decorated_here() -> None:
        pass


# -- capture_request


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
        assert event.data["error_type"] == f"{__name__}.Boom"


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


# -- capture_query


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


# -- capture_errors


async def test_an_exception_is_one_error(captured: CapturedEvents) -> None:
    for function in FUNCTIONS:
        captured.clear()
        await call(capture_errors(captured.client)(function), 1)
        assert captured.events == []
        with pytest.raises(Boom):
            await call(capture_errors(captured.client)(function), 1, b="boom")
        [event] = captured.of("application_error")
        assert (event.data["error_type"], event.data["error_message"]) == (f"{__name__}.Boom", "boom")
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


def test_a_decorator_without_its_client_is_refused_when_the_function_is_decorated() -> None:
    for bare in (capture_errors, capture_request):
        with pytest.raises(ConfigError, match=r"use an AnalyticsClient, as in @capture_errors\(client\)"):
            bare(lambda: None)  # type: ignore[arg-type]  # on purpose
    with pytest.raises(ConfigError, match="client is a str"):
        capture_query("select", "things")  # type: ignore[arg-type]  # on purpose


@pytest.mark.parametrize("query_type", [None, 5, "", " "])
def test_a_query_type_that_is_none_is_refused(captured: CapturedEvents, query_type: Any) -> None:
    with pytest.raises(ConfigError, match="query_type"):
        capture_query(captured.client, query_type)


def test_an_endpoint_that_is_no_text_is_refused(captured: CapturedEvents) -> None:
    with pytest.raises(ConfigError, match="endpoint is a int: use a str"):
        capture_request(captured.client, endpoint=5)  # type: ignore[arg-type]  # on purpose


@every_decorator
@pytest.mark.parametrize("what", [5, property(lambda self: 5)])
def test_what_cannot_be_called_is_refused(decorate: Any, name: str, what: Any) -> None:
    with pytest.raises(ConfigError, match="is no function: put the decorator on a function"):
        decorate(what)


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
