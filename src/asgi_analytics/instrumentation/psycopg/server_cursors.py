"""One event per server-side cursor: the rows that the server sent, and the time of all its steps together."""

from __future__ import annotations

import functools
import weakref
from typing import TYPE_CHECKING, Any

import psycopg

from asgi_analytics.instrumentation.psycopg.statements import watch
from asgi_analytics.instrumentation.queries.open_query import OpenQuery
from asgi_analytics.instrumentation.queries.patches import owner_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from asgi_analytics.instrumentation.queries.patches import Patches, Target


class ServerCursors:
    """The server-side cursors that are open, and the replacements of the methods through which they are watched."""

    def __init__(self, patches: Patches) -> None:
        self._patches = patches
        self._open: weakref.WeakKeyDictionary[Any, OpenQuery] = weakref.WeakKeyDictionary()

    def targets(self) -> Iterable[Target]:
        """Return what is to be replaced."""
        steps = [("_fetch_gen", self.rows), ("_scroll_gen", self.moving), ("_close_gen", self.closing)]
        return [
            (psycopg.ServerCursor, "execute", self.opening),
            (psycopg.AsyncServerCursor, "execute", self.opening_async),
            *((owner_of(psycopg.ServerCursor, name), name, make) for name, make in steps),
        ]

    def end_all(self) -> None:
        """End what is open: its last steps will not be seen."""
        for query in list(self._open.values()):
            query.end()

    def _begin(self, cursor: Any, query: Any) -> OpenQuery | None:
        self._end(cursor)  # what the cursor was used for before
        recorder = self._patches.recorder
        statement = watch(recorder, query, cursor)
        if recorder is None or statement is None:
            return None
        return OpenQuery(recorder, statement)

    def _keep(self, cursor: Any, query: OpenQuery) -> None:
        self._open[cursor] = query
        weakref.finalize(cursor, query.end).atexit = False  # a cursor that goes away before its end

    def _end(self, cursor: Any) -> None:
        query = self._open.pop(cursor, None)
        if query is not None:
            query.end()

    def opening(self, original: Any) -> Any:
        """Watch the declaration of a cursor."""

        @functools.wraps(original)
        def wrapper(cursor: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
            opened = self._begin(cursor, query)
            if opened is None:
                return original(cursor, query, *args, **kwargs)
            with opened.step():
                result = original(cursor, query, *args, **kwargs)
            self._keep(cursor, opened)
            return result

        return wrapper

    def opening_async(self, original: Any) -> Any:
        """Watch the declaration of a cursor that is awaited."""

        @functools.wraps(original)
        async def wrapper(cursor: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
            opened = self._begin(cursor, query)
            if opened is None:
                return await original(cursor, query, *args, **kwargs)
            with opened.step():
                result = await original(cursor, query, *args, **kwargs)
            self._keep(cursor, opened)
            return result

        return wrapper

    def rows(self, original: Any) -> Any:
        """Watch rows that are fetched: as many as were asked for, or the last; None asks for all."""

        @functools.wraps(original)
        def wrapper(cursor: Any, num: int | None) -> Generator[Any, Any, Any]:
            query = self._open.get(cursor)
            if query is None:
                return (yield from original(cursor, num))
            with query.step():
                fetched = yield from original(cursor, num)
            query.add_rows(len(fetched))
            if num is None or len(fetched) < num:
                self._end(cursor)
            return fetched

        return wrapper

    def moving(self, original: Any) -> Any:
        """Watch rows that are skipped: they take time."""

        @functools.wraps(original)
        def wrapper(cursor: Any, *args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            query = self._open.get(cursor)
            if query is None:
                return (yield from original(cursor, *args, **kwargs))
            with query.step():
                return (yield from original(cursor, *args, **kwargs))

        return wrapper

    def closing(self, original: Any) -> Any:
        """Watch the end of a cursor."""

        @functools.wraps(original)
        def wrapper(cursor: Any) -> Generator[Any, Any, Any]:
            self._end(cursor)
            return (yield from original(cursor))

        return wrapper
