"""Makes the events of queries, and counts them in the request that they belong to."""

from __future__ import annotations

from asyncio import CancelledError
from random import random
from time import perf_counter_ns
from typing import TYPE_CHECKING

from asgi_analytics._context import current, suppressed
from asgi_analytics._log import log_problem
from asgi_analytics.errors import ConfigError
from asgi_analytics.events.captured import DatabaseQuery
from asgi_analytics.instrumentation.sql import Statement, normalise

if TYPE_CHECKING:
    from asgi_analytics._context import RequestContext
    from asgi_analytics.client import AnalyticsClient

_QUERY_CANCELED = "57014"
_LOCK_NOT_AVAILABLE = "55P03"


class QueryRecorder:
    """Counts each query in its request, and tracks those that are kept: failed, slow, or in the sample."""

    def __init__(
        self, client: AnalyticsClient, *, slow_ms: float | None, sample_rate: float, capture_statement: bool
    ) -> None:
        if slow_ms is not None and (isinstance(slow_ms, bool) or not slow_ms >= 0):
            raise ConfigError(f"slow_ms is {slow_ms!r}: use milliseconds from 0, or None")
        if isinstance(sample_rate, bool) or not 0 <= sample_rate <= 1:
            raise ConfigError(f"sample_rate is {sample_rate!r}: use a share from 0.0 to 1.0")
        self.client = client
        self._slow_ms = float("inf") if slow_ms is None else slow_ms
        self._sample_rate = sample_rate
        self._capture_statement = capture_statement
        self._track = client.track_captured

    def watch(self, query: object) -> Statement | None:
        """Return what is known of a statement that is about to run; None for one that is none of our business."""
        if suppressed.get() or ((request := current.get()) is not None and request.excluded):
            return None
        try:
            statement = normalise(query if isinstance(query, str) else "")
        except Exception as error:
            not_captured(error)
            return None
        return None if statement.is_control else statement

    def succeeded(self, statement: Statement, started: int, rows: int | None) -> None:
        """Record a query that went well, and its rows; ``started`` is the `perf_counter_ns` before it."""
        try:
            duration_ms = (perf_counter_ns() - started) // 1000 / 1000
            request = current.get()
            endpoint = None
            if request is not None:
                count(request, statement.fingerprint)
                request.db_duration_ms += duration_ms
                endpoint = request.endpoint
            self.keep(statement, duration_ms, rows, endpoint)
        except Exception as error:
            not_captured(error)

    def keep(self, statement: Statement, duration_ms: float, rows: int | None, endpoint: str | None) -> None:
        """Track a query that went well, if it is slow or in the sample."""
        if self._sample_rate < 1.0 and duration_ms < self._slow_ms and random() >= self._sample_rate:  # noqa: S311
            return
        self._track(
            DatabaseQuery(
                query_type=statement.query_type,
                table=statement.table,
                statement=statement.text if self._capture_statement else None,
                fingerprint=statement.fingerprint,
                duration_ms=duration_ms,
                rows_affected=rows,
                outcome="ok",
                endpoint=endpoint,
            )
        )

    def failed(self, statement: Statement, started: int, error: BaseException) -> None:
        """Record a query that raised."""
        try:
            duration_ms = (perf_counter_ns() - started) // 1000 / 1000
            request = current.get()
            endpoint = None
            if request is not None:
                count(request, statement.fingerprint)
                request.db_duration_ms += duration_ms
                endpoint = request.endpoint
            self.keep_failed(statement, duration_ms, None, endpoint, error)
        except Exception as inner:
            not_captured(inner)

    def keep_failed(
        self, statement: Statement, duration_ms: float, rows: int | None, endpoint: str | None, error: BaseException
    ) -> None:
        """Track a query that raised; all of them are kept."""
        self._track(
            DatabaseQuery(
                query_type=statement.query_type,
                table=statement.table,
                statement=statement.text if self._capture_statement else None,
                fingerprint=statement.fingerprint,
                duration_ms=duration_ms,
                rows_affected=rows,
                outcome=outcome_of(error),
                error_type=type_name(type(error)),
                sqlstate=sqlstate_of(error),
                endpoint=endpoint,
            )
        )


def count(request: RequestContext, fingerprint: str) -> None:
    """Count a query in its request, whatever the sampling."""
    request.db_queries += 1
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


def type_name(cls: type[BaseException]) -> str:
    """Return ``ValueError`` for a builtin, else ``module.QualName``."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def not_captured(error: Exception) -> None:
    """Log a failure of our own, which must not become the application's."""
    log_problem("query", "a query was not captured: %s: %s", type(error).__name__, error)
