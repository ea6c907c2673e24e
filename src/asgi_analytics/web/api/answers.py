"""The answers that are given again, and the questions that run: one at a time for each, and few at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections import OrderedDict
from hashlib import sha256
from typing import TYPE_CHECKING, BinaryIO, Self

from asgi_analytics.context import suppress
from asgi_analytics.values import KIB, MIB
from asgi_analytics.web.api.refusals import Refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

AT_ONCE = 4
"""Questions that run at once."""
PATIENCE = 10.0
"""Seconds that a question waits until one of them has ended."""
MOST_KEPT = 32 * MIB
LONG = MIB
"""Bytes from which an answer waits in a file for who reads it."""
PIECE = 64 * KIB
"""Bytes of a file that are read at a time."""
ENTRY = 1024
"""Bytes that an answer takes beside its content and its key, generously."""


class Answer:
    """The content of a response, written bit by bit: into memory, and into a nameless file if it becomes long."""

    def __init__(self) -> None:
        self.size = 0
        self.keep = 0.0
        """For how many seconds new data cannot change it; 0 for a long one, which is not kept."""
        self._hash = sha256()
        self._parts: list[bytes] = []
        self._file: BinaryIO | None = None

    @property
    def etag(self) -> str:
        """The tag of the content."""
        return f'"{self._hash.hexdigest()[:32]}"'

    def write(self, content: bytes) -> None:
        """Take the next bit."""
        self._hash.update(content)
        self.size += len(content)
        self._parts.append(content)
        if self.size > LONG:
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115  # others may still read it
            self._file.writelines(self._parts)
            self._parts = []

    def end(self, keep: float) -> Self:
        """Take no more, and return the answer; a short one is kept for so many seconds."""
        if self._file is None:
            self.keep = keep
        else:
            self._file.flush()
        return self

    async def pieces(self) -> AsyncIterator[bytes]:
        """Return the content, a piece at a time."""
        for part in self._parts:
            yield part
        if self._file is not None:
            for at in range(0, self.size, PIECE):
                # At a place of its own, for others may be reading the same file.
                yield await asyncio.to_thread(os.pread, self._file.fileno(), PIECE, at)

    def __del__(self) -> None:
        """Close the file, and so delete it."""
        if self._file is not None:
            self._file.close()


class Running:
    """A question that runs, and how many wait for its answer."""

    def __init__(self, task: asyncio.Task[Answer]) -> None:
        self.task = task
        self.waiting = 0


class Answers:
    """Ask each question once for all who wait for it, and give its answer again while it is fresh.

    ``patience`` is how many seconds a question waits for its turn; ``most_kept`` limits the bytes of all answers that
    are kept.
    """

    def __init__(self, *, at_once: int = AT_ONCE, patience: float = PATIENCE, most_kept: int = MOST_KEPT) -> None:
        self._turns = asyncio.Semaphore(at_once)
        self._patience = patience
        self._most_kept = most_kept
        self._running: dict[bytes, Running] = {}
        self._kept: OrderedDict[bytes, tuple[float, Answer]] = OrderedDict()
        self._kept_bytes = 0

    async def get(self, key: bytes, make: Callable[[], Awaitable[Answer]]) -> Answer:
        """Return the answer of a key: a kept one, that of the question that runs, or the one that ``make`` makes.

        A question that nobody waits for any longer is cancelled. Raises what ``make`` raises, and `Refusal` 503.
        """
        kept = self._find(key)
        if kept is not None:
            return kept
        running = self._running.get(key)
        if running is None:
            task = asyncio.create_task(self._run(key, make), name="asgi-analytics question")
            task.add_done_callback(_retrieve)
            running = self._running[key] = Running(task)
        running.waiting += 1
        try:
            return await asyncio.shield(running.task)
        finally:
            running.waiting -= 1
            if not running.waiting:
                if self._running.get(key) is running:
                    del self._running[key]
                if not running.task.done():
                    running.task.cancel()
                    await asyncio.gather(running.task, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def turn(self, *, patient: bool = False) -> AsyncIterator[None]:
        """Wait for a turn to ask the database. Raises `Refusal` 503 after ``patience``, unless ``patient``."""
        try:
            async with asyncio.timeout(None if patient else self._patience):
                await self._turns.acquire()
        except TimeoutError:
            raise Refusal(
                503, "too_many_questions", "too many questions are being asked: ask again", None, {"Retry-After": "5"}
            ) from None
        try:
            with suppress():
                yield
        finally:
            self._turns.release()

    def forget(self) -> None:
        """Forget what is kept: something was changed. Who asks from now on gets no answer from before either."""
        self._running.clear()
        self._kept.clear()
        self._kept_bytes = 0

    async def aclose(self) -> None:
        """Cancel what runs, and forget what is kept."""
        tasks = [running.task for running in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.forget()

    async def _run(self, key: bytes, make: Callable[[], Awaitable[Answer]]) -> Answer:
        try:
            async with self.turn():
                answer = await make()
            if self._is_current(key):
                self._keep(key, answer)
            return answer
        finally:
            if self._is_current(key):
                del self._running[key]

    def _is_current(self, key: bytes) -> bool:
        """Tell whether this task is the one that answers a key: not if it was begun before a change."""
        running = self._running.get(key)
        return running is not None and running.task is asyncio.current_task()

    def _find(self, key: bytes) -> Answer | None:
        found = self._kept.get(key)
        if found is None:
            return None
        until, answer = found
        if until <= time.monotonic():
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return answer

    def _keep(self, key: bytes, answer: Answer) -> None:
        size = _size(key, answer)
        if answer.keep <= 0 or size > self._most_kept // 4:
            return
        self._drop(key)
        self._kept[key] = (time.monotonic() + answer.keep, answer)
        self._kept_bytes += size
        while self._kept_bytes > self._most_kept:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: bytes) -> None:
        found = self._kept.pop(key, None)
        if found is not None:
            self._kept_bytes -= _size(key, found[1])


def _size(key: bytes, answer: Answer) -> int:
    return len(key) + answer.size + ENTRY


def _retrieve(task: asyncio.Task[Answer]) -> None:
    """Look at the error of a task, which nobody may wait for any longer."""
    if not task.cancelled():
        task.exception()
