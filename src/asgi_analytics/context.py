"""What is known of the request that runs: who asks, its trace, its queries; and whether capture is muted."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import SpanContext, get_current_span

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from opentelemetry.context import Context

    from asgi_analytics.encoding.caller import Caller

Span = tuple[int, int]
"""The ids of a trace and of a span in it."""

NOT_SET: Any = object()
"""Marks a value that was never set; None means "explicitly nobody"."""

MOST_SEEN_ERRORS = 9
"""How many reported exceptions a request remembers."""


class Queries:
    """The database queries of one request, however many of them become events."""

    def __init__(self) -> None:
        self.count = 0
        self.duration_ms = 0.0
        self.by_fingerprint: dict[str, int] = {}

    @property
    def repeats(self) -> int:
        """The most repeats of one statement fingerprint: N+1 shows here."""
        return max(self.by_fingerprint.values(), default=0)

    def add(self, other: Queries) -> None:
        """Add other queries of the same request."""
        self.count += other.count
        self.duration_ms += other.duration_ms
        for fingerprint, count in other.by_fingerprint.items():
            self.by_fingerprint[fingerprint] = self.by_fingerprint.get(fingerprint, 0) + count


class RequestContext:
    """What is known of one request, or of one job outside of any request.

    One object stands in the context of the request. Threads and sub-tasks get a copy of the context but the same
    object, so what a dependency or a threadpool handler sets reaches the request's own event.

    Tasks that a request has started may outlive it. When it has ended, ``is_running`` is False: only user and session
    are left, queries are not counted and errors not remembered any more.
    """

    # The exceptions that were reported, so that nested layers report each of them once. Few requests have any: what few
    # have stands in the class, and what all are asked for in each object, where it costs less to read.
    _seen_errors: tuple[BaseException, ...] = ()

    def __init__(self, method: str | None = None) -> None:
        self.method = method
        self.is_running = True
        # An excluded request makes no captured event; its explicit events are the application's own business.
        self.excluded = False
        # For events that are tracked when the request's span has ended already.
        self.span: Span | None = None
        self.queries: Queries | None = None
        self._user_id: Any = NOT_SET
        self._session_id: Any = NOT_SET
        self._request_id: str | None = None
        self._endpoint: str | None = None

    @property
    def user_id(self) -> UUID | str | int | None:
        """Who asks; None if nobody in particular."""
        return None if self._user_id is NOT_SET else self._user_id

    @user_id.setter
    def user_id(self, value: UUID | str | int | None) -> None:
        self._user_id = value

    @property
    def session_id(self) -> str | None:
        """The session, if any is known."""
        session_id = self._session_id
        if session_id is NOT_SET or session_id is None:
            return None
        return session_id if type(session_id) is str else str(session_id)

    @session_id.setter
    def session_id(self, value: str | None) -> None:
        self._session_id = value

    @property
    def request_id(self) -> str | None:
        """The id of the request; None outside of one."""
        return self._request_id

    @request_id.setter
    def request_id(self, value: str | None) -> None:
        self._request_id = value

    @property
    def endpoint(self) -> str | None:
        """The endpoint, if a decorator has named it or a router has matched already."""
        return self._endpoint

    @endpoint.setter
    def endpoint(self, value: str | None) -> None:
        self._endpoint = value

    @property
    def caller(self) -> Caller | None:
        """Who sent the request; None unless it is counted who sees its pages."""
        return None

    def count_query(self, fingerprint: str, duration_ms: float = 0.0) -> None:
        """Count a query, whatever the sampling; if it only begins, its time is added later."""
        if not self.is_running:
            return
        queries = self.queries
        if queries is None:
            queries = self.queries = Queries()
        queries.count += 1
        queries.duration_ms += duration_ms
        repeats = queries.by_fingerprint
        repeats[fingerprint] = repeats.get(fingerprint, 0) + 1

    def add_query_time(self, duration_ms: float) -> None:
        """Add the time of a query that was counted."""
        if self.queries is not None:
            self.queries.duration_ms += duration_ms

    def add_queries(self, queries: Queries) -> None:
        """Add queries that were counted in the same request for another client."""
        if self.queries is None:
            self.queries = Queries()
        self.queries.add(queries)

    def is_first_report(self, exc: BaseException) -> bool:
        """Remember an exception that is reported; False if it was reported in this request before."""
        if any(seen is exc for seen in self._seen_errors):
            return False
        self._seen_errors = (*self._seen_errors[1 - MOST_SEEN_ERRORS :], exc)
        return True

    def end(self) -> None:
        """End the request: what it leaves running is no part of it."""
        self.is_running = self.excluded = False
        self.span = self.queries = self._request_id = self._endpoint = None
        if self._seen_errors:
            self._seen_errors = ()


current: ContextVar[RequestContext | None] = ContextVar("asgi_analytics_request", default=None)
suppressed: ContextVar[bool] = ContextVar("asgi_analytics_suppressed", default=False)


def span_of(trace: Context | None) -> Span | None:
    """Return the span that is current in an OpenTelemetry context (None: the current one), if it has valid ids."""
    span = get_current_span(trace).get_span_context()
    # A tuple, whose names would cost two calls.
    trace_id, span_id = span[:2] if isinstance(span, SpanContext) else (span.trace_id, span.span_id)
    # A span of a test, a mock for instance, may have ids that are not integers.
    if type(trace_id) is int and type(span_id) is int and trace_id > 0 and span_id > 0:
        return trace_id, span_id
    return None


@contextmanager
def suppress() -> Iterator[None]:
    """Mute capture in this context: the pipeline's own work must not become events."""
    token = suppressed.set(True)
    try:
        yield
    finally:
        suppressed.reset(token)


def _ambient() -> RequestContext:
    context = current.get()
    if context is None:
        # Outside a request (a job, a command): what is set holds for the rest of this context.
        context = RequestContext()
        context.is_running = False
        current.set(context)
    return context


def set_user(user_id: UUID | str | int | None) -> None:
    """Name the user of the current request; its event, its errors and its domain events carry it.

    Works from a dependency, a threadpool handler, or below ``BaseHTTPMiddleware``. Outside a request it holds for the
    rest of the current context (task or thread), and so it does in a task that outlives the request which started it.
    An id that is not a UUID is mapped as `user_uuid` documents. None takes the name away.
    """
    _ambient().user_id = user_id


def set_session(session_id: str | None) -> None:
    """Name the session of the current request, in the same way as `set_user`."""
    _ambient().session_id = session_id
