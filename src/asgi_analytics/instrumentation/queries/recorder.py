"""Makes the events of queries, and counts them in the request that they belong to."""

from __future__ import annotations

import math
from asyncio import CancelledError
from random import random
from time import perf_counter_ns
from typing import TYPE_CHECKING

from asgi_analytics.client import checked_client
from asgi_analytics.context import current, suppressed
from asgi_analytics.encoding.query_record import QueryLines
from asgi_analytics.errors import ConfigError
from asgi_analytics.events.captured import DatabaseQuery
from asgi_analytics.exceptions import error_type
from asgi_analytics.instrumentation.queries.statement import Statement, normalise, remembered
from asgi_analytics.log import failure, log_problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from asgi_analytics.client import AnalyticsClient
    from asgi_analytics.context import RequestContext

_QUERY_CANCELED = "57014"
_LOCK_NOT_AVAILABLE = "55P03"

_current, _suppressed = current.get, suppressed.get


class QueryRecorder:
    """Counts each query in its request, and tracks those that are kept: failed, slow, or in the sample."""

    def __init__(
        self, client: AnalyticsClient, *, slow_ms: float | None, sample_rate: float, capture_statement: bool
    ) -> None:
        if slow_ms is not None and not (_is_number(slow_ms) and slow_ms >= 0):
            raise ConfigError(f"slow_ms is {slow_ms!r}: use milliseconds from 0, or None")
        if not (_is_number(sample_rate) and 0 <= sample_rate <= 1):
            raise ConfigError(f"sample_rate is {sample_rate!r}: use a share from 0.0 to 1.0")
        self._slow = math.inf if slow_ms is None else slow_ms * 1000
        self._sample_rate = sample_rate
        self._keeps_all = sample_rate == 1
        self._capture_statement = capture_statement
        self._track = checked_client(client).track_captured
        self._client = client
        self._lines = client.lines(QueryLines)

    def watch(self, query: object) -> Statement | None:
        """Return what is known of a statement that is about to run; None for one that is none of our business."""
        if _suppressed() or ((request := _current()) is not None and request.excluded):
            return None
        try:
            statement = remembered(query) or normalise(query)  # type: ignore[call-overload, arg-type]  # the driver tells what is no text
        except Exception as error:
            if isinstance(query, str):
                not_captured(error)
            return None
        return None if statement.is_control else statement

    def succeeded(
        self, statement: Statement, started: int, rows_of: Callable[..., int | None], result: object, tag: object
    ) -> None:
        """Record a query that went well; ``started`` is the `perf_counter_ns` before it.

        ``rows_of(result, statement, tag)`` returns its rows; ``tag`` is what brought the server's command tag.
        """
        duration = (perf_counter_ns() - started) // 1000
        try:
            request = _current()
            if request is not None:
                count(request, statement.fingerprint)
                request.db_duration_ms += duration / 1000
            if self._keeps_all or duration >= self._slow or random() < self._sample_rate:  # noqa: S311
                self._keep(statement, duration, rows_of(result, statement, tag), request)
        except Exception as error:
            not_captured(error)

    def ended(self, statement: Statement, duration: int, rows: int) -> None:
        """Record a cursor that came to its end after ``duration`` microseconds; it was counted when it was opened."""
        if self._keeps_all or duration >= self._slow or random() < self._sample_rate:  # noqa: S311
            self._keep(statement, duration, rows, _current())

    def _keep(self, statement: Statement, duration: int, rows: int | None, request: RequestContext | None) -> None:
        if self._lines is not None:
            data = statement.data if self._capture_statement else statement.data_without_text
            record = self._lines.record(data, duration, rows, request)
            if record is not None:
                self._client.track_captured_record(record)
                return
        self._track(self._event(statement, duration, rows, "ok"))

    def failed(self, statement: Statement, started: int, error: BaseException) -> None:
        """Record a query that raised."""
        duration = (perf_counter_ns() - started) // 1000
        try:
            request = _current()
            if request is not None:
                count(request, statement.fingerprint)
                request.db_duration_ms += duration / 1000
            self.keep_failed(statement, duration, None, error)
        except Exception as inner:
            not_captured(inner)

    def keep_failed(self, statement: Statement, duration: int, rows: int | None, error: BaseException) -> None:
        """Track a query that raised after ``duration`` microseconds; all of them are kept."""
        self._track(
            self._event(
                statement,
                duration,
                rows,
                outcome_of(error),
                error_type=error_type(error),
                sqlstate=sqlstate_of(error),
            )
        )

    def _event(
        self, statement: Statement, duration: int, rows: int | None, outcome: str, **failure: str | None
    ) -> DatabaseQuery:
        request = _current()
        return DatabaseQuery(
            query_type=statement.query_type,
            table=statement.table,
            statement=statement.text if self._capture_statement else None,
            fingerprint=statement.fingerprint,
            duration_ms=duration / 1000,
            rows_affected=rows,
            outcome=outcome,
            endpoint=None if request is None else request.endpoint,
            **failure,
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def count(request: RequestContext, fingerprint: str) -> None:
    """Count a query in its request, whatever the sampling."""
    request.db_queries += 1
    request.ordinary = False
    repeats = request.fingerprints
    if repeats is None:
        request.fingerprints = {fingerprint: 1}
    else:
        repeats[fingerprint] = repeats.get(fingerprint, 0) + 1


def outcome_of(error: BaseException) -> str:
    """Return cancelled, timeout or error; what the server cancelled is a timeout when its message says so."""
    if isinstance(error, CancelledError | GeneratorExit):
        return "cancelled"
    if isinstance(error, TimeoutError):
        return "timeout"
    sqlstate = sqlstate_of(error)
    if sqlstate in (_QUERY_CANCELED, _LOCK_NOT_AVAILABLE) and "timeout" in str(error):
        return "timeout"
    return "cancelled" if sqlstate == _QUERY_CANCELED else "error"


def sqlstate_of(error: BaseException) -> str | None:
    """Return the five characters that the server gave the error, as asyncpg and psycopg keep them."""
    sqlstate = getattr(error, "sqlstate", None)
    return sqlstate if isinstance(sqlstate, str) else None


def not_captured(error: Exception) -> None:
    """Log a failure of our own, which must not become the application's."""
    log_problem("query", "a query was not captured: %s", failure(error))
