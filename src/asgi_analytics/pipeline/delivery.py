"""Getting events out in time: the ``flush`` and ``close`` of a client, also at the end of the process."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Protocol

from asgi_analytics.log import log, number_of_events, one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from asgi_analytics.config import Settings
    from asgi_analytics.pipeline.queue import EventQueue


class Host(Protocol):
    """Runs a worker for a client that was made from a URL, beside the application."""

    sink: Any

    def start(self) -> bool:
        """Start the worker unless it runs; never raises. False where no thread can be started (any more)."""

    def finish(self, timeout: float) -> None:
        """Write what is left within ``timeout`` seconds, in the calling thread."""

    def stop(self) -> None:
        """Tell the worker to end, and its connections with it; returns at once."""

    def stopped(self) -> bool:
        """Tell whether the worker has ended."""

    def after_fork(self) -> None:
        """Forget the parent's worker and connections without touching them."""


class Delivery:
    """What a client owes to the events in its queue: that they get out in the time it is given, or are abandoned.

    The base of `AnalyticsClient`, which puts them there.
    """

    settings: Settings
    _queue: EventQueue
    _host: Host | None
    """Runs the worker of a client made from a URL; None where the application owns the worker."""

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything accepted before the call is settled, at most ``timeout`` seconds (``close_timeout``).

        Interrupts a backoff. False when something is left. At zero it asks for a write and does not wait. In the
        worker's own thread it does not wait either, nor in a signal handler that interrupts a call of this client which
        holds its lock: nothing could happen meanwhile.
        """
        # No threading.Event: its set() takes a lock, which a signal handler may find held by the wait it interrupts.
        done = threading.Lock()
        done.acquire()
        if self._ask(done.release):
            return True
        settled = not self._queue.needs_this_thread() and done.acquire(timeout=self._seconds(timeout))
        self._queue.forget(done.release)
        return settled or done.acquire(blocking=False)

    async def aflush(self, timeout: float | None = None) -> bool:
        """Do what `flush` does without blocking the loop."""
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
            self._queue.forget(call)
        return True

    def close(self, timeout: float | None = None) -> bool:
        """Refuse further events, `flush`, and end the worker, all within ``timeout`` seconds (``close_timeout``).

        What is left then is counted as abandoned; False says so. Where `flush` cannot wait, the worker writes what is
        left after this call, and ends. A call after the end does nothing and returns True.
        """
        queue = self._queue
        if queue.ended:
            return True
        queue.close()
        seconds = self._seconds(timeout)
        deadline = time.monotonic() + seconds
        if seconds > 0 and queue.needs_this_thread() and queue.has_worker():
            queue.wake()
            return queue.is_settled()
        if self._host is not None and not queue.is_settled() and not self._host.start():
            self._host.finish(seconds)
        elif queue.has_worker():
            self.flush(seconds)
        left = self._abandon()
        while self._host is not None and not self._host.stopped() and time.monotonic() < deadline:
            time.sleep(0.002)
        return not left

    async def aclose(self, timeout: float | None = None) -> bool:
        """Do what `close` does without blocking the loop, and wait for a worker on this loop too."""
        queue = self._queue
        if queue.ended:
            return True
        queue.close()
        seconds = self._seconds(timeout)
        deadline = time.monotonic() + seconds
        await asyncio.sleep(0)  # a worker that was made a task just now attaches itself
        if queue.has_worker():
            await self.aflush(deadline - time.monotonic())
        left = self._abandon()
        while self._host is not None and not self._host.stopped() and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.002)  # a look now and then: the thread must not need this loop in order to end
        return not left

    def _seconds(self, timeout: float | None) -> float:
        seconds = self.settings.close_timeout if timeout is None else timeout
        return min(max(0.0, seconds), threading.TIMEOUT_MAX)

    def _ask(self, call: Callable[[], None]) -> bool:
        """Ask the worker to write all that is accepted now, and to call back then; True when there is nothing."""
        if self._host is not None and not self._queue.is_settled():
            self._host.start()
        return self._queue.when_settled(self._queue.ticket(), call)

    def _abandon(self) -> int:
        had_worker = self._host is not None or self._queue.has_worker()
        left = self._queue.end()
        if self._host is not None:
            self._host.stop()
        self._queue.wake()  # a worker of the application's own returns now
        self._queue.report_drops()
        if left:
            of = (number_of_events(left), one_line(self.settings.service))
            if had_worker:
                stored = "it was" if left == 1 else "they were"
                last_error = one_line(self._queue.last_error)
                log.warning(
                    "%s of %s abandoned: the time of the close ended before %s stored; last error: %s",
                    *of,
                    stored,
                    last_error,
                )
            else:
                log.warning("%s of %s abandoned: no worker runs; use from_url(), or an AnalyticsWorker", *of)
        return left

    def _after_fork(self) -> None:
        self._queue.reset()
        if self._host is not None:
            self._host.after_fork()
            self._queue.idle(self._host.start, wake_at=1)


clients: weakref.WeakSet[Delivery] = weakref.WeakSet()
"""All that are to be closed at the end of the process."""


def _close_all() -> None:
    for client in list(clients):
        client.close()


def _after_fork_in_child() -> None:
    for client in list(clients):
        client._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
# Runs when non-daemon threads have ended, before the interpreter takes itself apart; later registrations run earlier.
atexit.register(_close_all)
