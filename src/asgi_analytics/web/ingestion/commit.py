"""Group commit: batches that arrive together share a write, and each gets its own receipt after it."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections import deque
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from asgi_analytics.context import suppress
from asgi_analytics.errors import TransientError
from asgi_analytics.sinks.base import Receipt, Rejected, TellsDuplicates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asgi_analytics.sinks.base import Sink
    from asgi_analytics.web.ingestion.metrics import IngestionMetrics

GROUP_EVENTS = 2_000
GROUP_BYTES = 1024 * 1024
"""Batches are grouped up to these sizes. A batch is never divided, however large: it is stored whole or not at all."""


class _Waiting(NamedTuple):
    lines: Sequence[bytes]
    size: int
    answer: asyncio.Future[Receipt]


class GroupCommit:
    """Write batches to a sink, several in one write if the sink tells them apart.

    A batch is written at once if a writer is free; batches that arrive while all are busy are written together. A sink
    whose ``tells_duplicates`` is not true gets one batch at a time.
    """

    def __init__(self, sink: Sink, *, writers: int, metrics: IngestionMetrics) -> None:
        self.sink = sink
        self._groups = isinstance(sink, TellsDuplicates) and sink.tells_duplicates
        self._most_writers = writers if self._groups else 1
        self._metrics = metrics
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: deque[_Waiting] = deque()
        self._writers: set[asyncio.Task[None]] = set()

    async def store(self, lines: Sequence[bytes]) -> Receipt:
        """Store a batch and return its receipt after the commit; raises what the sink raised if nothing was stored."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # the loop of the last batches has ended
            self._loop, self._waiting, self._writers = loop, deque(), set()
        waiting = _Waiting(lines, sum(map(len, lines)), loop.create_future())
        self._waiting.append(waiting)
        if len(self._writers) < self._most_writers:
            self._writers.add(loop.create_task(self._write_all(), name="asgi-analytics group commit"))
        return await waiting.answer

    async def aclose(self) -> None:
        """Wait until everything that was accepted is written, then close the sink."""
        if self._loop is asyncio.get_running_loop() and self._writers:
            await asyncio.wait(self._writers)
        await self.sink.aclose()

    async def _write_all(self) -> None:
        try:
            with suppress():  # the application that mounts the service did not make these queries
                while group := self._take():
                    await self._write(group)
        finally:
            # In the same step as the last look: no writer would take a batch that came in between.
            self._writers.discard(asyncio.current_task())

    def _take(self) -> list[_Waiting]:
        group: list[_Waiting] = []
        events = size = 0
        while self._waiting:
            first = self._waiting[0]
            if first.answer.done():  # the request was cancelled, and got no answer
                self._waiting.popleft()
                continue
            events += len(first.lines)
            size += first.size
            if group and (not self._groups or events > GROUP_EVENTS or size > GROUP_BYTES):
                break
            group.append(self._waiting.popleft())
        return group

    async def _write(self, group: list[_Waiting]) -> None:
        batch = [line for waiting in group for line in waiting.lines]
        start = time.perf_counter()
        try:
            receipt = await self.sink.write(batch)
        except asyncio.CancelledError:
            for waiting in group:
                waiting.answer.cancel()
            raise
        except Exception as error:
            self._metrics.wrote(len(batch), time.perf_counter() - start, type(error).__name__)
            if len(group) > 1 and not isinstance(error, TransientError):
                for waiting in group:  # one of them may be the cause: it must not cost the others
                    await self._write([waiting])
                return
            for waiting in group:
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
            return
        self._metrics.wrote(len(batch), time.perf_counter() - start, None)
        for waiting, part in zip(group, _divide(receipt, [len(w.lines) for w in group]), strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(part)


def _divide(receipt: Receipt, lengths: list[int]) -> list[Receipt]:
    """Return the part of a receipt that belongs to each batch of a group."""
    if len(lengths) == 1:
        return [receipt]
    starts = [0, *accumulate(lengths)]
    duplicates: list[list[int]] = [[] for _ in lengths]
    rejected: list[list[Rejected]] = [[] for _ in lengths]
    for place in receipt.duplicate_at or ():
        which = bisect_right(starts, place) - 1
        duplicates[which].append(place - starts[which])
    for one in receipt.rejected:
        which = bisect_right(starts, one.index) - 1
        rejected[which].append(Rejected(one.index - starts[which], one.reason, one.field))
    return [Receipt(len(d), r, d) for d, r in zip(duplicates, rejected, strict=True)]
