"""Metrics between their calls and their rows: one row per series and interval, however many calls there were.

A call only appends to a deque: one step of the interpreter, no lock. Each time some hundreds wait, the caller at hand
takes them and folds them into sums of their own, which it adds to what waits to be sent. Nothing that two threads could
change at once is ever changed: sums are made, appended, taken and added up to new ones. So a call never waits, from
whatever thread, task or signal handler, and what an exception interrupts is put back.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from itertools import count, islice
from typing import TYPE_CHECKING, Any, Literal

from asgi_analytics.encoding.ids import next_number
from asgi_analytics.encoding.metric_record import (
    LARGEST,
    MetricRecord,
    Series,
    Sums,
    weight_of_series,
)
from asgi_analytics.encoding.metric_values import clean_series, sums_of
from asgi_analytics.errors import EventNotAccepted
from asgi_analytics.log import log, one_line
from asgi_analytics.pipeline.stats import LockFreeCounter

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from asgi_analytics.encoding.records import Source
    from asgi_analytics.pipeline.ledger import Ledger
    from asgi_analytics.pipeline.queue import EventQueue

MetricType = Literal["counter", "gauge", "histogram", "timer"]

FOLD_AT = 256
"""So many calls wait before one of the callers folds them: 0.2 ms at once."""
ADD_UP_AT = 64
"""So many sums of the same kind of thing wait before they are added up to one."""
AT_ONCE = 250
"""So many series are sent before others get a turn: less than 2 ms."""

_Call = tuple[str, Any, Any, Any, dict[str, Any], int]
"""Type, name, value, unit, tags, and for a gauge its place in the order of calls."""
_Partial = dict[Series, Sums]


class SeriesTable:
    """What is recorded of one client's metrics and not yet sent, by series.

    There are at most ``max_series`` of them in the life of a process. Calls that would make another one are counted in
    a series of the same name and type with the tag ``overflow: true``.
    """

    def __init__(
        self,
        queue: EventQueue,
        ledger: Ledger,
        source: Source,
        now: Callable[[], int],
        *,
        max_series: int,
        strict: bool = False,
        enabled: bool = True,
    ) -> None:
        self._queue = queue
        self._ledger = ledger
        self._source = source
        self._now = now
        self._max_series = max_series
        self._strict = strict
        self._enabled = enabled
        self.calls: deque[_Call] = deque()
        self.next_order = count(1).__next__
        self.start_worker: Callable[[], object] = bool
        """Called when something was recorded, and the worker may have to be started."""
        self.reset()

    def reset(self) -> None:
        """Start from nothing: at construction, and in the child of a fork, whose parent sends what was here."""
        self.calls.clear()
        # A new one, and not cleared: what the fork has interrupted goes on here and ends in the old one.
        self._partials: deque[_Partial] = deque()
        self._known: dict[tuple[Any, ...], Series] = {}
        self._series: dict[tuple[Any, ...], Series] = {}
        self._overflow: dict[tuple[Any, ...], Series] = {}
        self._take_slot = count().__next__
        self._take_overflow_slot = count().__next__
        self._overflowed = LockFreeCounter(["overflow"])
        self._notices: deque[str] = deque(maxlen=self._max_series)
        self._ended = False
        # Zero lets the first call fold, which starts the worker; strict mode looks at each call at once.
        self.fold_at = 0

    # -- callers: no lock

    def fold(self) -> None:
        """Fold what waits. Raises `EventNotAccepted` in strict mode, for a call that is refused."""
        if not self._enabled:
            self.calls.clear()
            return
        refused: str | None = None
        while self.calls:
            refused = self._fold_some() or refused
        if self._ended:
            self._drop_rest("closed", "the client is closed")
        else:
            self.fold_at = 0 if self._strict else FOLD_AT
            self.start_worker()
        if len(self._partials) > ADD_UP_AT:
            self._add_up()
        if refused is not None and self._strict:
            raise EventNotAccepted("invalid", refused)

    def look(self) -> None:
        """Fold what waits now, so that it is counted; raises nothing."""
        if self.calls:
            with contextlib.suppress(EventNotAccepted):  # which is for the one who called
                self.fold()

    def _fold_some(self) -> str | None:
        """Fold some hundreds of calls; return why one of them was refused, if one was."""
        calls, partials = self.calls, self._partials
        chunk: list[_Call] = []
        made: list[_Partial] | None = None
        refusals: list[tuple[str, str]] = []
        try:
            _take(chunk, calls, FOLD_AT)
            made = [self._folded(chunk, refusals)]
            _give(made, partials)
        except BaseException:  # of a signal handler that has interrupted this
            if made is None or made:
                calls.extendleft(reversed(chunk))
            raise
        for reason, detail in refusals:
            self._ledger.drop(reason, detail)
        return refusals[-1][1] if refusals else None

    def _folded(self, chunk: list[_Call], refusals: list[tuple[str, str]]) -> _Partial:
        known = self._known
        groups: dict[Series, list[Any]] = {}
        orders: dict[Series, int] = {}
        for kind, name, value, unit, tags, order in chunk:
            try:
                # The types too: to Python 1, 1.0 and True are one key.
                series = known[(kind, name, unit, *tags.items(), *map(type, tags.values()))]
            except (KeyError, TypeError):
                found = self._find(kind, name, unit, tags, refusals)
                if found is None:
                    continue
                series = found
            values = groups.get(series)
            if values is None:
                groups[series] = [value]
            else:
                values.append(value)
            if order:
                orders[series] = order
        partial = {}
        for series, values in groups.items():
            sums = sums_of(values, series, refusals)
            if sums is not None:
                sums.order = orders.get(series, 0)
                partial[series] = sums
        return partial

    def _find(
        self, kind: str, name: Any, unit: Any, tags: dict[str, Any], refusals: list[tuple[str, str]]
    ) -> Series | None:
        """Return the series of a call that was not met before, or the one for all that is beyond the bound."""
        try:
            name, unit, cleaned = clean_series(name, unit, tags)
        except ValueError as error:
            refusals.append(("invalid", str(error)))
            return None
        key = (kind, name, unit, tuple((tag, type(value), value) for tag, value in cleaned.items()))
        series = self._series.get(key)
        if series is None:
            if self._is_full() or self._take_slot() >= self._max_series:
                return self._find_overflow(kind, name, unit, refusals)
            series = self._series.setdefault(key, Series(kind, name, unit, cleaned))
        # Tags may come in any order, and text may have to be cleaned: each form is remembered, within a bound.
        if len(self._known) < 2 * self._max_series:
            with contextlib.suppress(TypeError):
                self._known[(kind, name, unit, *tags.items(), *map(type, tags.values()))] = series
        return series

    def _is_full(self) -> bool:
        return len(self._series) >= self._max_series

    def _find_overflow(self, kind: str, name: str, unit: str | None, refusals: list[tuple[str, str]]) -> Series | None:
        key = (kind, name, unit)
        series = self._overflow.get(key)
        if series is None:
            if self._take_overflow_slot() >= self._max_series:
                refusals.append(("invalid", f"{name}: {self._max_series} metrics have more series than fit already"))
                return None
            series = self._overflow.setdefault(key, Series(kind, name, unit, {"overflow": True}))
            self._notices.append(name)
        self._overflowed.add("overflow")
        return series

    def add(self, kind: MetricType, name: str, unit: str | None, tags: dict[str, Any], sums: Sums) -> None:
        """Record what was added up elsewhere. What cannot be stored is dropped, each call of it counted."""
        refusals: list[tuple[str, str]] = []
        if not self._enabled:
            return
        if self._ended:
            self._ledger.drop("closed", "the client is closed", sums.count)
            return
        series = self._find(kind, name, unit, tags, refusals)
        if series is None or not all(-LARGEST <= value <= LARGEST for value in (sums.least, sums.most, sums.last)):
            [(reason, detail)] = refusals or [("invalid", "a value is no number from -1e300 to 1e300")]
            self._ledger.drop(reason, detail, sums.count)
            return
        sums.order = self.next_order()
        self._partials.append({series: sums})
        self.start_worker()
        if len(self._partials) > ADD_UP_AT:
            self._add_up()

    def _add_up(self) -> None:
        partials = self._partials
        taken: list[_Partial] = []
        made: list[_Partial] | None = None
        try:
            _take(taken, partials, ADD_UP_AT)
            merged: _Partial = {}
            for partial in taken:
                for series, sums in partial.items():
                    other = merged.get(series)
                    merged[series] = sums if other is None else other + sums
            made = [merged]
            _give(made, partials)
        except BaseException:  # as in _fold_some()
            if made is None or made:
                partials.extendleft(reversed(taken))
            raise

    # -- sending

    def overflowed(self) -> int:
        """Return how many calls went to a series with the tag ``overflow``."""
        return self._overflowed.read()["overflow"]

    def send(self) -> Generator[None, None, bool]:
        """Put a row for each series into the queue, some hundreds at each step; return False if it has no room for all.

        The rows that found no room wait, and become one with what is recorded meanwhile.
        """
        self.look()
        partials = self._partials
        merged: _Partial = {}
        try:
            yield from self._taken(merged, partials)
            now = self._now() if merged else 0
            for place, series in enumerate(list(merged), 1):
                weight = weight_of_series(series, sums := merged.pop(series))
                if not self._queue.put(self._record(series, sums, now, weight), weight):
                    if self._queue.items or self._queue.closed:
                        merged[series] = sums
                        return False
                    self._ledger.drop("queue_full", "the queue has no room for a single metric", sums.count)
                if place % AT_ONCE == 0:
                    yield
        finally:
            if merged:
                partials.append(merged)
        return True

    def send_now(self) -> bool:
        """Do what `send` does, in the calling thread, and let others run between its steps."""
        sending = self.send()
        while True:
            try:
                next(sending)
            except StopIteration as end:
                return bool(end.value)
            time.sleep(0)

    def end(self) -> None:
        """Send what there is, for the last time; what finds no room, and what comes later, is dropped and counted."""
        self._ended, self.fold_at = True, 0
        while self.calls:
            self._fold_some()
        self.send_now()
        self._drop_rest("queue_full", "the queue was full when the client was closed")

    def report(self) -> None:
        """Log the names that have more series than fit; called by the worker."""
        while self._notices:
            log.warning(
                "the metric %s has more series than fit, and goes on with the tag overflow; metrics_series: %d",
                one_line(self._notices.popleft()),
                self._max_series,
            )

    def _taken(self, merged: _Partial, partials: deque[_Partial]) -> Generator[None, None, None]:
        """Take all that waits and add it up; what is added up already stays in ``merged``."""
        steps = 0
        for _ in range(len(partials)):
            try:
                partial = partials.popleft()
            except IndexError:  # another thread was faster
                return
            try:
                for series in list(partial):
                    sums, other = partial.pop(series), merged.get(series)
                    merged[series] = sums if other is None else other + sums
                    steps += 1
                    if steps % AT_ONCE == 0:
                        yield
            finally:
                if partial:
                    partials.append(partial)

    def _drop_rest(self, reason: str, detail: str) -> None:
        while self._partials:
            with contextlib.suppress(IndexError):
                for sums in self._partials.popleft().values():
                    self._ledger.drop(reason, detail, sums.count)

    def _record(self, series: Series, sums: Sums, now: int, weight: int) -> MetricRecord:
        return MetricRecord(self._source, weight, now, next_number(), None, None, None, None, series, sums)


def _take(taken: list[Any], waiting: deque[Any], count: int) -> None:
    """Move so many items in one step of the interpreter: whatever comes between, each is in one of both."""
    with contextlib.suppress(IndexError):  # there are no more
        taken.extend(islice(iter(waiting.popleft, None), count))


def _give(made: list[Any], waiting: deque[Any]) -> None:
    """Move the one item of a list, in one step as well: the list is empty once it is done."""
    waiting.extend(islice(iter(made.pop, None), 1))
