"""The replacements of psycopg's methods: those of cursors, twice, because each has a sync and an async form."""

from __future__ import annotations

import contextlib
import functools
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import psycopg
import psycopg.types

from asgi_analytics.instrumentation.psycopg import rows
from asgi_analytics.instrumentation.psycopg.pipelines import Pipelines
from asgi_analytics.instrumentation.psycopg.server_cursors import ServerCursors
from asgi_analytics.instrumentation.psycopg.statements import watch
from asgi_analytics.instrumentation.queries.open_query import OpenQuery
from asgi_analytics.instrumentation.queries.patches import Patches, mute

try:
    import psycopg_pool
except ImportError:
    psycopg_pool = None  # type: ignore[assignment]  # connections without a pool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator
    from contextlib import AbstractContextManager

    from asgi_analytics.instrumentation.queries.patches import Target
    from asgi_analytics.instrumentation.queries.recorder import QueryRecorder
    from asgi_analytics.instrumentation.queries.statement import Statement

_END = object()


class PsycopgPatches(Patches):
    """What is replaced in psycopg."""

    def __init__(self) -> None:
        super().__init__()
        self.pipelines = Pipelines()
        self.server_cursors = ServerCursors(self)

    def targets(self) -> Iterable[Target]:
        """Return what is to be replaced."""
        types = psycopg.types.TypeInfo
        yield from [
            (psycopg.Cursor, "execute", self._execute),
            (psycopg.Cursor, "executemany", self._execute),
            (psycopg.Cursor, "stream", self._stream),
            (psycopg.Cursor, "copy", self._copy),
            (psycopg.AsyncCursor, "execute", self._execute_async),
            (psycopg.AsyncCursor, "executemany", self._execute_async),
            (psycopg.AsyncCursor, "stream", self._stream_async),
            (psycopg.AsyncCursor, "copy", self._copy_async),
            *self.server_cursors.targets(),
            *self.pipelines.targets(),
            (types, "fetch", mute),
            (types, "_fetch_async", mute),
            (psycopg.Connection, "execute", self._execute_closed),
            (psycopg.AsyncConnection, "execute", self._execute_closed_async),
            (psycopg.Connection, "tpc_recover", mute),
            (psycopg.AsyncConnection, "tpc_recover", mute),
        ]
        if psycopg_pool is not None:  # runs reset and check callbacks
            for pool in (psycopg_pool.ConnectionPool, psycopg_pool.AsyncConnectionPool):
                names = ("_reset_connection", "_check_connection")
                yield from [(pool, name, mute) for name in names if name in vars(pool)]

    def remove(self) -> None:
        """Put the originals back, and end what is open."""
        super().remove()
        self.server_cursors.end_all()
        self.pipelines.end_all()

    def _watch(self, cursor: Any, query: Any) -> AbstractContextManager[None]:
        """Return the block in which a cursor runs a query."""
        recorder = self.recorder
        statement = watch(recorder, query, cursor)
        if recorder is None or statement is None:
            return contextlib.nullcontext()
        pipeline = getattr(getattr(cursor, "_conn", None), "_pipeline", None)
        if pipeline is not None:
            return self.pipelines.sending(OpenQuery(recorder, statement), cursor, pipeline)
        return _RunningQuery(recorder, statement, cursor)

    def _open(self, cursor: Any, query: Any) -> OpenQuery | None:
        recorder = self.recorder
        statement = watch(recorder, query, cursor)
        if recorder is None or statement is None:
            return None
        return OpenQuery(recorder, statement)

    def _execute(self, original: Any) -> Any:
        """Replace execute and executemany."""

        @functools.wraps(original)
        def wrapper(cursor: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
            with self._watch(cursor, query):
                return original(cursor, query, *args, **kwargs)

        return wrapper

    def _execute_async(self, original: Any) -> Any:
        @functools.wraps(original)
        async def wrapper(cursor: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
            with self._watch(cursor, query):
                return await original(cursor, query, *args, **kwargs)

        return wrapper

    def _execute_closed(self, original: Any) -> Any:
        """Replace execute of a connection: one that is closed makes no cursor, and the query has failed."""

        @functools.wraps(original)
        def wrapper(connection: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
            with self._watch(connection, query) if connection.closed else contextlib.nullcontext():
                return original(connection, query, *args, **kwargs)

        return wrapper

    def _execute_closed_async(self, original: Any) -> Any:
        @functools.wraps(original)
        async def wrapper(connection: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
            with self._watch(connection, query) if connection.closed else contextlib.nullcontext():
                return await original(connection, query, *args, **kwargs)

        return wrapper

    def _copy(self, original: Any) -> Any:
        """Replace copy: what happens in its block, the application's reading and writing, is the query."""

        @functools.wraps(original)
        @contextlib.contextmanager
        def wrapper(cursor: Any, statement: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
            with self._watch(cursor, statement), original(cursor, statement, *args, **kwargs) as copy:
                yield copy

        return wrapper

    def _copy_async(self, original: Any) -> Any:
        @functools.wraps(original)
        @contextlib.asynccontextmanager
        async def wrapper(cursor: Any, statement: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            with self._watch(cursor, statement):
                async with original(cursor, statement, *args, **kwargs) as copy:
                    yield copy

        return wrapper

    def _stream(self, original: Any) -> Any:
        """Replace stream: each row is a step, and what the application does in between is not part of the query."""

        @functools.wraps(original)
        def wrapper(cursor: Any, query: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
            stream = original(cursor, query, *args, **kwargs)
            opened = self._open(cursor, query)
            if opened is None:
                yield from stream
                return
            with contextlib.closing(stream):
                try:
                    while True:
                        with opened.step():
                            row = next(stream, _END)
                        if row is _END:
                            break
                        opened.add_rows(1)
                        yield row
                finally:
                    opened.end()

        return wrapper

    def _stream_async(self, original: Any) -> Any:
        @functools.wraps(original)
        async def wrapper(cursor: Any, query: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            stream = original(cursor, query, *args, **kwargs)
            opened = self._open(cursor, query)
            async with contextlib.aclosing(stream):
                try:
                    while True:
                        with opened.step() if opened is not None else contextlib.nullcontext():
                            row = await anext(stream, _END)
                        if row is _END:
                            break
                        if opened is not None:
                            opened.add_rows(1)
                        yield row
                finally:
                    if opened is not None:
                        opened.end()

        return wrapper


class _RunningQuery:
    """A query that is at its end when the block is."""

    def __init__(self, recorder: QueryRecorder, statement: Statement, cursor: Any) -> None:
        self._recorder = recorder
        self._statement = statement
        self._cursor = cursor

    def __enter__(self) -> None:
        self._started = perf_counter_ns()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None:
            self._recorder.succeeded(self._statement, self._started, rows.of_cursor, self._cursor)
        else:
            self._recorder.failed(self._statement, self._started, error)
