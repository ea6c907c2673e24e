"""The bounded queue between the client and the worker, and the ledger of what became of each event.

Producers (any thread, a signal handler, the garbage collector) only append to a deque: one step of the interpreter,
no lock. Everything else happens under a lock that producers never take.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter, deque
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from asgi_analytics.errors import ConfigError
from asgi_analytics.log import is_due, log, log_problem, number_of_events, one_line
from asgi_analytics.pipeline.fields import QueueFields, fitting, lines_of
from asgi_analytics.pipeline.stats import DROP_REASONS, LockFreeCounter, Stats

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

CAPTURED_SHARE = 0.8
"""Captured events are refused from this share of the bounds, so that explicit ones get through."""

WAKE_BYTES = 512 * 1024
"""So many waiting bytes wake the worker, however few events they are."""

_NEVER = 1 << 62


class CompiledRecord(Protocol):
    """A record that a compiled module has made: it weighs what ``len()`` says."""

    time_ns: int

    def __len__(self) -> int: ...

    def line(self) -> bytes:
        """Return the JSON of the event."""


Item = bytes | tuple[Any, ...] | CompiledRecord
"""What waits: the JSON of an event, or a record of a captured one, of which the worker makes the JSON.

A record is a tuple of numbers and texts: first the number that `add_writer` has given to the function that makes the
JSON of it, then its weight in bytes, and the nanoseconds of its timestamp. It costs the application a third of what
the JSON would.
"""


MOST_RECORDS_BYTES = 4096
"""Where less is allowed for an event, each is encoded at once, and what is larger is told so by `track`."""


class EventQueue(QueueFields):
    """Encoded events that wait, those being written, and the count of all that were settled."""

    def __init__(self, *, size: int, max_bytes: int, wake_at: int) -> None:
        self.size = size
        self.max_bytes = max_bytes
        self.captured_size = max(1, int(size * CAPTURED_SHARE))
        self.captured_bytes = int(max_bytes * CAPTURED_SHARE)
        self._wake_at_when_idle = wake_at
        self._writers: list[Callable[[tuple[Any, ...]], bytes]] = []
        self._problem = object()  # this queue's own in the log; an id() could be another one's later
        self.reset()

    def reset(self) -> None:
        """Start from nothing: at construction, and in the child of a fork, whose parent delivers what was here."""
        self.lock = threading.RLock()  # re-entrant: a signal handler may read the stats while its thread settles
        self.items: deque[Item] = deque()
        self.bytes_in = 0
        self.bytes_out = 0
        self.in_flight: list[Item] = []
        self.dropped = LockFreeCounter(DROP_REASONS)
        self.stored = self.duplicates = self.abandoned = self.retries = self.batches = 0
        self.rejected: Counter[str] = Counter()
        self.last_error: str | None = None
        self.closed = False
        self.ended = False
        self._drop_details: dict[str, str] = {}
        self._drops_reported: Counter[str] = Counter()
        self._waiters: list[tuple[int, Callable[[], None]]] = []
        # Read by producers: the length, and the bytes, from which one of them wakes the worker.
        self.busy()
        self._waker: Callable[[], object] | None = None
        self.owner: object = None
        self.worker_thread: int | None = None
        self._alive: Callable[[], bool] = bool
        self.flushing = False

    # -- producers: no lock

    def put_closely(self, item: Item, weight: int, captured: bool) -> bool:
        """Do what `put` does where it is not calm."""
        items = self.items
        length = len(items)
        waiting = self.bytes_in - self.bytes_out + weight
        size, max_bytes = (self.captured_size, self.captured_bytes) if captured else (self.size, self.max_bytes)
        if length >= size or waiting > max_bytes or self.closed:
            return False
        self.bytes_in += weight
        items.append(item)
        if length >= self.wake_after or waiting >= self.wake_bytes:
            self.wake()
        return True

    def close(self) -> None:
        """Take no more events."""
        self.closed = True
        self._calm()

    def _calm(self) -> None:
        """Say up to where producers need not look any closer."""
        self.calm_length = -1 if self.closed else min(self.wake_after, self.captured_size)
        self.calm_bytes = min(self.wake_bytes, self.captured_bytes)

    def wake(self) -> None:
        """Wake the worker, once until it idles again."""
        if self.ended:
            self.abandon()  # what slipped in while a close was ending
        self.busy()
        if (waker := self._waker) is not None:
            waker()

    def add_writer(self, write: Callable[[tuple[Any, ...]], bytes]) -> int:
        """Return the number with which the records begin of which a function makes the JSON."""
        with self.lock:
            self._writers.append(write)
            return len(self._writers) - 1

    def lines_of(self, items: list[Item]) -> list[bytes]:
        """Return the JSON of each item; raises whatever the writer of a record raises."""
        return lines_of(items, self._writers)

    def drop(self, reason: str, detail: str) -> None:
        """Count an event that is not accepted; the worker logs the latest detail of each reason, if there is one."""
        self.dropped.add(reason)
        if detail:
            self._drop_details[reason] = detail

    # -- the worker

    def idle(self, waker: Callable[[], object], wake_at: int | None = None) -> None:
        """Say how to wake the worker, which is going to sleep now, and at which length (``batch_size``)."""
        self._waker = waker
        if not self.ended:
            self.wake_after = (self._wake_at_when_idle if wake_at is None else wake_at) - 1
            self.wake_bytes = WAKE_BYTES
            self._calm()

    def busy(self) -> None:
        """Say that nobody need wake the worker: it looks at the queue by itself."""
        self.wake_after = self.wake_bytes = -1 if self.ended else _NEVER
        self._calm()

    def is_worth_a_write(self, wake_at: int | None = None) -> bool:
        """Tell whether so much waits that the worker would be woken for it."""
        enough = self._wake_at_when_idle if wake_at is None else wake_at
        return len(self.items) >= enough or self.bytes_in - self.bytes_out >= WAKE_BYTES

    def half(self) -> int:
        """Return how many events are half of what the queue takes of captured ones, but no less than a batch."""
        return max(self._wake_at_when_idle, self.captured_size // 2)

    def attach(self, waker: Callable[[], object], alive: Callable[[], bool]) -> None:
        """Make the owner of ``waker`` the worker, in the calling thread; `ConfigError` while another one is at it.

        ``alive`` tells whether the worker's loop still runs: one whose loop has died is replaced, and what it had in
        flight waits again.
        """
        with self.lock:
            if self.is_attached():
                raise ConfigError("this client has a worker already: one client, one worker")
            self.put_back()
            self._alive = alive
            self._waker = self.owner = waker
            self.worker_thread = threading.get_ident()
            self.busy()

    def detach(self, waker: Callable[[], object]) -> None:
        """End a worker's time, unless another one has replaced it; what is in flight waits again."""
        with self.lock:
            if self.owner is not waker:
                return
            self.put_back()
            self._waker = self.owner = None
            self.worker_thread = None
            self.busy()

    def is_attached(self) -> bool:
        """Tell whether a worker is at it, on a loop that runs."""
        return self.owner is not None and self._alive()

    def has_worker(self) -> bool:
        """Tell whether somebody takes events out, or would if woken."""
        return self._waker is not None and (self.owner is None or self._alive())

    def needs_this_thread(self) -> bool:
        """Tell whether the worker cannot go on while the calling thread waits.

        It is the worker's own thread, or holds the lock: then a signal handler calls, from the middle of another call.
        """
        return self.worker_thread == threading.get_ident() or self.lock._is_owned()  # type: ignore[attr-defined]

    def report_drops(self) -> None:
        """Log what was dropped since the last word about it, one line a reason."""
        dropped = self.dropped.read()
        for reason, detail in list(self._drop_details.items()):
            number = dropped[reason] - self._drops_reported[reason]
            if number and is_due((self._problem, reason)):
                log.warning("%s dropped (%s), the last one: %s", number_of_events(number), reason, one_line(detail))
                self._drops_reported[reason] = dropped[reason]

    def take(self, max_count: int, max_bytes: int) -> list[Item]:
        """Move waiting events into flight, oldest first, within the limits (one event always fits)."""
        with self.lock:
            items = self.items
            try:
                first = list(islice(items, max_count))
            except RuntimeError:  # a finaliser has tracked something meanwhile: by their places, then
                first = [items[place] for place in range(min(max_count, len(items)))]
            number, size = fitting(first, max_bytes)
            batch: list[Item] = []
            self.in_flight = batch
            batch.extend(islice(iter(items.popleft, None), number))  # one step: a signal handler sees all or nothing
            self.bytes_out += size
            return batch

    def write_lines(self, batch: list[Item], place: int, number: int) -> int:
        """Make the JSON of at most ``number`` records of the batch in flight, in place; return where to go on.

        A record of which none can be made is rejected: it leaves the batch, and costs no other event.
        """
        with contextlib.suppress(Exception):  # the usual case in one step
            batch[place : place + number] = self.lines_of(batch[place : place + number])
            return min(place + number, len(batch))
        while place < len(batch) and number > 0:
            item = batch[place]
            if not isinstance(item, bytes):
                number -= 1
                try:
                    [batch[place]] = self.lines_of([item])
                except Exception as error:
                    if not self._reject(batch, place, f"not written: {type(error).__name__}"):
                        break
                    continue
            place += 1
        return place

    def _reject(self, batch: list[Item], place: int, reason: str) -> bool:
        """Reject one event of the batch in flight; False when a close has abandoned that meanwhile."""
        with self.lock:
            if self.in_flight is not batch:
                return False
            rejected = self.rejected + Counter([reason])
            del batch[place]
            self.rejected = rejected
        log_problem((self._problem, reason), "a captured event was rejected: %s", reason)
        self._notify()
        return True

    def settle(
        self, batch: list[Item], *, duplicates: int, rejected: Collection[str], written: int | None = None
    ) -> list[Item]:
        """Record what became of the batch in flight, or of so many of its first events; the rest, returned, stays.

        What is neither a duplicate nor rejected (one reason an event) was stored: the sum cannot be off. Ignored, with
        nothing left, when a close has abandoned the batch meanwhile.
        """
        refused = self.rejected + Counter(rejected)
        rest: list[Item] = [] if written is None else batch[written:]
        stored = len(batch) - len(rest) - duplicates - len(rejected)
        with self.lock:
            if self.in_flight is not batch:
                return []
            # Only plain assignments here: no signal handler can look between them.
            self.in_flight = rest
            self.stored += stored
            self.duplicates += duplicates
            self.rejected = refused
            self.batches += 1
            self.last_error = None
        self._notify()
        return rest

    def failed(self, error: str) -> None:
        """Record that a write failed and will be tried again."""
        with self.lock:
            self.retries += 1
            self.last_error = error

    def put_back(self) -> None:
        """Return what is in flight to the head of the queue: the worker stops before it knows what became of it."""
        with self.lock:
            batch, self.in_flight = self.in_flight, []
            self.items.extendleft(reversed(batch))
            self.bytes_out -= fitting(batch, _NEVER)[1]

    def abandon(self) -> int:
        """Give up all that is left, and return how many events that were."""
        with self.lock:
            left = len(self.in_flight)
            self.in_flight = []
            while self.items:
                self.bytes_out += fitting([self.items.popleft()], _NEVER)[1]
                left += 1
            self.abandoned += left
        self._notify()
        return left

    def end(self) -> int:
        """Give up all that is left, and what may still slip in, and return how many events were left."""
        self.ended = True
        self.busy()
        return self.abandon()

    # -- flushes

    def settled(self) -> int:
        """Return how many events have been settled, in order of acceptance."""
        return self.stored + self.duplicates + self.rejected.total() + self.abandoned

    def is_settled(self) -> bool:
        """Tell whether nothing waits and nothing is in flight."""
        return not self.items and not self.in_flight

    def ticket(self) -> int:
        """Return the number that `settled` has to reach for everything accepted until now to be settled."""
        with self.lock:
            return self.settled() + len(self.in_flight) + len(self.items)

    def when_settled(self, ticket: int, call: Callable[[], None]) -> bool:
        """Call back once the ticket is reached, from the thread that settles; True when it is reached already."""
        with self.lock:
            if self.settled() >= ticket:
                return True
            self._waiters.append((ticket, call))
            self.flushing = True
        self.wake()
        return False

    def forget(self, call: Callable[[], None]) -> None:
        """Drop a callback whose flush has run out of time."""
        with self.lock:
            self._waiters = [waiter for waiter in self._waiters if waiter[1] != call]
            self.flushing = bool(self._waiters)

    def _notify(self) -> None:
        with self.lock:
            settled = self.settled()
            due = [call for ticket, call in self._waiters if ticket <= settled]
            self._waiters = [waiter for waiter in self._waiters if waiter[0] > settled]
            self.flushing = bool(self._waiters)
        for call in due:
            call()

    # -- anybody

    def oldest(self) -> Item | None:
        """Return the oldest event that is not settled."""
        with self.lock:
            if self.in_flight:
                return self.in_flight[0]
            try:
                return self.items[0]
            except IndexError:
                return None

    def read(self, oldest_seconds: float) -> Stats:
        """Return the figures of this moment."""
        with self.lock:
            queued = len(self.items)
            return Stats(
                accepted=self.settled() + len(self.in_flight) + queued,
                dropped=self.dropped.read(),
                stored=self.stored,
                duplicates=self.duplicates,
                rejected=Counter(self.rejected),
                abandoned=self.abandoned,
                queued=queued,
                in_flight=len(self.in_flight),
                retries=self.retries,
                batches=self.batches,
                last_error=self.last_error,
                oldest_seconds=oldest_seconds,
            )
