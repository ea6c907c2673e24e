"""A TCP proxy that tests cut, refuse and stall: the network between the library and its database."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

T = TypeVar("T")


class Proxy:
    """Stands in front of ``host:port``, in a thread and loop of its own, so that it works below any loop or none.

    ``dsn`` is the database's URL through the proxy; ``connections`` counts what was accepted so far, ``lost`` what
    `lose_request` and `lose_answer` cut.
    """

    def __init__(self, host: str, port: int, dsn: str = "") -> None:
        self.target = (host, port)
        self.host = "127.0.0.1"
        self.connections = 0
        self.lost = 0
        self._pairs: set[_Pair] = set()
        self._lose_request: list[bytes] = []
        self._lose_answer: list[bytes] = []
        self._listener: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        with socket.socket() as listener:
            listener.bind((self.host, 0))
            self.port = int(listener.getsockname()[1])
        self.flowing = self._call(_make_event())
        self.accept()
        self.dsn = ""
        if dsn:
            parts = urlsplit(dsn)
            userinfo = parts.netloc.rpartition("@")[0]
            self.dsn = urlunsplit(parts._replace(netloc=f"{userinfo}@{self.host}:{self.port}"))

    def accept(self) -> None:
        """Listen (again), on the same port."""
        self._call(self._accept())

    def refuse(self) -> None:
        """Stop listening: who connects is refused. What is connected stays; `cut` ends that."""
        self._call(self._refuse())

    def cut(self) -> None:
        """Close every connection, both ways, at once."""
        self._call(self._cut())

    def stall(self) -> None:
        """Keep the connections, accept more, move nothing."""
        self._loop.call_soon_threadsafe(self.flowing.clear)
        self._call(asyncio.sleep(0))

    def resume(self) -> None:
        """Move what waits since `stall`."""
        self._loop.call_soon_threadsafe(self.flowing.set)
        self._call(asyncio.sleep(0))

    def lose_request(self, match: bytes) -> None:
        """Cut the next connection whose client sends these bytes, before the server gets them. Holds once."""
        self._loop.call_soon_threadsafe(self._lose_request.append, match)

    def lose_answer(self, match: bytes) -> None:
        """Cut the next connection whose server answers with these bytes, before the client gets them. Holds once.

        The server has done what it was asked: after ``lose_answer(b"COMMIT")`` or ``lose_answer(b"INSERT 0")``, the
        tags of PostgreSQL's protocol, the rows are stored and the client cannot know.
        """
        self._loop.call_soon_threadsafe(self._lose_answer.append, match)

    def close(self) -> None:
        """Cut all and end the thread."""
        if self._loop.is_closed():
            return
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    async def _accept(self) -> None:
        if self._listener is None:
            self._listener = socket.create_server((self.host, self.port), backlog=100)
            self._listener.setblocking(False)
            self._loop.add_reader(self._listener, self._take, self._listener)

    def _take(self, listener: socket.socket) -> None:
        """Serve who connects. A Server of asyncio that is closed leaves who connects at that moment half open."""
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            connected, _ = listener.accept()
            connected.setblocking(False)
            task = self._loop.create_task(self._connected(connected))
            self._tasks.add(task)
            task.add_done_callback(lambda _: connected.close())  # also of a task that is cancelled before it begins
            task.add_done_callback(self._tasks.discard)

    async def _refuse(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    async def _cut(self) -> None:
        pairs = list(self._pairs)
        for pair in pairs:
            pair.abort()
        await asyncio.gather(*(pair.task for pair in pairs if pair.task is not None), return_exceptions=True)

    async def _end(self) -> None:
        await self._refuse()
        await self._cut()
        while self._tasks:  # what was accepted just now becomes a pair, and what was aborted is closed
            await asyncio.sleep(0.01)
            await self._cut()
        await asyncio.sleep(0)

    async def _connected(self, connected: socket.socket) -> None:
        self.connections += 1
        reader, writer = await asyncio.open_connection(sock=connected)
        pair = _Pair(self, asyncio.current_task())
        self._pairs.add(pair)
        pair.writers.append(writer)
        try:
            await pair.serve(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._pairs.discard(pair)
            for end in pair.writers:
                end.close()
            for end in pair.writers:
                with contextlib.suppress(OSError):
                    await end.wait_closed()

    def _is_lost(self, chunk: bytes, matches: list[bytes]) -> bool:
        for match in matches:
            if match in chunk:
                matches.remove(match)
                self.lost += 1
                return True
        return False


class _Pair:
    """One client, its connection to the server, and the two pumps between."""

    def __init__(self, proxy: Proxy, task: asyncio.Task[None] | None) -> None:
        self.proxy = proxy
        self.task = task
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.proxy.flowing.wait()
        up_reader, up_writer = await asyncio.open_connection(*self.proxy.target)
        self.writers.append(up_writer)
        requests = self.pump(reader, up_writer, lambda chunk: self.proxy._is_lost(chunk, self.proxy._lose_request))
        answers = self.pump(up_reader, writer, lambda chunk: self.proxy._is_lost(chunk, self.proxy._lose_answer))
        await asyncio.gather(requests, answers, return_exceptions=True)

    async def pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, is_lost: Callable[[bytes], bool]
    ) -> None:
        try:
            while chunk := await source.read(65536):
                await self.proxy.flowing.wait()
                if is_lost(chunk):
                    self.abort()
                    return
                sink.write(chunk)
                await sink.drain()
        except OSError:  # reset by one side: without a proxy the other one would see it
            self.abort()
            return
        if sink.can_write_eof():
            sink.write_eof()

    def abort(self) -> None:
        for writer in self.writers:
            writer.transport.abort()
        if self.task is not None and self.task is not asyncio.current_task():
            self.task.cancel()


async def _make_event() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event
