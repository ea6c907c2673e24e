"""A decorator is not noticed, whatever kind of function it is on; a wrong one is refused."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import inspect
import pickle
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Protocol, TypeVar

import pytest

from asgi_analytics import capture_errors, capture_query, capture_request
from asgi_analytics.errors import ConfigError
from asgi_analytics.testing import CapturedEvents, capture_events
from tests.instrumentation.decorated import FUNCTIONS, Boom, call, coroutine, every_function

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
async def test_what_goes_wrong_in_capturing_stays_there_and_is_logged_as_what_it_is(
    decorate: Decorator,
    name: str,
    captured: CapturedEvents,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("asgi_analytics.log._last", {})
    for way in ("event", "record", "error"):
        monkeypatch.setattr(captured.client.intake, way, broken)
    for function in FUNCTIONS:
        assert await call(decorate(function), 1) == await call(function, 1)
        with pytest.raises(Boom):
            await call(decorate(function), 1, b="boom")
    subject = {"request": "a request", "query": "a query", "errors": "an error"}[name]
    [record] = caplog.records  # one per problem
    assert record.message.startswith(f"{subject} was not captured: RuntimeError")


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
    with pytest.raises(ConfigError, match="is not a function: put the decorator on a function"):
        decorate(what)
