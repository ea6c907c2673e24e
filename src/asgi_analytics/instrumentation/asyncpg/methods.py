"""The replacements of asyncpg's methods: of connections, pools, prepared statements, and what they do beneath."""

from __future__ import annotations

import functools
from contextvars import ContextVar
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import asyncpg.connection
import asyncpg.pool
import asyncpg.prepared_stmt
import asyncpg.utils

from asgi_analytics.instrumentation.asyncpg import rows
from asgi_analytics.instrumentation.asyncpg.cursors import Cursors
from asgi_analytics.instrumentation.queries.patches import Patches, mute, set_within

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from asgi_analytics.instrumentation.queries.patches import Target
    from asgi_analytics.instrumentation.queries.recorder import QueryRecorder, RowsOf
    from asgi_analytics.instrumentation.queries.statement import Statement

_copying: ContextVar[int | None] = ContextVar("asgi_analytics_asyncpg_copying", default=None)
"""The id of the connection that copies: asyncpg 0.31 prepares a statement of its own for that."""


class AsyncpgPatches(Patches):
    """What is replaced in asyncpg."""

    def __init__(self) -> None:
        super().__init__()
        self.cursors = Cursors(self)

    def targets(self) -> Iterable[Target]:
        """Return what is to be replaced."""
        connection, prepared = asyncpg.connection.Connection, asyncpg.prepared_stmt.PreparedStatement
        copy_out, copy_in = self._copy("COPY {} TO STDOUT"), self._copy("COPY {} FROM STDIN")
        return [
            (connection, "execute", self._query(rows.of_status)),
            (connection, "fetch", self._query(rows.of_list, tag="of changes")),
            (connection, "fetchrow", self._query(rows.of_row, tag="of changes")),
            (connection, "fetchval", self._query(rows.of_value, tag="always")),
            (connection, "fetchmany", self._query(rows.of_many)),
            (connection, "executemany", self._executemany),
            (connection, "prepare", self._prepare),
            (connection, "copy_from_table", copy_out),
            (connection, "copy_from_query", self._copy("COPY ({}) TO STDOUT")),
            (connection, "copy_to_table", copy_in),
            (connection, "copy_records_to_table", copy_in),
            (connection, "reset", mute),
            (asyncpg.pool.PoolConnectionHolder, "release", mute),  # runs a reset callback
            (asyncpg.utils, "_mogrify", mute),  # copy_from_query has the server quote its arguments
            (prepared, "fetch", self._prepared(rows.of_last_status)),
            (prepared, "fetchrow", self._prepared(rows.of_last_status)),
            (prepared, "fetchval", self._prepared(rows.of_last_status)),
            (prepared, "fetchmany", self._prepared(rows.of_many)),
            (prepared, "executemany", self._prepared(rows.unknown)),
            *self.cursors.targets(),
        ]

    def remove(self) -> None:
        """Put the originals back, and end the cursors that are open: their last steps will not be seen."""
        super().remove()
        self.cursors.end_all()

    def _query(self, rows_of: RowsOf, *, tag: str = "never") -> Callable[[Any], Any]:
        """Replace a method whose first argument is the statement.

        ``tag`` says when the rows cannot be counted without the command tag: never, always, or if the statement may
        change rows (``of changes``).
        """

        def make(original: Any) -> Any:
            may_want_tag = tag != "never" and rows.can_be_tagged(original)

            @functools.wraps(original)
            async def wrapper(connection: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
                recorder = self.recorder
                if recorder is None or (statement := recorder.watch(query)) is None:
                    return await original(connection, query, *args, **kwargs)
                caller = connection
                if may_want_tag and (tag == "always" or not statement.is_read):
                    caller = rows.tagged(connection)
                pending = original(caller, query, *args, **kwargs)  # raises here if it is called wrongly
                started = perf_counter_ns()
                try:
                    result = await pending
                except BaseException as error:
                    recorder.failed(statement, started, error)
                    raise
                recorder.succeeded(statement, started, rows_of, result, caller)
                return result

            return wrapper

        return make

    def _executemany(self, original: Any) -> Any:
        """Replace executemany, which calls its statement a command; the server's tags do not come this far."""

        @functools.wraps(original)
        async def wrapper(connection: Any, command: Any, *args: Any, **kwargs: Any) -> Any:
            recorder = self.recorder
            if recorder is None or (statement := recorder.watch(command)) is None:
                return await original(connection, command, *args, **kwargs)
            pending = original(connection, command, *args, **kwargs)
            return await _observe(recorder, statement, pending, rows.unknown, connection)

        return wrapper

    def _prepare(self, original: Any) -> Any:
        """Replace prepare: a statement that cannot be prepared is a failed query, one that can is not one yet."""

        @functools.wraps(original)
        async def wrapper(connection: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
            started = perf_counter_ns()
            try:
                return await original(connection, query, *args, **kwargs)
            except BaseException as error:
                recorder = self.recorder
                if recorder is not None and _copying.get() != id(connection):
                    statement = recorder.watch(query)
                    if statement is not None:
                        recorder.failed(statement, started, error)
                raise

        return wrapper

    def _copy(self, template: str) -> Callable[[Any], Any]:
        """Replace a copy; asyncpg writes its statement too late to be seen, so the template stands for it."""

        def make(original: Any) -> Any:
            @functools.wraps(original)
            async def wrapper(connection: Any, *args: Any, **kwargs: Any) -> Any:
                recorder = self.recorder
                if recorder is None or (statement := recorder.watch(_copy_statement(template, args, kwargs))) is None:
                    return await original(connection, *args, **kwargs)
                with set_within(_copying, id(connection)):
                    pending = original(connection, *args, **kwargs)
                    return await _observe(recorder, statement, pending, rows.of_status, connection)

            return wrapper

        return make

    def _prepared(self, rows_of: RowsOf) -> Callable[[Any], Any]:
        """Replace a method of a prepared statement; it checks its connection before there is anything to await."""

        def make(original: Any) -> Any:
            @functools.wraps(original)
            def wrapper(prepared: Any, *args: Any, **kwargs: Any) -> Any:
                recorder = self.recorder
                if recorder is None or (statement := recorder.watch(getattr(prepared, "_query", None))) is None:
                    return original(prepared, *args, **kwargs)
                started = perf_counter_ns()
                try:
                    pending = original(prepared, *args, **kwargs)
                except BaseException as error:
                    recorder.failed(statement, started, error)
                    raise
                return _observe(recorder, statement, pending, rows_of, prepared)

            return wrapper

        return make


async def _observe(recorder: QueryRecorder, statement: Statement, pending: Any, rows_of: RowsOf, source: Any) -> Any:
    started = perf_counter_ns()
    try:
        result = await pending
    except BaseException as error:
        recorder.failed(statement, started, error)
        raise
    recorder.succeeded(statement, started, rows_of, result, source)
    return result


def _copy_statement(template: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    if template.startswith("COPY ("):
        return template.format(args[0] if args else kwargs.get("query"))
    names = (kwargs.get("schema_name"), args[0] if args else kwargs.get("table_name"))
    return template.format(".".join('"' + str(name).replace('"', '""') + '"' for name in names if name))
