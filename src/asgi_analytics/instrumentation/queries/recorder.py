"""What a driver calls, in which order: the seam between a database driver and the events of its queries.

For each query that the application runs::

    statement = recorder.watch(query)          # None: not a query of the application, so just run it
    started = perf_counter_ns()
    try:
        result = run the query
    except BaseException as error:
        recorder.failed(statement, started, error)
        raise
    recorder.succeeded(statement, started, rows_of, result)

``rows_of(result, statement, source)`` is the driver's function that counts the rows of a result. It may raise: the rows
are not known then.

A query that takes several steps, for example a cursor, is counted when it begins and recorded when it ends::

    recorder.begin(statement)
    recorder.spend(duration)                   # for each step, in microseconds
    recorder.end(statement, duration, rows)    # or recorder.end(statement, duration, rows, error)

Nothing here raises.
"""

from __future__ import annotations

import math
from random import random
from time import perf_counter_ns, time_ns
from typing import TYPE_CHECKING, Any

from opentelemetry.context import get_current

from asgi_analytics.client import checked_client
from asgi_analytics.context import current, span_of, suppressed
from asgi_analytics.encoding.ids import next_number
from asgi_analytics.encoding.query_record import QueryRecord
from asgi_analytics.encoding.records import RECORD_BYTES, extra_weight
from asgi_analytics.errors import ConfigError
from asgi_analytics.exceptions import error_type
from asgi_analytics.instrumentation.outcomes import query_outcome, sqlstate_of
from asgi_analytics.instrumentation.queries.statement import Statement, normalise
from asgi_analytics.log import failure, log_problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from asgi_analytics.client import AnalyticsClient
    from asgi_analytics.context import RequestContext

    RowsOf = Callable[[Any, Statement, Any], int | None]
    """Returns the rows of a result; None if they are not known."""


class QueryRecorder:
    """Counts each query in its request, and tracks those that are kept: failed, slow, or in the sample.

    ``slow_ms`` is in milliseconds (None: no query is slow), ``sample_rate`` from 0.0 to 1.0. Raises `ConfigError` for a
    setting out of its range.
    """

    def __init__(
        self, client: AnalyticsClient, *, slow_ms: float | None, sample_rate: float, capture_statement: bool
    ) -> None:
        if slow_ms is not None and not (_is_number(slow_ms) and slow_ms >= 0):
            raise ConfigError(f"slow_ms is {slow_ms!r}: use milliseconds from 0, or None")
        if not (_is_number(sample_rate) and 0 <= sample_rate <= 1):
            raise ConfigError(f"sample_rate is {sample_rate!r}: use a share from 0.0 to 1.0")
        # In microseconds, the duration from which a query is kept without a look at the sample.
        self._always_from = 0 if sample_rate == 1 else math.inf if slow_ms is None else slow_ms * 1000
        self._sample_rate = sample_rate
        self._capture_statement = capture_statement
        self._intake = checked_client(client).intake

    def is_watching(self) -> bool:
        """Tell whether queries are captured here: not in an excluded request, nor while capture is muted."""
        return not suppressed.get() and ((request := current.get()) is None or not request.excluded)

    def watch(self, query: object) -> Statement | None:
        """Return what is known of a statement that is about to run; None for a query that is not to be captured."""
        if not isinstance(query, str) or not self.is_watching():
            return None
        try:
            statement = normalise(query)
        except Exception as error:
            not_captured(error)
            return None
        return None if statement.is_control else statement

    def succeeded(
        self, statement: Statement, started: int, rows_of: RowsOf, result: object, source: object = None
    ) -> None:
        """Record a query that went well; ``started`` is the `perf_counter_ns` before it.

        ``source`` is passed on to ``rows_of``, for a driver whose result does not tell all.
        """
        duration = (perf_counter_ns() - started) // 1000
        try:
            rows = rows_of(result, statement, source)
        except Exception as error:
            not_captured(error)
            rows = None
        self._record(statement, duration, rows, None)

    def failed(self, statement: Statement, started: int, error: BaseException) -> None:
        """Record a query that raised."""
        self._record(statement, (perf_counter_ns() - started) // 1000, None, error)

    def _record(self, statement: Statement, duration: int, rows: int | None, error: BaseException | None) -> None:
        request = current.get()
        if request is not None:
            request.count_query(statement.fingerprint, duration / 1000)
        self._track(statement, duration, rows, error, request)

    def begin(self, statement: Statement) -> None:
        """Count a query in its request, whatever the sampling."""
        if (request := current.get()) is not None:
            request.count_query(statement.fingerprint)

    def spend(self, duration: int) -> None:
        """Add to the time of the queries of the request, in microseconds."""
        if (request := current.get()) is not None:
            request.add_query_time(duration / 1000)

    def end(self, statement: Statement, duration: int, rows: int | None, error: BaseException | None = None) -> None:
        """Track a query that was counted before, if it is kept; ``duration`` is in microseconds."""
        self._track(statement, duration, rows, error, current.get())

    def _track(
        self,
        statement: Statement,
        duration: int,
        rows: int | None,
        error: BaseException | None,
        request: RequestContext | None,
    ) -> None:
        if duration < self._always_from and error is None and random() >= self._sample_rate:  # noqa: S311
            return
        try:
            text = statement.text if self._capture_statement else None
            weight = RECORD_BYTES if text is None else RECORD_BYTES + len(text)
            user_id = session_id = request_id = endpoint = span = None
            if request is not None:
                user_id, session_id = request.user_id, request.session_id
                request_id, endpoint = request.request_id, request.endpoint
                span = request.span
                weight += extra_weight(user_id, session_id, endpoint)
            if trace := get_current():
                span = span_of(trace) or span
            outcome, kind, sqlstate = "ok", None, None
            if error is not None:
                outcome, kind, sqlstate = query_outcome(error), error_type(error), sqlstate_of(error)
            record = QueryRecord(
                self._intake.source,
                weight,
                time_ns(),
                next_number(),
                user_id,
                session_id,
                request_id,
                span,
                statement.query_type,
                statement.table,
                text,
                statement.fingerprint,
                duration,
                rows,
                outcome,
                kind,
                sqlstate,
                endpoint,
            )
            self._intake.record(record)
        except Exception as inner:
            not_captured(inner)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def not_captured(error: Exception) -> None:
    """Log a failure in capturing a query: it must not become the application's."""
    log_problem("query", "a query was not captured: %s", failure(error))
