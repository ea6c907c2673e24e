"""The caller of a request, who may leave before the answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from starlette.types import Receive

T = TypeVar("T")


class Left(Exception):
    """The caller has closed the connection."""


class Caller:
    """Watch one connection for the time of a block: what is done for a caller is cancelled when the caller leaves."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive

    async def __aenter__(self) -> Self:
        """Begin to watch."""
        self._left = asyncio.create_task(self._watch(), name="asgi-analytics caller")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Watch no longer."""
        self._left.cancel()
        await asyncio.gather(self._left, return_exceptions=True)

    async def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what the coroutine returns; cancels it and raises `Left` as soon as the caller has left."""
        task = asyncio.create_task(work)
        try:
            await asyncio.wait((task, self._left), return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if task.cancelled():
            raise Left
        return task.result()

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass  # a body, which no question has
