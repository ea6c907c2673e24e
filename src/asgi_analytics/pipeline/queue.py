"""The bounded queue of events that wait between the client and the worker.

Producers (any thread, a signal handler, the garbage collector) only append to a deque: one step of the interpreter, no
lock. The worker's side is `ledger.Ledger`, which takes events out under a lock that producers never take.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

from asgi_analytics.encoding.caller import CallerLine
from asgi_analytics.encoding.records import Record

if TYPE_CHECKING:
    from collections.abc import Callable

CAPTURED_SHARE = 0.8
"""Captured events are refused from this share of the bounds, so that explicit ones get through."""

WAKE_BYTES = 512 * 1024
"""So many waiting bytes wake the worker, however few events they are."""

Item = bytes | Record | CallerLine
"""What waits: the JSON line of an event, the record of a captured one, or a line that needs to be told who called."""

_NEVER = 1 << 62


class EventQueue:
    """Events that wait, oldest first, within a bound of their number and one of their bytes."""

    def __init__(self, *, size: int, max_bytes: int, wake_at: int) -> None:
        self.size = size
        self.max_bytes = max_bytes
        self.captured_size = max(1, int(size * CAPTURED_SHARE))
        self.captured_bytes = int(max_bytes * CAPTURED_SHARE)
        self.wake_at = wake_at
        self.reset()

    def reset(self) -> None:
        """Start from nothing: at construction, and in the child of a fork, whose parent delivers what was here."""
        self.items: deque[Item] = deque()
        self.bytes_in = 0
        self.bytes_out = 0
        self.closed = False
        self.ended = False
        # Called by a producer that finds enough events or bytes waiting.
        self.waker: Callable[[], object] | None = None
        self.busy()

    # -- producers: no lock

    def put(self, item: Item, weight: int, captured: bool = False) -> bool:
        """Append an event unless that would pass a bound; False if the queue is full or closed.

        ``weight`` is what it counts for in bytes; ``captured`` events have narrower bounds.
        """
        # The usual case, and all of it: nobody to wake, and no bound near.
        items = self.items
        if len(items) < self._free_length and self.bytes_in - self.bytes_out + weight < self._free_bytes:
            self.bytes_in += weight
            items.append(item)
            return True
        return self._put_near_bound(item, weight, captured)

    def _put_near_bound(self, item: Item, weight: int, captured: bool) -> bool:
        length, waiting = len(self.items), self.waiting_bytes() + weight
        size, max_bytes = (self.captured_size, self.captured_bytes) if captured else (self.size, self.max_bytes)
        if length >= size or waiting > max_bytes or self.closed:
            return False
        self.bytes_in += weight
        self.items.append(item)
        if length >= self._wake_length or waiting >= self._wake_bytes:
            self.wake()
        return True

    def close(self) -> None:
        """Accept no more events."""
        self.closed = True
        self._set_free_bounds()

    def end(self, abandon: Callable[[], object]) -> None:
        """Call ``abandon`` for each event that still slips in: its producer looked before the queue was closed."""
        self.ended = True
        self.waker = abandon
        self.busy()

    def wake(self) -> None:
        """Wake the worker, once until it sleeps again."""
        self.busy()
        if (waker := self.waker) is not None:
            waker()

    # -- the worker

    def waiting_bytes(self) -> int:
        """Return how many bytes wait."""
        return self.bytes_in - self.bytes_out

    def idle(self, waker: Callable[[], object], wake_at: int | None = None) -> None:
        """Call ``waker`` when so many events wait (``batch_size``), or `WAKE_BYTES`: the worker is going to sleep."""
        if not self.ended:
            self.waker = waker
            self._wake_length, self._wake_bytes = (wake_at or self.wake_at) - 1, WAKE_BYTES
            self._set_free_bounds()

    def idle_until_half(self, waker: Callable[[], object]) -> None:
        """Call ``waker`` when the queue is half full: the worker waits for a sink that fails."""
        if not self.ended:
            self.waker = waker
            self._wake_length, self._wake_bytes = self.size // 2 - 1, self.max_bytes // 2
            self._set_free_bounds()

    def is_half_full(self) -> bool:
        """Tell whether half of the number or of the bytes that the queue takes waits."""
        return 2 * len(self.items) >= self.size or 2 * self.waiting_bytes() >= self.max_bytes

    def busy(self) -> None:
        """Wake nobody: the worker is awake, and looks at the queue by itself."""
        self._wake_length = self._wake_bytes = -1 if self.ended else _NEVER
        self._set_free_bounds()

    def _set_free_bounds(self) -> None:
        """Set the length and the bytes below which `put` need not look any closer."""
        self._free_length = -1 if self.closed else min(self._wake_length, self.captured_size)
        self._free_bytes = min(self._wake_bytes, self.captured_bytes)

    def is_worth_a_write(self, wake_at: int | None = None) -> bool:
        """Tell whether as much waits as would wake the worker."""
        return len(self.items) >= (wake_at or self.wake_at) or self.waiting_bytes() >= WAKE_BYTES

    def half(self) -> int:
        """Return half of the number of captured events that the queue takes, but no less than wakes the worker."""
        return max(self.wake_at, self.captured_size // 2)

    def first(self, max_count: int, max_bytes: int) -> tuple[int, int]:
        """Return how many of the oldest events fit into the limits (one always does), and their bytes."""
        try:
            first = list(islice(self.items, max_count))
        except RuntimeError:  # a producer has appended meanwhile: by their places, then
            first = [self.items[place] for place in range(min(max_count, len(self.items)))]
        count = size = 0
        for item in first:
            weight = weight_of(item)
            if size + weight > max_bytes and count > 0:
                break
            size += weight
            count += 1
        return count, size

    def put_back(self, batch: list[Item]) -> None:
        """Return a batch to the head of the queue."""
        self.items.extendleft(reversed(batch))
        self.bytes_out -= sum(map(weight_of, batch))


def weight_of(item: Item) -> int:
    """Return what an item counts for, in bytes."""
    return len(item) if type(item) is bytes else item.weight  # type: ignore[union-attr]  # a record
