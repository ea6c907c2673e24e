"""The ledger of what became of each event: in flight, stored, duplicate, rejected, abandoned, dropped."""

from __future__ import annotations

import threading
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING

from asgi_analytics.log import is_due, log, log_problem, one_line
from asgi_analytics.pipeline.queue import weight_of
from asgi_analytics.pipeline.stats import DROP_REASONS, LockFreeCounter, Stats

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from asgi_analytics.pipeline.queue import EventQueue, Item

SPILL_EVENTS = 1_000
"""So many events go to disk at once when a close runs out of time."""


class Ledger:
    """The batch in flight, the number of events on disk, and the counts of all events that were settled.

    Each change is made under one lock, which producers never take: whoever reads the figures sees them balance.
    """

    def __init__(self, queue: EventQueue) -> None:
        self._queue = queue
        self._problem = object()  # this ledger's own in the log; an id() could be another one's later
        self.reset()

    def reset(self) -> None:
        """Start from nothing, as `EventQueue.reset` does."""
        self.lock = threading.RLock()  # re-entrant: a signal handler may read the stats while its thread settles
        self.in_flight: list[Item] = []
        self.dropped = LockFreeCounter(DROP_REASONS)
        self.stored = self.duplicates = self.abandoned = self.retries = self.batches = 0
        self.spooled = self.recovered = self.damaged = 0
        self.oldest_spooled: Callable[[], bytes | None] = _none
        self.rejected: Counter[str] = Counter()
        self.last_error: str | None = None
        self._drop_details: dict[str, str] = {}
        self._drops_reported: Counter[str] = Counter()
        self._waiters: list[tuple[int, Callable[[], None]]] = []
        self.is_flushing = False

    # -- producers: no lock

    def drop(self, reason: str, detail: str, number: int = 1) -> None:
        """Count an event, or some, not accepted; the worker logs the latest detail, if any, of each reason."""
        self.dropped.add(reason, number)
        if detail:
            self._drop_details[reason] = detail

    # -- the worker

    def take(self, max_count: int, max_bytes: int) -> list[Item]:
        """Move waiting events into flight, oldest first, within the limits (one event always fits)."""
        queue = self._queue
        with self.lock:
            count, size = queue.first(max_count, max_bytes)
            batch: list[Item] = []
            self.in_flight = batch
            # One step of the interpreter: a signal handler sees all of them, or none.
            batch.extend(islice(iter(queue.items.popleft, None), count))
            queue.bytes_out += size
            return batch

    def write_lines(self, batch: list[Item], place: int, count: int) -> int:
        """Replace records of the batch in flight, from a place on, by their lines; return where to go on.

        At most ``count`` items are looked at. A record that has no line is rejected: it leaves the batch.
        """
        end = min(place + count, len(batch))
        while place < end:
            item = batch[place]
            try:
                batch[place] = item if isinstance(item, bytes) else item.line()
                place += 1
            except Exception as error:
                if not self._reject(batch, place, f"not written: {type(error).__name__}"):
                    break
                end -= 1
        return place

    def _reject(self, batch: list[Item], place: int, reason: str) -> bool:
        """Reject one event of the batch in flight; False if a close has abandoned the batch meanwhile."""
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
        self,
        batch: list[Item],
        *,
        duplicates: int,
        rejected: Collection[str],
        written: int | None = None,
        spooled: int = 0,
    ) -> list[Item]:
        """Record what became of the batch in flight, or of its first ``written`` events; return the rest, in flight.

        What is neither a duplicate nor rejected (one reason per event) nor spooled was stored: the sum cannot be off.
        Ignored, with nothing left, if a close has abandoned the batch meanwhile.
        """
        refused = self.rejected + Counter(rejected)
        rest: list[Item] = [] if written is None else batch[written:]
        stored = len(batch) - len(rest) - duplicates - len(rejected) - spooled
        with self.lock:
            if self.in_flight is not batch:
                return []
            # Only plain assignments here: no signal handler can look between them.
            self.in_flight = rest
            self.stored += stored
            self.duplicates += duplicates
            self.rejected = refused
            self.spooled += spooled
            if not spooled:
                self.batches += 1
                self.last_error = None
        self._notify()
        return rest

    def failed(self, error: str) -> None:
        """Record that a write failed and will be tried again."""
        with self.lock:
            self.retries += 1
            self.last_error = error
        if self._queue.closed:
            self._notify()  # what is on disk stays there

    def put_back(self) -> None:
        """Return what is in flight to the head of the queue: the worker stops before it knows what became of it."""
        with self.lock:
            batch, self.in_flight = self.in_flight, []
            self._queue.put_back(batch)

    def abandon(self) -> int:
        """Give up all that is left, and return how many events that were."""
        queue = self._queue
        with self.lock:
            left = len(self.in_flight)
            self.in_flight = []
            while queue.items:
                queue.bytes_out += weight_of(queue.items.popleft())
                left += 1
            self.abandoned += left
        self._notify()
        return left

    # -- the spool

    def is_closed(self) -> bool:
        """Tell whether no more events are accepted."""
        return self._queue.closed

    def is_pressed(self) -> bool:
        """Tell whether the queue is half full, or closed."""
        return self._queue.closed or self._queue.is_half_full()

    def settle_spooled(self, number: int, *, duplicates: int, rejected: Collection[str]) -> None:
        """Record what became of so many spooled events, as `settle` does."""
        with self.lock:
            refused = self.rejected + Counter(rejected)
            self.spooled -= number
            self.stored += number - duplicates - len(rejected)
            self.duplicates += duplicates
            self.rejected = refused
            self.batches += 1
            self.last_error = None
        self._notify()

    def recover(self, number: int, damaged: int) -> None:
        """Record that so many events of dead processes were settled, and so many damaged lines found."""
        with self.lock:
            self.recovered += number
            self.damaged += damaged
            if number:
                self.batches += 1
                self.last_error = None

    def spill(self, keep: Callable[[list[bytes]], bool]) -> None:
        """Let ``keep`` take what is left to disk, oldest first, until it returns False: the rest is left as it was."""
        with self.lock:
            self.put_back()
            queue = self._queue
            while queue.items:
                count, size = queue.first(SPILL_EVENTS, queue.max_bytes)
                lines = []
                refused: Counter[str] = Counter()
                for item in islice(queue.items, count):
                    try:
                        lines.append(item if isinstance(item, bytes) else item.line())
                    except Exception as error:
                        refused[f"not written: {type(error).__name__}"] += 1
                if lines and not keep(lines):
                    break
                for _ in range(count):
                    queue.items.popleft()
                queue.bytes_out += size
                self.rejected = self.rejected + refused
                self.spooled += len(lines)
        self._notify()

    def report_drops(self) -> None:
        """Log what was dropped since the last line about it, one line per reason."""
        dropped = self.dropped.read()
        for reason, detail in list(self._drop_details.items()):
            count = dropped[reason] - self._drops_reported[reason]
            if count and is_due((self._problem, reason)):
                log.warning("dropped (%s): %d; last: %s", reason, count, one_line(detail))
                self._drops_reported[reason] = dropped[reason]

    # -- flushes

    def settled(self) -> int:
        """Return how many events have been settled, in order of acceptance."""
        return self.stored + self.duplicates + self.rejected.total() + self.abandoned

    def is_empty(self) -> bool:
        """Tell whether nothing waits in memory and nothing is in flight."""
        return not self._queue.items and not self.in_flight

    def is_settled(self) -> bool:
        """Tell whether nothing waits, and what is on disk, if anything, is to stay there."""
        return self.is_empty() and (not self.spooled or self._is_spooling_enough())

    def _is_spooling_enough(self) -> bool:
        """Tell whether the disk is all that can be reached: of a closed client whose sink fails."""
        return self._queue.closed and self.last_error is not None

    def _done(self) -> int:
        return self.settled() + (self.spooled if self._is_spooling_enough() else 0)

    def ticket(self) -> int:
        """Return the number that `settled` has to reach for everything accepted until now to be settled."""
        with self.lock:
            return self.settled() + self.spooled + len(self.in_flight) + len(self._queue.items)

    def when_settled(self, ticket: int, call: Callable[[], None]) -> bool:
        """Call back once the ticket is reached, from the thread that settles; True if it is reached already."""
        with self.lock:
            if self._done() >= ticket:
                return True
            self._waiters.append((ticket, call))
            self.is_flushing = True
        self._queue.wake()
        return False

    def forget(self, call: Callable[[], None]) -> None:
        """Drop a callback whose flush has run out of time."""
        with self.lock:
            self._waiters = [waiter for waiter in self._waiters if waiter[1] != call]
            self.is_flushing = bool(self._waiters)

    def _notify(self) -> None:
        with self.lock:
            settled = self._done()
            due = [call for ticket, call in self._waiters if ticket <= settled]
            self._waiters = [waiter for waiter in self._waiters if waiter[0] > settled]
            self.is_flushing = bool(self._waiters)
        for call in due:
            call()

    # -- any thread

    def oldest(self) -> Item | None:
        """Return the oldest event that is not settled."""
        with self.lock:
            if self.spooled and (line := self.oldest_spooled()) is not None:
                return line
            if self.in_flight:
                return self.in_flight[0]
            try:
                return self._queue.items[0]
            except IndexError:
                return None

    def read(self, oldest_seconds: float, overflowed: int = 0) -> Stats:
        """Return the figures of this moment."""
        with self.lock:
            queued = len(self._queue.items)
            return Stats(
                accepted=self.settled() + self.spooled + len(self.in_flight) + queued,
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
                overflowed=overflowed,
                spooled=self.spooled,
                recovered=self.recovered,
                damaged=self.damaged,
            )


def _none() -> None:
    """Return what is known of the oldest event on disk where there is no spool."""
