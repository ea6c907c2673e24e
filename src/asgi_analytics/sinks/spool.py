"""A sink around a sink: it keeps on disk what the other one cannot take now, and sends it in order when it can."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import TYPE_CHECKING, Any, Protocol

from asgi_analytics.errors import OperatorError, SinkError, TransientError
from asgi_analytics.log import failure, log, log_problem, solved
from asgi_analytics.sinks.base import HasUpkeep, KnowsVisitors, Receipt
from asgi_analytics.sinks.spool_folder import GROUP_EVENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
    from datetime import date, datetime

    from asgi_analytics.sinks.base import Rejected, Sink
    from asgi_analytics.sinks.spool_folder import SpoolFolder
    from asgi_analytics.sinks.spool_orphan import OrphanFolder

PATIENCE_SECONDS = 0.5
"""A write that takes longer while the queue is half full is given up, and what it holds goes to disk, from where it is
sent without haste. It may be stored all the same: then it is a duplicate later."""

LOOK_SECONDS = 0.1
"""How often is looked whether a flush, a close or a fuller queue changes what is to be done."""

ADOPT_SECONDS = 30.0
"""How often is looked for the folders of dead processes, at least."""

PAUSE_SECONDS = 0.2
"""Writes of what is spooled as it comes begin no sooner one after the other, as those of the worker do."""

FIRST_BACKOFF = 0.1
LAST_BACKOFF = 30.0

ENDING_SECONDS = 0.4
"""What a write gets to end in once it is given up."""

DAMAGED = "damaged in the spool"
"""The reason of events that were rejected because their lines could not be read."""


class Books(Protocol):
    """What the spool asks and tells the pipeline of whose events it keeps."""

    is_flushing: bool
    """Somebody waits for all to be settled."""

    oldest_spooled: Callable[[], bytes | None]
    """Returns the oldest event on disk."""

    def is_closed(self) -> bool:
        """Tell whether no more events are accepted."""

    def is_pressed(self) -> bool:
        """Tell whether the queue is half full, or closed."""

    def failed(self, error: str) -> None:
        """Record that a write failed."""

    def settle_spooled(self, number: int, *, duplicates: int, rejected: Sequence[str]) -> None:
        """Record what became of so many spooled events."""

    def recover(self, number: int, damaged: int) -> None:
        """Record that so many events of other processes were settled, and so many damaged lines found."""


class SpoolSink:
    """Writes to ``sink``, and to ``folder`` what it cannot take.

    As long as ``sink`` fails and the pipeline is pressed, batches go to disk; their receipts count them as spooled.
    With ``always`` every batch goes to disk first, and is sent by ``flush_interval`` and ``batch_size`` from memory.
    A task of its own sends what is on disk, tries again while that fails, and adopts what dead processes have left.
    Own events are sent in order; between them those of the dead, in theirs.
    """

    def __init__(
        self, sink: Sink, folder: SpoolFolder, books: Books, *, always: bool, batch_size: int, flush_interval: float
    ) -> None:
        self._sink = sink
        self._folder = folder
        self._books = books
        books.oldest_spooled = folder.oldest
        self._always = always
        self._batch_size = batch_size
        self._flush_interval = flush_interval
        self._problem = object()  # this spool's own in the log
        self._most = GROUP_EVENTS  # what one write takes: less after one that ran out of time
        self._error: Exception | None = None
        self._is_overflowing = False
        self._waiting_since: float | None = None
        self._paused_until = 0.0
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begin to send what is on disk and to adopt, on the running loop."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop or self._task is None or self._task.done():
            self._loop = loop
            # Locks and events belong to the loop that waited for them.
            self._writing = asyncio.Lock()
            self._wakened = asyncio.Event()
            self._task = loop.create_task(self._drain(), name="asgi-analytics spool")

    # -- from the worker

    async def write(self, batch: Sequence[bytes]) -> Receipt:
        """Store a batch, or keep it on disk; raises what the sink raises if neither can be done now."""
        self.start()
        if self._always and self._append(batch):
            return Receipt(spooled=len(batch))
        while self._folder.waits():
            if (self._is_overflowing or self._books.is_pressed()) and self._append(batch):
                return Receipt(spooled=len(batch))
            if self._error is not None:
                raise _again(self._error)
            await asyncio.sleep(LOOK_SECONDS)
        try:
            receipt = await self._write_patiently(batch)
        except Exception as error:
            if not self._books.is_pressed() or not self._append(batch):
                raise
            self._is_overflowing = True
            self._note(error)
            return Receipt(spooled=len(batch))
        self._is_well()
        return receipt

    def append(self, lines: Sequence[bytes]) -> bool:
        """Keep lines on disk, from any thread: what a close would abandon; False if they do not fit."""
        return self._folder.append(lines)

    def _append(self, batch: Sequence[bytes]) -> bool:
        if not self._folder.append(batch):
            return False
        if self._waiting_since is None:
            self._waiting_since = time.monotonic()
        self._wakened.set()
        return True

    async def _write_patiently(self, batch: Sequence[bytes]) -> Receipt:
        """Write to the sink, as long as it takes unless the pipeline is pressed."""
        writing = asyncio.ensure_future(self._write(batch))
        try:
            seconds = PATIENCE_SECONDS
            while not (await asyncio.wait({writing}, timeout=seconds))[0]:
                if self._books.is_pressed():
                    raise TransientError("the sink is too slow for what comes in", fewer=True)
                seconds = LOOK_SECONDS
            return writing.result()
        finally:
            if not writing.done():
                writing.cancel()  # no other write begins before it has ended
                writing.add_done_callback(_look_at)

    async def _write(self, batch: Sequence[bytes]) -> Receipt:
        async with self._writing:
            return await self._sink.write(batch)

    async def aclose(self) -> None:
        """End the sending; a closed client leaves its folder to others."""
        if self._task is not None and self._loop is asyncio.get_running_loop():
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=ENDING_SECONDS)
            with contextlib.suppress(TimeoutError):  # of a write that was given up
                await asyncio.wait_for(self._writing.acquire(), ENDING_SECONDS)
        self._task = self._loop = None
        if self._books.is_closed():
            self._folder.close()
        await self._sink.aclose()

    def release(self) -> None:
        """Leave the folder to others: the worker has ended."""
        self._folder.close()

    def after_fork(self) -> None:
        """Let go of what belongs to the parent."""
        self._folder.after_fork()

    async def upkeep(self) -> None:
        """Do the hourly work of the sink, if it has any."""
        if isinstance(self._sink, HasUpkeep):
            await self._sink.upkeep()

    # -- the task

    async def _drain(self) -> None:
        """Send what is on disk, one group after the other: ours and the dead's in turn."""
        adopt_at = 0.0
        attempt = 0
        turn = False
        while True:
            if time.monotonic() >= adopt_at:
                self._folder.adopt()
                adopt_at = time.monotonic() + random.uniform(ADOPT_SECONDS / 2, ADOPT_SECONDS)  # noqa: S311  # jitter
            turn = not turn
            is_due = self._is_due()
            source = self._folder.orphans[0] if self._folder.orphans and (turn or not is_due) else None
            if source is None and not is_due:
                self._wakened.clear()
                seconds = LOOK_SECONDS if self._folder.waits() else adopt_at - time.monotonic()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, seconds)):
                        await self._wakened.wait()
                continue
            try:
                if source is None:
                    await self._send_own()
                elif not await self._send_orphan(source):
                    adopt_at = 0.0
            except (Exception, asyncio.CancelledError) as error:
                if isinstance(error, asyncio.CancelledError) and _is_cancelled():
                    raise
                self._note(error)
                await self._back_off(attempt)
                attempt = min(attempt + 1, 20)
            else:
                attempt = 0
                await asyncio.sleep(0)

    def _is_due(self) -> bool:
        folder = self._folder
        if not folder.waits():
            self._waiting_since = None
            return False
        if not self._always or folder.is_full_group() or self._books.is_flushing or self._books.is_closed():
            return True
        now = time.monotonic()
        waited = now - (self._waiting_since or now)
        return now >= self._paused_until and (len(folder) >= self._batch_size or waited >= self._flush_interval)

    async def _send_own(self) -> None:
        lines, lost = self._folder.take(self._most)
        if lost:
            log_problem((self._problem, DAMAGED), "lines of the spool could not be read: %d", lost)
            self._books.settle_spooled(lost, duplicates=0, rejected=[DAMAGED] * lost)
        if lines:
            self._paused_until = time.monotonic() + PAUSE_SECONDS
            duplicates, rejected = await self._send(lines)
            self._folder.settled(len(lines))
            self._books.settle_spooled(len(lines), duplicates=duplicates, rejected=[one.reason for one in rejected])
        self._waiting_since = time.monotonic()

    async def _send_orphan(self, orphan: OrphanFolder) -> bool:
        """Send some lines of a dead process; False if that were all."""
        try:
            lines, damaged = orphan.take(self._most)
            if damaged:
                log_problem((self._problem, DAMAGED), "lines of a spool that was left could not be read: %d", damaged)
                self._books.recover(0, damaged)
            if not lines:
                self._folder.orphans.remove(orphan)
                orphan.remove()
                return False
        except OSError as error:
            self._folder.give_up(orphan, error)
            return False
        await self._send(lines)
        orphan.settled(len(lines))
        self._books.recover(len(lines), 0)
        return True

    async def _send(self, lines: list[bytes]) -> tuple[int, Sequence[Rejected]]:
        try:
            receipt = await self._write(lines)
        except TransientError as error:
            if error.fewer:
                self._most = max(1, len(lines) // 2)
            raise
        if receipt.duplicates < 0 or receipt.duplicates + len(receipt.rejected) > len(lines):
            raise SinkError(f"{type(self._sink).__name__} answered for more events than it was given")
        self._most = min(GROUP_EVENTS, self._most + max(1, self._most // 8))
        self._is_well()
        for one in receipt.rejected:
            log_problem((self._problem, one.reason), "rejected by the sink (%s)", one.reason)
        return receipt.duplicates, receipt.rejected

    async def _back_off(self, attempt: int) -> None:
        """Wait before the next attempt; a flush or a close that begins meanwhile ends it."""
        until = time.monotonic() + random.uniform(0, min(LAST_BACKOFF, FIRST_BACKOFF * 2**attempt))  # noqa: S311
        if isinstance(self._error, TransientError):
            until += min(self._error.retry_after or 0.0, LAST_BACKOFF)
        before = self._urgency()
        while (left := until - time.monotonic()) > 0 and self._urgency() <= before:
            before = min(before, self._urgency())
            await asyncio.sleep(min(left, LOOK_SECONDS))

    def _urgency(self) -> int:
        return self._books.is_flushing + self._books.is_closed()

    # -- how the sink is

    def _note(self, error: BaseException) -> None:
        said = failure(error)
        self._error = error if isinstance(error, Exception) else SinkError(said)
        self._books.failed(said)
        log_problem((self._problem, "away"), "events are spooled, the sink is away: %s", said)

    def _is_well(self) -> None:
        if self._error is not None:
            log.info("what is spooled is sent")
            solved((self._problem, "away"))
        self._error = None
        self._is_overflowing = False


class SharedSpoolSink(SpoolSink):
    """The spool around a sink that knows visitors, which may not hold up what is to go to disk.

    If the sink cannot be asked while the pipeline is pressed, visitors whose key is not known are not counted.
    """

    async def visitor_key(self, day: date) -> bytes | None:
        """See `KnowsVisitors`; raises `SinkError` if the sink cannot be asked."""
        key: bytes | None = await self._ask(self._knowing().visitor_key(day))
        return key

    async def seen_visitors(self, visitors: Mapping[str, datetime]) -> Collection[str]:
        """See `KnowsVisitors`; none if the sink cannot be asked."""
        seen: Collection[str] = ()
        with contextlib.suppress(_NotAsked):
            seen = await self._ask(self._knowing().seen_visitors(visitors))
        return seen

    async def note_visitors(self, visitors: Mapping[str, datetime]) -> None:
        """See `KnowsVisitors`; not done if the sink cannot be asked."""
        with contextlib.suppress(_NotAsked):
            await self._ask(self._knowing().note_visitors(visitors))

    def _knowing(self) -> KnowsVisitors:
        assert isinstance(self._sink, KnowsVisitors)
        return self._sink

    async def _ask(self, question: Coroutine[Any, Any, Any]) -> Any:
        """Ask the sink; raises `_NotAsked` if it is away, or does not answer, while events have to go to disk."""
        if self._is_overflowing:
            question.close()
            raise _NotAsked("the sink is away")
        try:
            async with asyncio.timeout(PATIENCE_SECONDS if self._always or self._books.is_pressed() else None):
                return await question
        except (TransientError, TimeoutError) as error:
            if self._always or self._books.is_pressed():
                raise _NotAsked(failure(error)) from error
            raise


class _NotAsked(SinkError):
    """The sink could not be asked, and nobody can wait for it."""


def spooling(
    sink: Sink, folder: SpoolFolder, books: Books, *, always: bool, batch_size: int, flush_interval: float
) -> SpoolSink:
    """Return a spool around a sink; it knows visitors if the sink does."""
    made = SharedSpoolSink if isinstance(sink, KnowsVisitors) else SpoolSink
    return made(sink, folder, books, always=always, batch_size=batch_size, flush_interval=flush_interval)


def _again(error: Exception) -> SinkError:
    """Return an error that says the same: one object that is raised many times gathers tracebacks."""
    kind = TransientError if isinstance(error, TransientError) else OperatorError
    return kind(failure(error))


def _look_at(writing: asyncio.Task[Receipt]) -> None:
    """Let the loop not say that nobody has looked at an error."""
    if not writing.cancelled():
        writing.exception()


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
