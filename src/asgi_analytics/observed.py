"""Observes the calls of a function of any kind, without being noticed."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import suppress
from typing import Any, TypeVar, cast

import wrapt
from asgiref.sync import iscoroutinefunction

from asgi_analytics.context import RequestContext, current
from asgi_analytics.errors import ConfigError
from asgi_analytics.log import failure, log_problem

F = TypeVar("F", bound=Callable[..., Any])


class Call:
    """One call of an observed function. A generator is entered and left at each of its steps."""

    request: RequestContext | None = None
    """The request that the function runs in, if the call makes one of its own."""

    def entered(self) -> None:
        """Take note that the function begins, or goes on."""

    def left(self) -> None:
        """Take note that the function ends, or waits for its consumer."""

    def returned(self, result: Any) -> None:
        """Take note of the end; a generator has no result."""

    def raised(self, error: BaseException) -> None:
        """Take note of the end by an exception."""


Begin = Callable[[Any, tuple[Any, ...], dict[str, Any]], Call | None]
"""Makes the observer of a call, from the function, its arguments and its keyword arguments; None observes nothing."""


def observed(subject: str, begin: Begin) -> Callable[[F], F]:
    """Return a decorator; ``subject`` is what a call is captured as, for the log: ``a request``."""

    def start(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Guard | None:
        try:
            call = begin(function, args, kwargs)
        except Exception as error:
            _not_captured(subject, error)
            return None
        return None if call is None else _Guard(subject, call)

    def decorate(function: F) -> F:
        if not callable(function) and not isinstance(function, classmethod):
            raise ConfigError(f"a {type(function).__name__} is not a function: put the decorator on a function")
        run = _runner(function)

        def wrapper(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return run(start, wrapped, args, kwargs)

        return cast("F", _Observed(function, wrapper))

    return decorate


class _Observed(wrapt.FunctionWrapper):  # type: ignore[type-arg]  # of any function
    def __reduce_ex__(self, protocol: Any) -> str:
        """Pickle by name, as a function is."""
        return self.__qualname__


def _runner(function: Any) -> Callable[[Start, Any, tuple[Any, ...], dict[str, Any]], Any]:
    if isinstance(function, staticmethod | classmethod):
        function = function.__func__
    kinds = [function] if inspect.isroutine(function) else [function, type(function).__call__]
    for kind in kinds:
        if iscoroutinefunction(kind):
            return _call_coroutine
        if inspect.isasyncgenfunction(kind):
            return _call_async_generator
        if inspect.isgeneratorfunction(kind):
            return _call_generator
    return _call_function


def _not_captured(subject: str, error: Exception) -> None:
    log_problem(subject, subject + " was not captured: %s", failure(error))


class _Guard:
    """Calls the observer, in the request of the call; what the observer raises stays here."""

    def __init__(self, subject: str, call: Call) -> None:
        self._subject = subject
        self._call = call
        self._token: Any = None

    def __enter__(self) -> None:
        if self._call.request is not None:
            self._token = current.set(self._call.request)
        self._safely(self._call.entered)

    def __exit__(self, cls: object, error: BaseException | None, traceback: object) -> None:
        self._safely(self._call.left)
        if error is not None:
            self._safely(self._call.raised, error)
        self._restore()

    def _restore(self) -> None:
        if self._token is not None:
            with suppress(ValueError):  # closed by the garbage collector, in whatever context that runs
                current.reset(self._token)
            self._token = None

    def returned(self, result: Any) -> None:
        if self._call.request is not None:
            self._token = current.set(self._call.request)
        self._safely(self._call.returned, result)
        self._restore()

    def _safely(self, note: Callable[..., None], *args: Any) -> None:
        try:
            note(*args)
        except Exception as error:
            _not_captured(self._subject, error)


Start = Callable[[Any, tuple[Any, ...], dict[str, Any]], _Guard | None]
"""Makes the guard of a call; None: nothing is to be observed."""


def _call_function(start: Start, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    guard = start(function, args, kwargs)
    if guard is None:
        return function(*args, **kwargs)
    with guard:
        result = function(*args, **kwargs)
    if isinstance(result, Coroutine):  # a function that only returns a coroutine, even one written in C
        return _await(lambda: guard, result)
    guard.returned(result)
    return result


def _call_coroutine(start: Start, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _await(lambda: start(function, args, kwargs), function(*args, **kwargs))


async def _await(make: Callable[[], _Guard | None], pending: Coroutine[Any, Any, Any]) -> Any:
    guard = make()
    if guard is None:
        return await pending
    with guard:
        result = await pending
    guard.returned(result)
    return result


def _call_generator(start: Start, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _generate(lambda: start(function, args, kwargs), function(*args, **kwargs))


def _generate(make: Callable[[], _Guard | None], generator: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    guard = make()
    if guard is None:
        return (yield from generator)
    step: Callable[..., Any] = generator.send
    argument: list[Any] = [None]
    while True:
        end: StopIteration | None = None
        with guard:
            try:
                value = step(argument.pop())  # popped: an exception must not be held by its own frames
            except StopIteration as stop:
                end = stop
        if end is not None:
            guard.returned(None)
            return end.value
        try:
            step, argument = generator.send, [(yield value)]
        except GeneratorExit:
            with guard:
                generator.close()
            guard.returned(None)
            raise
        except BaseException as error:
            step, argument = generator.throw, [error]


def _call_async_generator(start: Start, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _generate_async(lambda: start(function, args, kwargs), function(*args, **kwargs))


async def _generate_async(
    make: Callable[[], _Guard | None], generator: AsyncGenerator[Any, Any]
) -> AsyncGenerator[Any, Any]:
    guard = make() or _Guard("", Call())
    step: Callable[..., Any] = generator.asend
    argument: list[Any] = [None]
    while True:
        ended = False
        with guard:
            try:
                value = await step(argument.pop())
            except StopAsyncIteration:
                ended = True
        if ended:
            guard.returned(None)
            return
        try:
            step, argument = generator.asend, [(yield value)]
        except GeneratorExit:
            with guard:
                await generator.aclose()
            guard.returned(None)
            raise
        except BaseException as error:
            step, argument = generator.athrow, [error]
