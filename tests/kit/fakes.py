"""Sinks that do what a test tells them, waiting that polls, and a limit to what a call may take."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from asgi_analytics import EnrichedEvent
from asgi_analytics.sinks.base import Receipt

SLACK = 2.0
"""What a busy machine may take beyond a timeout; far less than it would take to hang."""


class FakeSink:
    """Does one step at each write: raises it, returns it, or calls it; stores when no step is left, or it was a call.

    ``writes`` holds every batch it was given, ``events`` what it stored, by id.
    """

    def __init__(self, *steps: Any) -> None:
        self.steps = list(steps)
        self.writes: list[list[bytes]] = []
        self.events: dict[Any, EnrichedEvent] = {}
        self.closed = 0
        self.loops: list[asyncio.AbstractEventLoop] = []

    async def write(self, batch: Sequence[bytes]) -> Receipt:
        self.writes.append(list(batch))
        self.loops.append(asyncio.get_running_loop())
        step = self.steps.pop(0) if self.steps else None
        if isinstance(step, BaseException):
            raise step
        if callable(step):
            await step()
        elif step is not None:
            receipt: Receipt = step
            return receipt
        return self.store(batch)

    def store(self, batch: Sequence[bytes]) -> Receipt:
        duplicates = 0
        for event in map(EnrichedEvent.from_json, batch):
            duplicates += event.event_id in self.events
            self.events[event.event_id] = event
        return Receipt(duplicates=duplicates)

    async def aclose(self) -> None:
        self.closed += 1


class BrokenSink(FakeSink):
    """Raises the same error at each write until ``error`` is None; counts as ``writes`` all the same."""

    def __init__(self, error: BaseException | None) -> None:
        super().__init__()
        self.error = error

    async def write(self, batch: Sequence[bytes]) -> Receipt:
        if self.error is None:
            return await super().write(batch)
        self.writes.append(list(batch))
        raise self.error


async def hang() -> None:
    """Never return: a step of a FakeSink."""
    await asyncio.Event().wait()


def until(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    """Return when a condition holds; fails after some seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "this did not come about in time"
        time.sleep(0.002)


async def eventually(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    """Return when a condition holds, letting the loop run; fails after some seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "this did not come about in time"
        await asyncio.sleep(0.001)


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fail where the block takes longer than a machine that is busy may take for it."""
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < seconds + SLACK
