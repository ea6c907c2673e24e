"""One event a cursor of asyncpg: with the rows that the server sent, and the time of all its steps together."""

from __future__ import annotations

import functools
from contextvars import Context, copy_context
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import asyncpg.cursor

from asgi_analytics.instrumentation.queries.recorder import QueryRecorder, not_captured

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from asgi_analytics.instrumentation.queries.statement import Statement


class _OpenCursor:
    """What is known of a cursor that is not at its end; asyncpg's own objects have no room for it."""

    __slots__ = ("context", "duration", "recorder", "rows", "started", "statement")

    def __init__(self, recorder: QueryRecorder, statement: Statement) -> None:
        self.recorder = recorder
        self.statement = statement
        # The event belongs to the request that opened the cursor, wherever the garbage collector ends it.
        self.context: Context = copy_context()
        self.started = perf_counter_ns()
        self.duration = 0
        self.rows = 0
        self.context.run(recorder.begin, statement)

    def spend(self, started: int) -> None:
        duration = (perf_counter_ns() - started) // 1000
        self.duration += duration
        self.context.run(self.recorder.spend, duration)

    def end(self, error: BaseException | None) -> None:
        self.context.run(self.recorder.end, self.statement, self.duration, self.rows, error)


class CursorTap:
    """The cursors that are open, by their identity, and the methods through which they are watched."""

    def __init__(self) -> None:
        self.recorder: QueryRecorder | None = None
        self._open: dict[int, _OpenCursor] = {}

    def targets(self) -> Iterable[tuple[Any, str, Callable[..., Any]]]:
        """Return the owner, the name, and what makes the replacement."""
        base, iterator = asyncpg.cursor.BaseCursor, asyncpg.cursor.CursorIterator
        cursor = asyncpg.cursor.Cursor
        return [
            (iterator, "__anext__", self.next_row),
            (cursor, "_init", self.opening),
            (base, "_bind_exec", self.opening_rows),
            (base, "_exec", self.rows),
            (cursor, "forward", self.moving),
            (base, "__del__", self.collection),
        ]

    def finish(self) -> None:
        """End what is open: their last steps will not be seen."""
        for key in list(self._open):
            self._end(key, None)

    def _begin(self, cursor: Any) -> _OpenCursor | None:
        if self.recorder is None or (statement := self.recorder.watch(getattr(cursor, "_query", None))) is None:
            return None
        entry = self._open[id(cursor)] = _OpenCursor(self.recorder, statement)
        return entry

    def _end(self, key: int, error: BaseException | None) -> None:
        entry = self._open.pop(key, None)
        if entry is not None:
            try:
                entry.end(error)
            except Exception as inner:
                not_captured(inner)

    async def _step(self, cursor: Any, entry: _OpenCursor, pending: Awaitable[Any], *, brings_rows: bool) -> Any:
        started, entry.started = entry.started or perf_counter_ns(), 0
        try:
            result = await pending
        except BaseException as error:
            entry.spend(started)
            self._end(id(cursor), error)
            raise
        entry.spend(started)
        try:
            if brings_rows:
                entry.rows += len(result)
            if cursor._exhausted:
                self._end(id(cursor), None)
        except Exception as inner:  # another asyncpg
            not_captured(inner)
        return result

    # -- replacements

    def next_row(self, original: Any) -> Any:
        """Watch the first row of an iteration, where the statement is prepared; the others are nobody's business."""

        @functools.wraps(original)
        def wrapper(cursor: Any) -> Any:
            if getattr(cursor, "_state", True) is not None or self.recorder is None:
                return original(cursor)
            return first_row(cursor, original(cursor))

        async def first_row(cursor: Any, pending: Awaitable[Any]) -> Any:
            if self._begin(cursor) is None:
                return await pending
            try:
                return await pending
            except StopAsyncIteration:
                raise
            except BaseException as error:
                entry = self._open.get(id(cursor))
                if entry is not None:  # not ended by a step: it failed before the first one
                    entry.spend(entry.started)
                    self._end(id(cursor), error)
                raise

        return wrapper

    def opening(self, original: Any) -> Any:
        """Watch the opening of a cursor that is awaited."""

        @functools.wraps(original)
        async def wrapper(cursor: Any, *args: Any, **kwargs: Any) -> Any:
            entry = self._begin(cursor)
            if entry is None:
                return await original(cursor, *args, **kwargs)
            return await self._step(cursor, entry, original(cursor, *args, **kwargs), brings_rows=False)

        return wrapper

    def opening_rows(self, original: Any) -> Any:
        """Watch the opening of a cursor that is iterated over, and its first rows."""

        @functools.wraps(original)
        async def wrapper(cursor: Any, *args: Any, **kwargs: Any) -> Any:
            entry = self._open.get(id(cursor)) or self._begin(cursor)
            if entry is None:
                return await original(cursor, *args, **kwargs)
            return await self._step(cursor, entry, original(cursor, *args, **kwargs), brings_rows=True)

        return wrapper

    def rows(self, original: Any) -> Any:
        """Watch more rows."""

        @functools.wraps(original)
        async def wrapper(cursor: Any, *args: Any, **kwargs: Any) -> Any:
            entry = self._open.get(id(cursor))
            if entry is None:
                return await original(cursor, *args, **kwargs)
            return await self._step(cursor, entry, original(cursor, *args, **kwargs), brings_rows=True)

        return wrapper

    def moving(self, original: Any) -> Any:
        """Watch rows that are skipped: they take time, and may be the last."""

        @functools.wraps(original)
        def wrapper(cursor: Any, *args: Any, **kwargs: Any) -> Any:
            pending = original(cursor, *args, **kwargs)
            entry = self._open.get(id(cursor))
            return pending if entry is None else self._step(cursor, entry, pending, brings_rows=False)

        return wrapper

    def collection(self, original: Any) -> Any:
        """Watch a cursor that goes away before its end."""

        @functools.wraps(original)
        def wrapper(cursor: Any) -> None:
            try:
                self._end(id(cursor), None)
            finally:
                original(cursor)

        return wrapper
