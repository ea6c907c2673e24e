"""Captures the queries of asyncpg: methods of its classes are replaced, so pools and connections of any age take part.

Nothing is proxied and the Cython layer is left alone. A replacement calls the original with what it was given, and
hands on what that returned or raised. The public methods make the events; what they do beneath makes none.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
import warnings
from functools import partial
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import asyncpg
import asyncpg.connection
import asyncpg.cursor
import asyncpg.pool
import asyncpg.prepared_stmt
import asyncpg.utils

from asgi_analytics.context import suppressed
from asgi_analytics.instrumentation.asyncpg import rows
from asgi_analytics.instrumentation.asyncpg.cursors import CursorTap
from asgi_analytics.instrumentation.queries.recorder import QueryRecorder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from asgi_analytics.client import AnalyticsClient
    from asgi_analytics.instrumentation.queries.statement import Statement


class AsyncpgInstrumentation:
    """What `instrument_asyncpg` returns; keep it to take the capture away again."""

    def __init__(self, tap: _Tap) -> None:
        self._tap = tap

    def uninstrument(self) -> None:
        """Put asyncpg's own objects back, whichever handle is asked; nothing the second time.

        A method that somebody else has replaced since is left to them; what they call of ours only passes on.
        """
        with _lock:
            self._tap.remove()


def instrument_asyncpg(
    client: AnalyticsClient,
    *,
    slow_ms: float | None = None,
    sample_rate: float = 1.0,
    capture_statement: bool = True,
) -> AsyncpgInstrumentation:
    """Capture the process's asyncpg queries as `DatabaseQuery` events of ``client``.

    Failed queries, and those of ``slow_ms`` milliseconds and more (None: no query is slow), are always kept, of the
    others the share ``sample_rate``; the figures of the request count all of them. ``capture_statement=False`` leaves
    the text out. Pools and connections made before or after take part alike.

    There is one capture in a process: a second call hands it to its own client with its own settings, and adds no
    second event. A method that this version of asyncpg lacks draws a `RuntimeWarning` and is left out. Raises
    `ConfigError` for a setting out of its range.
    """
    recorder = QueryRecorder(client, slow_ms=slow_ms, sample_rate=sample_rate, capture_statement=capture_statement)
    global _installed
    with _lock:
        if _installed is None:
            _installed = _Tap()
            _installed.install()
        _installed.recorders[0] = _installed.cursors.recorder = recorder
        return AsyncpgInstrumentation(_installed)


class _Tap:
    """One installation: what was replaced, and where the queries go. Without a recorder all of it only passes on."""

    def __init__(self) -> None:
        self.recorders: list[QueryRecorder | None] = [None]  # one, in a list that each replacement has at hand
        # Command tags on their way from _execute to the public method that runs on the same connection, by the id of
        # the connection. Nothing else runs between the two, not even another task, and a connection has one thread.
        self.tags: dict[int, bytes | None] = {}
        # Connections that copy, by id: asyncpg 0.31 prepares a statement of its own for that.
        self.copying: set[int] = set()
        self.cursors = CursorTap()
        self._replaced: list[tuple[Any, str, Any, Any]] = []

    def install(self) -> None:
        for owner, name, make in (*_targets(self), *self.cursors.targets()):
            original = vars(owner).get(name)
            replacement = make(original) if callable(original) else None
            if replacement is None:
                warnings.warn(
                    f"asyncpg {asyncpg.__version__} has no {owner.__name__}.{name} that is known here: "
                    "the queries that go through it are not captured, or without their rows",
                    RuntimeWarning,
                    stacklevel=3,
                )
                continue
            setattr(owner, name, replacement)
            self._replaced.append((owner, name, original, replacement))

    def remove(self) -> None:
        global _installed
        if _installed is not self:
            return
        _installed = None
        for owner, name, original, replacement in reversed(self._replaced):
            if vars(owner).get(name) is replacement:
                setattr(owner, name, original)
        self.cursors.finish()
        self.recorders[0] = self.cursors.recorder = None
        self.tags.clear()


_lock = threading.RLock()
_installed: _Tap | None = None


def _targets(tap: _Tap) -> Iterable[tuple[Any, str, Callable[[Any], Any]]]:
    """Return the owner, the name, and what makes the replacement; the cursors have a list of their own."""
    connection, prepared = asyncpg.connection.Connection, asyncpg.prepared_stmt.PreparedStatement
    return [
        (connection, "_execute", partial(_with_tag, tap)),
        (connection, "execute", partial(_query, tap, rows.of_status)),
        (connection, "fetch", partial(_query, tap, rows.of_list, tag=True)),
        (connection, "fetchrow", partial(_query, tap, rows.of_row, tag=True)),
        (connection, "fetchval", partial(_query, tap, rows.of_value, tag=True, always=True)),
        (connection, "fetchmany", partial(_query, tap, rows.of_many)),
        (connection, "executemany", partial(_command, tap)),
        (connection, "prepare", partial(_prepare, tap)),
        (connection, "copy_from_table", partial(_copy, tap, "COPY {} TO STDOUT")),
        (connection, "copy_from_query", partial(_copy, tap, "COPY ({}) TO STDOUT")),
        (connection, "copy_to_table", partial(_copy, tap, "COPY {} FROM STDIN")),
        (connection, "copy_records_to_table", partial(_copy, tap, "COPY {} FROM STDIN")),
        (connection, "reset", _mute),
        (asyncpg.pool.PoolConnectionHolder, "release", _mute),  # runs a reset callback
        (asyncpg.utils, "_mogrify", _mute),  # copy_from_query has the server quote its arguments
        (prepared, "fetch", partial(_prepared, tap, rows.of_last_status)),
        (prepared, "fetchrow", partial(_prepared, tap, rows.of_last_status)),
        (prepared, "fetchval", partial(_prepared, tap, rows.of_last_status)),
        (prepared, "fetchmany", partial(_prepared, tap, rows.of_many)),
        (prepared, "executemany", partial(_prepared, tap, rows.unknown)),
    ]


def _query(
    tap: _Tap, rows_of: Callable[..., int | None], original: Any, *, tag: bool = False, always: bool = False
) -> Any:
    """Replace a method whose first argument is the statement.

    ``rows_of(result, statement, tag)`` returns the rows of a query. ``tag`` says whether the command tag is needed for
    that where a statement changes rows, ``always`` that it is needed of others too.
    """
    tags, recorders = tap.tags, tap.recorders

    @functools.wraps(original)
    async def wrapper(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        pending = original(self, query, *args, **kwargs)  # a call that it does not take is no query
        recorder = recorders[0]
        if recorder is None or (statement := recorder.watch(query)) is None:
            return await pending
        if tag and (always or not statement.is_read):
            tags[id(self)] = None  # asks _execute for the tag
        started = perf_counter_ns()
        try:
            result = await pending
        except BaseException as error:
            tags.pop(id(self), None)
            recorder.failed(statement, started, error)
            raise
        recorder.succeeded(statement, started, rows_of(result, statement, tags.pop(id(self), None) if tag else None))
        return result

    return wrapper


def _command(tap: _Tap, original: Any) -> Any:
    """Replace executemany, which calls its statement a command; the server's tags do not come this far."""

    @functools.wraps(original)
    async def wrapper(self: Any, command: Any, *args: Any, **kwargs: Any) -> Any:
        recorder = tap.recorders[0]
        if recorder is None or (statement := recorder.watch(command)) is None:
            return await original(self, command, *args, **kwargs)
        return await _observe(recorder, statement, original(self, command, *args, **kwargs), rows.unknown, self)

    return wrapper


def _prepare(tap: _Tap, original: Any) -> Any:
    """Replace prepare: a statement that cannot be prepared is a failed query, one that can is none yet."""

    @functools.wraps(original)
    async def wrapper(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        started = perf_counter_ns()
        try:
            return await original(self, query, *args, **kwargs)
        except BaseException as error:
            recorder = tap.recorders[0]
            if (
                recorder is not None
                and id(self) not in tap.copying
                and (statement := recorder.watch(query)) is not None
            ):
                recorder.failed(statement, started, error)
            raise

    return wrapper


def _copy(tap: _Tap, template: str, original: Any) -> Any:
    """Replace a copy; asyncpg writes its statement too late to be seen, so the template stands for it."""

    @functools.wraps(original)
    async def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        recorder = tap.recorders[0]
        if recorder is None or (statement := recorder.watch(_copy_statement(template, args, kwargs))) is None:
            return await original(self, *args, **kwargs)
        tap.copying.add(id(self))
        try:
            return await _observe(recorder, statement, original(self, *args, **kwargs), rows.of_status, self)
        finally:
            tap.copying.discard(id(self))

    return wrapper


def _copy_statement(template: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    if template.startswith("COPY ("):
        return template.format(args[0] if args else kwargs.get("query"))
    names = (kwargs.get("schema_name"), args[0] if args else kwargs.get("table_name"))
    return template.format(".".join('"' + str(name).replace('"', '""') + '"' for name in names if name))


def _prepared(tap: _Tap, rows_of: Callable[..., int | None], original: Any) -> Any:
    """Replace a method of a prepared statement; it checks its connection before there is anything to await."""

    @functools.wraps(original)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        recorder = tap.recorders[0]
        if recorder is None or (statement := recorder.watch(getattr(self, "_query", None))) is None:
            return original(self, *args, **kwargs)
        try:
            pending = original(self, *args, **kwargs)
        except BaseException as error:
            recorder.failed(statement, perf_counter_ns(), error)
            raise
        return _observe(recorder, statement, pending, rows_of, self)

    return wrapper


async def _observe(
    recorder: QueryRecorder, statement: Statement, pending: Any, rows_of: Callable[..., int | None], owner: Any
) -> Any:
    started = perf_counter_ns()
    try:
        result = await pending
    except BaseException as error:
        recorder.failed(statement, started, error)
        raise
    recorder.succeeded(statement, started, rows_of(result, statement, owner))
    return result


def _mute(original: Any) -> Any:
    """Replace what asks the server on its own behalf: no query of the application."""

    @functools.wraps(original)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        token = suppressed.set(True)
        try:
            return await original(*args, **kwargs)
        finally:
            with contextlib.suppress(ValueError):  # closed by the garbage collector, in whatever context that runs
                suppressed.reset(token)

    return wrapper


def _with_tag(tap: _Tap, original: Any) -> Any:
    """Replace _execute: for a query that is captured it asks for the command tag, which asyncpg would throw away."""
    if not {"return_status", "record_class"} <= inspect.signature(original).parameters.keys():
        return None
    tags = tap.tags

    async def with_tag(self: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("return_status"):
            return await original(self, *args, **kwargs)
        answer = await original(self, *args, return_status=True, **kwargs)
        if type(answer) is not tuple:
            return answer
        tags[id(self)] = answer[1]
        return answer[0]

    @functools.wraps(original)
    def wrapper(
        self: Any, query: Any, args: Any, limit: Any, timeout: Any, *, record_class: Any = None, **more: Any
    ) -> Any:
        # One named argument, which all queries pass on, and a second dict for none of them.
        if more or (tags and id(self) in tags):
            more["record_class"] = record_class
            return (with_tag if id(self) in tags else original)(self, query, args, limit, timeout, **more)
        return original(self, query, args, limit, timeout, record_class=record_class)

    return wrapper
