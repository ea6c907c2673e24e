"""Functions of every kind, to be decorated, and how they are called."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Generator
from typing import Any

import pytest


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
