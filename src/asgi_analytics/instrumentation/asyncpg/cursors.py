"""One event per asyncpg cursor: the rows that the server sent, and the time of all its steps together."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import asyncpg.cursor

from asgi_analytics.instrumentation.queries.open_query import OpenQuery
from asgi_analytics.instrumentation.queries.recorder import not_captured

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable

    from asgi_analytics.instrumentation.queries.patches import Patches, Target


class Cursors:
    """The cursors that are open, and the replacements of the methods through which they are watched."""

    def __init__(self, patches: Patches) -> None:
        self._patches = patches
        # By the id of the cursor, which has no room for it; `collection` takes it out when the cursor goes away.
        self._open: dict[int, OpenQuery] = {}

    def targets(self) -> Iterable[Target]:
        """Return what is to be replaced."""
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

    def end_all(self) -> None:
        """End what is open."""
        for key in list(self._open):
            self._end(key)

    def _begin(self, cursor: Any) -> OpenQuery | None:
        recorder = self._patches.recorder
        if recorder is None or (statement := recorder.watch(getattr(cursor, "_query", None))) is None:
            return None
        query = self._open[id(cursor)] = OpenQuery(recorder, statement)
        return query

    def _end(self, key: int, error: BaseException | None = None) -> None:
        query = self._open.pop(key, None)
        if query is not None:
            query.end(error)

    async def _step(self, cursor: Any, query: OpenQuery, pending: Awaitable[Any], *, brings_rows: bool) -> Any:
        started = query.start_step()
        try:
            result = await pending
        except BaseException as error:
            query.spend(started)
            self._end(id(cursor), error)
            raise
        query.spend(started)
        try:
            if brings_rows:
                query.add_rows(len(result))
            if cursor._exhausted:
                self._end(id(cursor))
        except Exception as inner:  # another version of asyncpg
            not_captured(inner)
        return result

    # -- replacements

    def next_row(self, original: Any) -> Any:
        """Watch the first row of an iteration, before which the statement is prepared; others are not steps."""

        @functools.wraps(original)
        def wrapper(cursor: Any) -> Any:
            if getattr(cursor, "_state", True) is not None or self._patches.recorder is None:
                return original(cursor)
            return first_row(cursor, original(cursor))

        async def first_row(cursor: Any, pending: Awaitable[Any]) -> Any:
            query = self._begin(cursor)
            if query is None:
                return await pending
            try:
                return await pending
            except StopAsyncIteration:
                raise
            except BaseException as error:
                if id(cursor) in self._open:  # not ended by a step: it failed before the first one
                    query.spend(query.start_step())
                    self._end(id(cursor), error)
                raise

        return wrapper

    def opening(self, original: Any) -> Any:
        """Watch the opening of a cursor that is awaited."""

        @functools.wraps(original)
        async def wrapper(cursor: Any, *args: Any, **kwargs: Any) -> Any:
            query = self._begin(cursor)
            if query is None:
                return await original(cursor, *args, **kwargs)
            return await self._step(cursor, query, original(cursor, *args, **kwargs), brings_rows=False)

        return wrapper

    def opening_rows(self, original: Any) -> Any:
        """Watch the opening of a cursor that is iterated over, and its first rows."""

        @functools.wraps(original)
        async def wrapper(cursor: Any, *args: Any, **kwargs: Any) -> Any:
            query = self._open.get(id(cursor)) or self._begin(cursor)
            if query is None:
                return await original(cursor, *args, **kwargs)
            return await self._step(cursor, query, original(cursor, *args, **kwargs), brings_rows=True)

        return wrapper

    def rows(self, original: Any) -> Any:
        """Watch more rows."""

        @functools.wraps(original)
        async def wrapper(cursor: Any, *args: Any, **kwargs: Any) -> Any:
            query = self._open.get(id(cursor))
            if query is None:
                return await original(cursor, *args, **kwargs)
            return await self._step(cursor, query, original(cursor, *args, **kwargs), brings_rows=True)

        return wrapper

    def moving(self, original: Any) -> Any:
        """Watch rows that are skipped: they take time, and may be the last."""

        @functools.wraps(original)
        def wrapper(cursor: Any, *args: Any, **kwargs: Any) -> Any:
            pending = original(cursor, *args, **kwargs)
            query = self._open.get(id(cursor))
            return pending if query is None else self._step(cursor, query, pending, brings_rows=False)

        return wrapper

    def collection(self, original: Any) -> Any:
        """Watch a cursor that goes away before its end."""

        @functools.wraps(original)
        def wrapper(cursor: Any) -> None:
            try:
                self._end(id(cursor))
            finally:
                original(cursor)

        return wrapper
