"""Getting events out in time: who writes them, and the flush and close of a client, also at the end of the process."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Protocol

from asgi_analytics.errors import ConfigError
from asgi_analytics.log import log, one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from asgi_analytics.config import Settings
    from asgi_analytics.pipeline.ledger import Ledger
    from asgi_analytics.pipeline.queue import EventQueue
    from asgi_analytics.pipeline.series import SeriesTable


class Host(Protocol):
    """Runs a worker for a client that was made from a URL, beside the application."""

    sink: Any

    def start(self) -> bool:
        """Start the worker unless it runs; never raises. False if no thread can be started (any more)."""

    def finish(self, timeout: float) -> None:
        """Write what is left within ``timeout`` seconds, in the calling thread."""

    def stop(self) -> None:
        """Tell the worker to end, and its connections with it; returns at once."""

    def stopped(self) -> bool:
        """Tell whether the worker has ended."""

    def keep(self, lines: list[bytes]) -> bool:
        """Keep lines on disk that a close would abandon; False if there is no spool, or no room."""

    def after_fork(self) -> None:
        """Forget the parent's worker and connections without touching them."""


class Delivery:
    """What a client owes to its accepted events: they get out in the time it is given, or are abandoned."""

    def __init__(self, settings: Settings, queue: EventQueue, ledger: Ledger, series: SeriesTable) -> None:
        self._settings = settings
        self._queue = queue
        self._ledger = ledger
        self._series = series
        series.start_worker = self.start_worker
        self.host: Host | None = None
        """Runs the worker of a client made from a URL; None if the application owns the worker."""
        self._forget_worker()
        _deliveries.add(self)

    # -- who writes

    def _forget_worker(self) -> None:
        self.owner: Callable[[], object] | None = None
        self.worker_thread: int | None = None
        self._is_alive: Callable[[], bool] = bool

    def use_host(self, host: Host) -> None:
        """Let a host start the worker at the first event."""
        self.host = host
        self._queue.idle(host.start, wake_at=1)

    def start_worker(self) -> None:
        """Let the host, if any, start its worker."""
        if self.host is not None:
            self.host.start()

    def attach(self, waker: Callable[[], object], is_alive: Callable[[], bool]) -> None:
        """Make the owner of ``waker`` the worker, in the calling thread; `ConfigError` while there is another one.

        ``is_alive`` tells whether the worker's loop still runs: one whose loop has died is replaced, and what it had in
        flight waits again.
        """
        with self._ledger.lock:
            if self.is_attached():
                raise ConfigError("this client has a worker already: one client, one worker")
            self._ledger.put_back()
            self.owner, self._is_alive = waker, is_alive
            self.worker_thread = threading.get_ident()
            self._queue.waker = waker
            self._queue.busy()

    def detach(self, waker: Callable[[], object]) -> None:
        """End a worker's time, unless another one has replaced it; what is in flight waits again."""
        with self._ledger.lock:
            if self.owner is not waker:
                return
            self._ledger.put_back()
            self._forget_worker()
            if not self._queue.ended:
                self._queue.waker = None
            self._queue.busy()

    def is_attached(self) -> bool:
        """Tell whether a worker writes, on a loop that runs."""
        return self.owner is not None and self._is_alive()

    def has_worker(self) -> bool:
        """Tell whether a worker writes, or would if woken."""
        return self._queue.waker is not None and (self.owner is None or self._is_alive())

    def needs_this_thread(self) -> bool:
        """Tell whether the worker cannot go on while the calling thread waits.

        It is the worker's own thread, or holds the lock: then a signal handler calls, from the middle of another call.
        """
        return self.worker_thread == threading.get_ident() or self._ledger.lock._is_owned()  # type: ignore[attr-defined]

    # -- flush

    def flush(self, timeout: float | None = None) -> bool:
        """See `AnalyticsClient.flush`."""
        deadline = time.monotonic() + self._seconds(timeout)
        while True:
            has_sent_all = self._series.send_now()
            settled = self._flush(deadline - time.monotonic())
            # The queue may have no room for all rows of the metrics at once.
            if has_sent_all or not settled:
                return settled

    def _flush(self, timeout: float) -> bool:
        # Not a threading.Event: its set() takes a lock, which a signal handler may find held by the wait it interrupts.
        done = threading.Lock()
        done.acquire()
        if self._ask(done.release):
            return True
        settled = not self.needs_this_thread() and done.acquire(timeout=self._seconds(timeout))
        self._ledger.forget(done.release)
        return settled or done.acquire(blocking=False)

    async def aflush(self, timeout: float | None = None) -> bool:
        """See `AnalyticsClient.aflush`."""
        deadline = time.monotonic() + self._seconds(timeout)
        while True:
            has_sent_all = await self.send_metrics()
            settled = await self._aflush(deadline - time.monotonic())
            if has_sent_all or not settled:
                return settled

    async def send_metrics(self) -> bool:
        """Put a row for each series into the queue; False if it has no room for all."""
        sending = self._series.send()
        while True:
            try:
                next(sending)
            except StopIteration as end:
                return bool(end.value)
            await asyncio.sleep(0)

    async def _aflush(self, timeout: float) -> bool:
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def call() -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed before the answer came
                loop.call_soon_threadsafe(done.set)

        if self._ask(call):
            return True
        try:
            await asyncio.wait_for(done.wait(), self._seconds(timeout))
        except TimeoutError:
            return False
        finally:
            self._ledger.forget(call)
        return True

    def _ask(self, call: Callable[[], None]) -> bool:
        """Ask the worker to write all that is accepted now, and to call back then; True if there is nothing."""
        if not self._ledger.is_settled():
            self.start_worker()
        return self._ledger.when_settled(self._ledger.ticket(), call)

    def _seconds(self, timeout: float | None) -> float:
        seconds = self._settings.close_timeout if timeout is None else timeout
        return min(max(0.0, seconds), threading.TIMEOUT_MAX)

    # -- close

    def close(self, timeout: float | None = None) -> bool:
        """See `AnalyticsClient.close`."""
        queue = self._queue
        if queue.ended:
            return True
        seconds = self._seconds(timeout)
        deadline = time.monotonic() + seconds
        if not self._series.send_now() and seconds > 0 and self.has_worker():
            self.flush(seconds)
        self._series.end()
        queue.close()
        seconds = max(0.0, deadline - time.monotonic())
        if seconds > 0 and self.needs_this_thread() and self.has_worker():
            queue.wake()
            return self._ledger.is_settled()
        if self.host is not None and not self._ledger.is_settled() and not self.host.start():
            self.host.finish(seconds)
        elif self.has_worker():
            self.flush(seconds)
        left = self._abandon()
        while self._is_ending(deadline):
            time.sleep(0.002)
        return not left

    async def aclose(self, timeout: float | None = None) -> bool:
        """See `AnalyticsClient.aclose`."""
        queue = self._queue
        if queue.ended:
            return True
        deadline = time.monotonic() + self._seconds(timeout)
        if not await self.send_metrics() and self.has_worker():
            await self.aflush(timeout)
        self._series.end()
        queue.close()
        await asyncio.sleep(0)  # a worker that was made a task just now attaches itself
        if self.has_worker():
            await self.aflush(deadline - time.monotonic())
        left = self._abandon()
        while self._is_ending(deadline):  # noqa: ASYNC110  # the thread must not need this loop in order to end
            await asyncio.sleep(0.002)
        return not left

    def _is_ending(self, deadline: float) -> bool:
        return self.host is not None and not self.host.stopped() and time.monotonic() < deadline

    def _abandon(self) -> int:
        had_worker = self.host is not None or self.has_worker()
        wake = self.owner
        self.spill()
        self._queue.end(self._ledger.abandon)
        left = self._ledger.abandon()
        if self.host is not None:
            self.host.stop()
        if wake is not None:
            wake()  # a worker of the application's own returns now
        self._ledger.report_drops()
        if left:
            service = one_line(self._settings.service)
            if had_worker:
                last_error = one_line(self._ledger.last_error)
                log.warning(
                    "the time of the close ended before all was stored; service: %s; last error: %s; abandoned: %d",
                    service,
                    last_error,
                    left,
                )
            else:
                log.warning(
                    "no worker runs: use from_url(), or an AnalyticsWorker; service: %s; abandoned: %d", service, left
                )
        return left

    def spill(self) -> None:
        """Take what is left in memory to the spool, if there is one and it has room."""
        if self.host is not None and self._settings.spool is not None and not self._ledger.is_empty():
            self._ledger.spill(self.host.keep)

    def after_fork(self) -> None:
        """Begin anew in the child of a fork: its parent delivers what was accepted there."""
        self._queue.reset()
        self._ledger.reset()
        self._series.reset()
        self._forget_worker()
        if self.host is not None:
            self.host.after_fork()
            self.use_host(self.host)


_deliveries: weakref.WeakSet[Delivery] = weakref.WeakSet()
"""All that are to be closed at the end of the process."""


def _close_all() -> None:
    for delivery in list(_deliveries):
        delivery.close()


def _after_fork_in_child() -> None:
    for delivery in list(_deliveries):
        delivery.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
# Runs when non-daemon threads have ended, before the interpreter takes itself apart; later registrations run earlier.
atexit.register(_close_all)
