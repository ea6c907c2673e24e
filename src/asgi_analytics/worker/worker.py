"""The worker: takes batches from the queue to the sink, and tries again until they are settled."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Self

from asgi_analytics.client import checked_client
from asgi_analytics.context import suppressed
from asgi_analytics.errors import ConfigError, SinkError, TransientError
from asgi_analytics.log import failure, log, log_problem, solved
from asgi_analytics.pipeline.instruments import PipelineFigures
from asgi_analytics.sinks.base import Sink
from asgi_analytics.sinks.upkeep import Upkeep
from asgi_analytics.worker.callers import Callers

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from asgi_analytics.client import AnalyticsClient
    from asgi_analytics.sinks.base import Receipt

WRITE_EVENTS = 2_000
WRITE_BYTES = 512 * 1024
"""The most that one write takes. Found by measuring (``benchmarks/storing.py``): larger ones store no faster, and from
half a mebibyte on the allocator returns the joined bytes to the system each time, which triples the CPU an event."""

PAUSE_SECONDS = 0.2
"""Writes begin no sooner one after the other, unless a full one waits, or half of the queue is used. A write costs the
same whether it takes a hundred events or some more, and each time the worker wakes the application stands still."""

LINES_AT_ONCE = 100
"""So many records become JSON before others get a turn: some 1 ms."""

FIRST_BACKOFF = 0.1
LAST_BACKOFF = 30.0
LONGEST_RETRY_AFTER = 300.0
"""The most that is waited because a sink asked for it, in seconds, on top of the backoff."""

OPERATOR_BACKOFF = 5.0
LAST_OPERATOR_BACKOFF = 60.0
SPOOL_SECONDS = 0.02
"""How often a flush or a close looks whether what is on disk is settled."""

IDLE_SECONDS = 10.0
"""How often a worker looks up when ``flush_interval`` is zero: then each event wakes it."""
ENDING_SECONDS = 1.0
"""What connections get to close in, beyond the time of a flush."""


class AnalyticsWorker:
    """Writes a client's events to a sink, on the loop of the application.

    ``async with AnalyticsWorker(client, sink):`` starts it and flushes at the end, within the client's
    ``close_timeout``; or make ``worker.run()`` a task of your own. A client has one worker at a time. Constructing
    does nothing. What could not be written when the worker ends waits in the client for the next one.
    """

    def __init__(self, client: AnalyticsClient, sink: Sink) -> None:
        if isinstance(sink, type):
            raise ConfigError(f"{sink.__name__} is a class: make a sink of it, {sink.__name__}(…)")
        if not isinstance(sink, Sink):
            raise ConfigError(f"{type(sink).__name__} is no sink: it needs async write(batch) and aclose()")
        self.client = checked_client(client)
        if client.settings.spool is not None and client._delivery.host is None:
            raise ConfigError("a spool needs the worker that a URL brings: AnalyticsClient.from_url(url, spool=…)")
        self.sink = sink
        self._queue, self._ledger, self._delivery = client._queue, client._ledger, client._delivery
        self._callers = Callers(sink, client.settings.geoip_database)
        self._pipeline_figures = PipelineFigures()
        self._wakened = asyncio.Event()
        self._stopping = False
        self._running = False
        self._task: asyncio.Task[None] | None = None
        self._most = WRITE_EVENTS  # what one write takes: less after one that ran out of time
        self._problem = object()  # this worker's own in the log
        self._problems: set[object] = set()

    async def __aenter__(self) -> Self:
        """Start the worker on the running loop."""
        self._task = asyncio.create_task(self.run(), name="asgi-analytics worker")
        await asyncio.sleep(0)  # now it is attached, or has failed
        if self._task.done():
            self._task.result()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Flush and end; what the block raised goes on."""
        await self.aclose()

    async def aclose(self, timeout: float | None = None) -> bool:
        """Flush for at most ``timeout`` seconds (``close_timeout``) and end; False when something is left.

        At zero it ends at once. The client stays open: what is left, and what comes later, waits for the next worker.
        """
        settled = await self.client.aflush(timeout) if self._running else self._ledger.is_settled()
        self._stopping = True
        self._wakened.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=2 * ENDING_SECONDS)  # a sink may not care for a cancellation
        elif not self._running:
            await self._close_sink()
        return settled

    async def run(self) -> None:
        """Take events to the sink until the client is closed and empty, `aclose` is called, or this is cancelled.

        A cancellation is obeyed after a last flush of at most ``close_timeout`` seconds; a second one at once.
        """
        loop = asyncio.get_running_loop()
        # A new one for each run: an event belongs to the loop that waited for it.
        wakened = self._wakened = asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed under us
                loop.call_soon_threadsafe(wakened.set)

        self._wake = wake
        self._delivery.attach(wake, loop.is_running)
        self._stopping, self._running = False, True
        muted = suppressed.set(True)  # what the sink does is no query of the application
        upkeep = Upkeep(self.sink)
        upkeep.start()
        try:
            await self._serve(wake)
        except asyncio.CancelledError:
            if not self._stopping:
                self.client._series.send_now()
                if not self._ledger.is_empty():
                    await self._last_flush()
            raise
        finally:
            self._delivery.detach(wake)
            self._ledger.report_drops()
            self._running = False
            if loop.is_running():  # else the coroutine is being thrown away: nothing can be awaited, or reset
                upkeep.stop()
                await self._close_sink()
                suppressed.reset(muted)

    async def _serve(self, wake: Callable[[], None]) -> None:
        queue, settings = self._queue, self.client.settings
        interval = settings.flush_interval or IDLE_SECONDS
        if settings.spool is not None and settings.spool_mode == "always":
            interval = min(interval, settings.spool_interval)
        due = time.monotonic() + interval
        metrics_interval = self.client.settings.metrics_interval
        metrics_due = time.monotonic() + metrics_interval
        paused_until = -math.inf
        # A worker whose loop stood still may have been replaced meanwhile.
        while self._delivery.owner is wake and not self._stopping:
            if time.monotonic() >= metrics_due:
                metrics_due = time.monotonic() + metrics_interval
                await self._send_metrics()
            pause = paused_until - time.monotonic()
            enough = min(WRITE_EVENTS, queue.half()) if pause > 0 else None
            if not self._is_ready(enough):
                queue.idle(wake, enough)
                if not self._is_ready(enough):  # nobody could wake us for what came before we said how
                    until = min(due, metrics_due) - time.monotonic()
                    await self._sleep(min(pause, until) if pause > 0 else until)
                if self._delivery.owner is not wake:
                    return
                queue.busy()
            if self._is_ready(enough) or time.monotonic() >= due:
                due = time.monotonic() + interval
                if queue.items:
                    if self.client.settings.flush_interval:
                        paused_until = time.monotonic() + PAUSE_SECONDS
                    await self._write_one()
                    await asyncio.sleep(0)  # a sink that never waits must not starve the loop
                elif queue.closed and self._ledger.is_settled():
                    return
                elif self._ledger.spooled:
                    await self._sleep(SPOOL_SECONDS)  # the sink settles that by itself
                self._ledger.report_drops()
                self.client._series.report()

    async def _send_metrics(self) -> None:
        if self.client.settings.pipeline_metrics:
            self._pipeline_figures.record(self.client)
        while not await self._delivery.send_metrics() and self._queue.items and not self._stopping:
            await self._write_one()

    def _is_ready(self, enough: int | None) -> bool:
        queue = self._queue
        return queue.is_worth_a_write(enough) or self._ledger.is_flushing or queue.closed or self._stopping

    async def _last_flush(self) -> None:
        self._ledger.put_back()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.client.settings.close_timeout):
                while not self._ledger.is_empty():
                    await self._write_one()

    async def _sleep(self, seconds: float) -> bool:
        """Sleep until woken (True) or for a time (False)."""
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._wakened.wait()
        except TimeoutError:
            return False
        finally:
            self._wakened.clear()
        return True

    async def _write_one(self) -> None:
        """Write one batch, in parts where time runs out, until it is settled or abandoned."""
        ledger = self._ledger
        batch: list[Any] = ledger.take(WRITE_EVENTS, WRITE_BYTES)
        part = batch
        attempt = 0
        has_lines = False
        while batch:
            try:
                if not has_lines:
                    await self._callers.describe(batch)
                    if not await self._write_lines(batch):
                        return
                    has_lines = True
                part = batch[: self._most] if len(batch) > self._most else batch
                receipt = await self.sink.write(part)
                batch = self._settle(batch, len(part), receipt)
                # Slowly: what was halved a moment ago would run out of time again.
                self._most = min(WRITE_EVENTS, self._most + max(1, self._most // 8))
                attempt = 0
                continue
            except TransientError as error:
                if error.fewer:
                    self._most = max(1, len(part) // 2)
                delay = random.uniform(0, min(LAST_BACKOFF, FIRST_BACKOFF * 2**attempt))  # noqa: S311  # jitter
                delay += min(error.retry_after or 0.0, LONGEST_RETRY_AFTER)
                ledger.failed(str(error))
                self._log_problem("away", "events wait, the sink is away: %s", error)
            except (Exception, asyncio.CancelledError) as error:
                if isinstance(error, asyncio.CancelledError) and _is_cancelled():
                    raise
                longest = min(LAST_OPERATOR_BACKOFF, OPERATOR_BACKOFF * 2**attempt)
                delay = random.uniform(longest / 2, longest)  # noqa: S311  # jitter
                said = failure(error)
                ledger.failed(said)
                self._log_problem(said, "events wait until somebody acts: %s", said, level=logging.ERROR)
            if ledger.in_flight is not batch or self._stopping:
                return  # a close gave it up meanwhile, or it waits for the next worker
            self._ledger.report_drops()
            if self.client.settings.spool is not None and not ledger.is_pressed():
                self._queue.idle_until_half(self._wake)  # what is more goes to disk
            attempt = 0 if await self._sleep(delay) else min(attempt + 1, 20)

    async def _write_lines(self, batch: list[Any]) -> bool:
        """Make the lines of a batch; False if a close gave it up meanwhile, or nothing of it could be written."""
        ledger = self._ledger
        place = ledger.write_lines(batch, 0, LINES_AT_ONCE)
        while place < len(batch) and ledger.in_flight is batch:
            await asyncio.sleep(0)  # whoever waits for this loop, or for the interpreter, gets a turn
            place = ledger.write_lines(batch, place, LINES_AT_ONCE)
        return ledger.in_flight is batch and bool(batch)

    def _settle(self, batch: list[Any], written: int, receipt: Receipt) -> list[Any]:
        """Record what became of the events of a batch that were written, its first ones; returns the others."""
        rejected = receipt.rejected
        if receipt.duplicates < 0 or receipt.duplicates + len(rejected) + receipt.spooled > written:
            raise SinkError(f"{type(self.sink).__name__} answered for more events than it was given")
        reasons = [one.reason for one in rejected]
        rest = self._ledger.settle(
            batch, duplicates=receipt.duplicates, rejected=reasons, written=written, spooled=receipt.spooled
        )
        if self._problems and not receipt.spooled:
            log.info("events are stored again")
            for key in self._problems:
                solved(key)
            self._problems.clear()
        for reason, number in Counter(one.reason for one in rejected).items():
            log_problem((self._problem, "rejected", reason), "rejected by the sink (%s): %d", reason, number)
        return rest

    def _log_problem(self, problem: str, message: str, *args: object, level: int = logging.WARNING) -> None:
        key = (self._problem, problem)
        self._problems.add(key)
        log_problem(key, message, *args, level=level)

    async def _close_sink(self) -> None:
        """Close the sink, and do not let a cancellation leave its connections open: this takes no longer than a second.

        A close of the client ends this worker by itself, and cancels it a moment later.
        """
        closing = asyncio.create_task(self._end_sink(), name="asgi-analytics closing")
        cancelled = None
        while not closing.done():
            try:
                await asyncio.shield(closing)
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled

    async def _end_sink(self) -> None:
        try:
            async with asyncio.timeout(ENDING_SECONDS):
                await self.sink.aclose()
        except Exception as error:
            log_problem((self._problem, "aclose"), "the sink was not closed: %s", type(error).__name__)


def _is_cancelled() -> bool:
    """Tell whether this task was cancelled: a sink may raise CancelledError for a reason of its own."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
