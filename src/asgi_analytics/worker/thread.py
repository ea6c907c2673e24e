"""The worker's home when the application does not give it one: a thread with a loop and connections of its own."""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import os
import socket
import sys
import threading
import time
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from weakref import WeakSet, ref

from asgi_analytics.context import suppress
from asgi_analytics.log import failure, log_problem
from asgi_analytics.sinks import sink_from_url
from asgi_analytics.sinks.spool import spooling
from asgi_analytics.sinks.spool_folder import SpoolFolder
from asgi_analytics.worker.worker import AnalyticsWorker

if TYPE_CHECKING:
    from asgi_analytics.client import AnalyticsClient
    from asgi_analytics.sinks.base import Sink
    from asgi_analytics.sinks.spool import SpoolSink

FORK_SECONDS = 0.5
"""How long a fork waits, at most, until the workers' threads rest."""

RESTART_SECONDS = 0.5
"""How long a thread whose loop could not be made, or ended by an error, waits before it makes another one."""


class _Loop(asyncio.SelectorEventLoop):
    """A loop that needs no executor.

    At interpreter exit the executors are gone before the last flush ("cannot schedule new futures"), and only the
    resolver and SQLite would need one. This loop serves nothing but the worker, so it may block while a name is looked
    up, or a file is written. Nor does a fork find a thread of an executor in the middle of that.
    """

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    async def getaddrinfo(self, host: Any, port: Any, **options: int) -> Any:
        return socket.getaddrinfo(host, port, **options)

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> Any:
        return socket.getnameinfo(sockaddr, flags)


class ThreadHost:
    """Runs the worker of one client in a daemon thread. Constructing does nothing but check the URL."""

    def __init__(self, client: AnalyticsClient, url: str, token: str | None) -> None:
        self._client = ref(client)  # the client holds the host: a cycle would keep both from being collected
        self._url = url
        self._token = token
        self.sink: Sink = sink_from_url(url, token=token)
        self._spool: SpoolSink | None = None
        self._inherited: list[object] = []
        self._problem = object()  # so that each host logs its own problems
        self._begin()
        _hosts.add(self)

    def _begin(self) -> None:
        self._starting = threading.Lock()
        self._running = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._stop = False

    def start(self) -> bool:
        """Start the thread unless it runs; False if no thread can be started any more."""
        if self._running:
            return True
        # Another thread, or the code that this call interrupted, is starting it already: never wait for that here.
        if self._stop or not self._starting.acquire(blocking=False):
            return not self._stop
        try:
            if not self._running:
                self._running = True
                # Not threading.Thread, whose start() takes a lock that the code under this signal handler may hold.
                _thread.start_new_thread(self._start_thread, ())
                _finish_in_children(self._client)
            return True
        except RuntimeError:  # the interpreter is shutting down, or the system is out of threads
            self._ended()
            return False
        finally:
            self._starting.release()

    def _start_thread(self) -> None:
        """Start the worker's thread, in a short-lived one that may wait for threading's lock.

        A thread that threading did not start becomes known to it when it is first looked at. In the child of a fork
        CPython takes such a thread apart under that same lock, before the lock is made anew: if another thread held it,
        the child would hang in ``os.fork()``.
        """
        try:
            threading.Thread(target=self._run, name="asgi-analytics worker", daemon=True).start()
        except RuntimeError:  # out of threads just now: this one is here
            self._run()

    def _run(self) -> None:
        try:
            # Not left to the next event: the last one may have come while this attempt was about to fail.
            while not self._run_loop():
                time.sleep(RESTART_SECONDS)
        finally:
            self._ended()

    def _run_loop(self) -> bool:
        """Run the worker on a new loop; False when that failed, and is to be tried again."""
        try:
            with asyncio.Runner(loop_factory=_Loop) as runner:
                self._loop = runner.get_loop()
                runner.run(self._serve())
        except BaseException as error:
            # Not expected: what the sink raises is the worker's to handle.
            log_problem((self._problem, "ended"), "the worker ended by %s, and is started again", failure(error))
            client = self._client()
            return self._stop or client is None or client._delivery.is_attached()
        finally:
            self._loop = self._task = None
        return True

    def _ended(self) -> None:
        """Let the next event start the thread again, unless it was told to end."""
        self._running = False
        client = self._client()
        # Also if no thread could be started.
        if client is not None and not self._stop and not client._delivery.is_attached():
            client._queue.idle(self.start, wake_at=1)

    async def _serve(self) -> None:
        client = self._client()
        if client is None:
            return
        self._task = asyncio.ensure_future(AnalyticsWorker(client, self._outlet(client)).run())
        if self._spool is not None:
            with suppress():
                self._spool.start()
        del client
        if self._stop:
            self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    def _outlet(self, client: AnalyticsClient) -> Sink:
        """Return what the worker writes to: the sink, or the spool around it."""
        settings = client.settings
        if settings.spool is None:
            return self.sink
        if self._spool is None:
            folder = SpoolFolder(
                Path(settings.spool),
                max_bytes=settings.spool_bytes,
                sync=settings.spool_sync,
                keep=settings.spool_mode == "always",
                target=_target(self._url),
            )
            self._spool = spooling(
                self.sink,
                folder,
                client._ledger,
                always=settings.spool_mode == "always",
                batch_size=settings.batch_size,
                flush_interval=settings.flush_interval,
            )
        return self._spool

    def keep(self, lines: list[bytes]) -> bool:
        """Keep lines in the spool, from any thread; False if there is none, or they do not fit."""
        client = self._client()
        if client is None or client.settings.spool is None:
            return False
        self._outlet(client)
        assert self._spool is not None
        is_kept = self._spool.append(lines)
        if not self._running:
            self._spool.release()  # no worker will do it
        return is_kept

    def finish(self, timeout: float) -> None:
        """Write what is left within ``timeout`` seconds, on a loop in the calling thread."""
        client = self._client()
        if client is None or self._stop or asyncio._get_running_loop() is not None:
            return

        async def flush() -> None:
            worker = AnalyticsWorker(client, self._outlet(client))
            await worker.__aenter__()
            await worker.aclose(timeout)

        try:
            with asyncio.Runner(loop_factory=_Loop) as runner:
                runner.run(flush())
        except Exception as error:
            log_problem((self._problem, "ended"), "the last flush ended by %s", failure(error))

    def stop(self) -> None:
        """Tell the worker to end; returns at once."""
        self._stop = True
        loop, task = self._loop, self._task
        if loop is not None and task is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                loop.call_soon_threadsafe(task.cancel)

    def stopped(self) -> bool:
        """Tell whether the thread has ended, or never began."""
        return not self._running

    def rest(self, until: threading.Event, deadline: float) -> None:
        """Make the thread wait between two steps of its loop until an event is set; returns when it does so.

        Gives up at ``deadline``, by the monotonic clock: the thread may wait for what the caller holds.
        """
        resting = threading.Event()

        def rest() -> None:
            resting.set()
            until.wait()

        while self._running and (left := deadline - time.monotonic()) > 0:
            loop = self._loop
            if loop is None:
                time.sleep(0.001)  # it was started just now, or ends
                continue
            if loop is not asyncio._get_running_loop():
                with contextlib.suppress(RuntimeError):  # it was closed meanwhile
                    loop.call_soon_threadsafe(rest)
                    resting.wait(left)
            return

    def after_fork(self) -> None:
        """Begin anew in the child of a fork.

        The parent's loop, sink and connections are kept, untouched and unused, as long as the child lives: to finalise
        them would close sockets in the middle of the parent's conversation, or take them out of the epoll set that both
        share.
        """
        if self._spool is not None:
            self._spool.after_fork()
        self._inherited += [self.sink, self._spool, self._loop, self._task]
        self._spool = None
        self.sink = sink_from_url(self._url, token=self._token)
        self._begin()


def _target(url: str) -> str:
    """Return what tells the databases and services of URLs apart, whoever logs in there: a hash."""
    parts = urlsplit(url.strip())
    place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return sha256(place.encode("utf-8", "surrogatepass")).hexdigest()


def _finish_in_children(client: ref[AnalyticsClient]) -> None:
    """Close the client at the end of a child of multiprocessing or billiard, or of a process of Celery's pool.

    They leave by ``os._exit``, and so past atexit.
    """

    def close(**_: object) -> None:
        if (alive := client()) is not None:
            alive.close()

    process = sys.modules.get("multiprocessing.process")
    util = sys.modules.get("multiprocessing.util")
    # billiard, Celery's fork of multiprocessing, shares the finalizers and the current process with it, not the parent.
    if (
        process is not None
        and util is not None
        and (process.parent_process() is not None or process.current_process().name != "MainProcess")
    ):
        util.Finalize(None, close, exitpriority=100)
    # Celery's pool runs no finalizers, but says when one of its processes ends.
    signals = sys.modules.get("celery.signals")
    if signals is not None:
        signals.worker_process_shutdown.connect(close, weak=False, dispatch_uid=f"asgi_analytics {id(client())}")


_hosts: WeakSet[ThreadHost] = WeakSet()
_rests: dict[int, threading.Event] = {}


def _before_fork() -> None:
    """Let no worker be in the middle of something when the process is copied.

    The child would find locks of C libraries held by a thread that it does not have. A fork during the first
    connection, which makes OpenSSL initialise itself, left children that could never connect.
    """
    over = _rests[threading.get_ident()] = threading.Event()
    deadline = time.monotonic() + FORK_SECONDS
    for host in list(_hosts):
        host.rest(over, deadline)


def _after_fork_in_parent() -> None:
    _rests.pop(threading.get_ident()).set()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_rests.clear)
