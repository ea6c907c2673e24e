"""A query that takes several steps, a cursor for instance: one event, at its end."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import Context, copy_context
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from asgi_analytics.instrumentation.queries.recorder import QueryRecorder, not_captured

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asgi_analytics.instrumentation.queries.statement import Statement


class OpenQuery:
    """A query that is not at its end: its rows so far, and the time of its steps."""

    def __init__(self, recorder: QueryRecorder, statement: Statement) -> None:
        self._recorder = recorder
        self._statement = statement
        # The event belongs to the request that began the query, wherever the garbage collector ends it.
        self._context: Context = copy_context()
        self._started = perf_counter_ns()
        self._duration = 0
        self._rows: int | None = 0
        self._is_open = True
        self._note(recorder.begin, statement)

    def start_step(self) -> int:
        """Return when the step that is about to run started, for `spend`: the first one did so with the query."""
        started, self._started = self._started or perf_counter_ns(), 0
        return started

    def spend(self, started: int) -> None:
        """Add the time of a step; ``started`` is what `start_step` returned."""
        duration = (perf_counter_ns() - started) // 1000
        self._duration += duration
        self._note(self._recorder.spend, duration)

    @contextmanager
    def step(self) -> Iterator[None]:
        """Watch one step: add its time, and end the query if the step raises."""
        started = self.start_step()
        try:
            yield
        except BaseException as error:
            self.spend(started)
            self.end(error)
            raise
        self.spend(started)

    def add_rows(self, number: int | None) -> None:
        """Add the rows of a step; None: from now on they are not known."""
        self._rows = None if number is None or self._rows is None else self._rows + number

    def end(self, error: BaseException | None = None) -> None:
        """Record the query, the first time this is called."""
        if self._is_open:
            self._is_open = False
            self._note(self._recorder.end, self._statement, self._duration, self._rows, error)

    def _note(self, note: Callable[..., None], *args: Any) -> None:
        try:
            self._context.run(note, *args)
        except Exception as error:  # another thread is in the context right now
            not_captured(error)
