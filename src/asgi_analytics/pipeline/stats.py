"""The figures of what became of the events, and a counter that needs no lock."""

from __future__ import annotations

import sys
import threading
from collections import Counter, deque
from itertools import islice, repeat
from operator import length_hint
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

DROP_REASONS = ("queue_full", "oversize", "invalid", "before_track", "closed")


class Stats(msgspec.Struct, frozen=True):
    """What became of the events, read in one moment; fields can be read as attributes or as items.

    ``accepted = stored + duplicates + rejected + abandoned + spooled + queued + in_flight`` holds at any moment.
    """

    accepted: int
    """Events for which ``track()`` returned True."""
    dropped: Counter[str]
    """Events for which it returned False, and calls of metrics that are not stored, by reason: queue_full, oversize,
    invalid, before_track, closed."""
    stored: int
    """Events that the sink wrote."""
    duplicates: int
    """Events that were there already: written by an attempt whose answer was lost."""
    rejected: Counter[str]
    """Events that the sink refused for their content, by reason; kept as dead letters where the sink has them."""
    abandoned: int
    """Events that were left when the time of a close ended."""
    queued: int
    """Events that wait."""
    in_flight: int
    """Events of the batch that is being written."""
    retries: int
    """Writes that were tried again."""
    batches: int
    """Writes that were answered."""
    last_error: str | None
    """What the sink said last when it failed; None after a write that went well."""
    oldest_seconds: float
    """Age of the oldest event that is not settled yet, in seconds; 0.0 when there is none."""
    overflowed: int = 0
    """Calls of metrics that were stored with the tag ``overflow: true``: there were more series than fit."""
    spooled: int = 0
    """Events that are on disk, in the spool, and not settled yet."""
    recovered: int = 0
    """Events of dead processes that were settled from the spools that they left; no part of the balance."""
    damaged: int = 0
    """Lines of such spools that could not be read; own ones count as rejected."""

    def __getitem__(self, name: str) -> Any:
        """Return a field by its name."""
        if name not in self.__struct_fields__:
            raise KeyError(name)
        return getattr(self, name)

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as plain dicts and numbers, ready for JSON."""
        return {name: dict(v) if isinstance(v := self[name], Counter) else v for name in self.__struct_fields__}


class LockFreeCounter:
    """Counts by reason, exactly, from any thread and from a signal handler that interrupts one, without a lock.

    One step of an iterator cannot be interrupted, where ``+= 1`` can; how many steps are left tells how many were made.
    Without the interpreter's global lock two threads may make one step at once, so there each step has a lock, which a
    signal handler may take again.
    """

    def __init__(self, reasons: Iterable[str]) -> None:
        self._left = {reason: repeat(None, sys.maxsize) for reason in reasons}
        has_global_lock: bool = getattr(sys, "_is_gil_enabled", lambda: True)()
        self._lock = None if has_global_lock else threading.RLock()

    def add(self, reason: str, number: int = 1) -> None:
        """Count one more, or some."""
        if self._lock is None:
            deque(islice(self._left[reason], number), maxlen=0)
        else:
            with self._lock:
                deque(islice(self._left[reason], number), maxlen=0)

    def read(self) -> Counter[str]:
        """Return the counts; every reason is there, at zero if need be."""
        return Counter({reason: sys.maxsize - length_hint(left) for reason, left in self._left.items()})
