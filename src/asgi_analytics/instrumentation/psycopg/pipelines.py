"""Pipeline mode: a query is sent now, and its result or its failure comes later."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import psycopg

from asgi_analytics.instrumentation.psycopg import rows
from asgi_analytics.instrumentation.queries.patches import owner_of
from asgi_analytics.instrumentation.queries.recorder import not_captured

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asgi_analytics.instrumentation.queries.open_query import OpenQuery
    from asgi_analytics.instrumentation.queries.patches import Target


class SentQuery:
    """A query in a pipeline: a block in which it is sent, and then its results, which come in the order of sending."""

    def __init__(self, query: OpenQuery, cursor: Any, pipeline: Any, all_sent: list[SentQuery]) -> None:
        self._query = query
        self._cursor_id = id(cursor)  # the pipeline holds the cursor as long as results of it are awaited
        self._pipeline = pipeline
        self._all_sent = all_sent
        self._started = query.start_step()
        self._awaited: int | None = None

    def __enter__(self) -> None:
        """Begin to send."""
        self._all_sent.append(self)

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Count the results that are still to come. An error may be that of an earlier query."""
        queued = sum(item is not None and id(item[0]) == self._cursor_id for item in self._pipeline.result_queue)
        self._awaited = queued - sum(sent._awaited or 0 for sent in self._all_sent if sent.is_of(self._cursor_id))
        del self._pipeline
        if self._awaited <= 0:
            self.end(error)

    def is_of(self, cursor_id: int) -> bool:
        """Tell whether the cursor with this id has sent the query."""
        return self._cursor_id == cursor_id

    def add(self, results: list[Any]) -> None:
        """Take note of results, maybe the last ones."""
        self._query.add_rows(rows.of_results(results))
        if self._awaited is not None:
            self._awaited -= 1
            if self._awaited == 0:
                self.end(None)

    def end(self, error: BaseException | None, *, has_rows: bool = True) -> None:
        """Record the query, the first time this is called."""
        if self in self._all_sent:
            self._all_sent.remove(self)
            if error is not None or not has_rows:
                self._query.add_rows(None)
            self._query.spend(self._started)
            self._query.end(error)


class Pipelines:
    """The queries that were sent in pipelines, and the replacements of the methods that meet their results."""

    def __init__(self) -> None:
        self._sent: WeakKeyDictionary[Any, list[SentQuery]] = WeakKeyDictionary()

    def targets(self) -> Iterable[Target]:
        """Return what is to be replaced."""
        methods = [("_process_results", self.results), ("_exit", self.leaving)]
        return [(owner_of(psycopg.Pipeline, name), name, make) for name, make in methods]

    def sending(self, query: OpenQuery, cursor: Any, pipeline: Any) -> SentQuery:
        """Return the block in which a cursor sends a query."""
        return SentQuery(query, cursor, pipeline, self._sent.setdefault(pipeline, []))

    def end_all(self) -> None:
        """End what is open: its results will not be seen."""
        for sent in [one for queries in self._sent.values() for one in queries]:
            sent.end(None, has_rows=False)

    def results(self, original: Any) -> Any:
        """Replace what takes the results of one query: it raises if the query has failed."""

        @functools.wraps(original)
        def wrapper(pipeline: Any, queued: Any, results: Any) -> Any:
            sent = self._first(pipeline, queued)
            try:
                result = original(pipeline, queued, results)
            except BaseException as error:
                if sent is not None:
                    sent.end(error)
                raise
            if sent is not None:
                try:
                    sent.add(results)
                except Exception as inner:  # another version of psycopg
                    not_captured(inner)
            return result

        return wrapper

    def _first(self, pipeline: Any, queued: Any) -> SentQuery | None:
        """Return the first query of a cursor that awaits results."""
        if queued is None:  # not of a cursor: a synchronisation, or a statement that is prepared
            return None
        return next((sent for sent in self._sent.get(pipeline, ()) if sent.is_of(id(queued[0]))), None)

    def leaving(self, original: Any) -> Any:
        """Replace the end of a pipeline: what still awaits results has failed with what ends the pipeline."""

        @functools.wraps(original)
        def wrapper(pipeline: Any, *args: Any, **kwargs: Any) -> Any:
            error = sys.exception() or next((arg for arg in args if isinstance(arg, BaseException)), None)
            try:
                return original(pipeline, *args, **kwargs)
            finally:
                if pipeline.level == 0:
                    for sent in list(self._sent.get(pipeline, ())):
                        sent.end(error, has_rows=False)

        return wrapper
