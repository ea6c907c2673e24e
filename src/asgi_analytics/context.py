"""What is going on around an event: the request it belongs to, its trace, and whether capture is muted."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import opentelemetry.context
import opentelemetry.trace.propagation
from opentelemetry.trace import SpanContext, get_current_span

from asgi_analytics.pipeline.fields import UNSAID, RequestFields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from uuid import UUID

    from opentelemetry.context import Context


Span = tuple[int, int]
"""The ids of a trace and of a span in it."""


class RequestContext(RequestFields):
    """The mutable facts of one request.

    One object stands in the context of the request. Threads and sub-tasks get a copy of the context but the same
    object, so what a dependency or a threadpool handler says reaches the request's own event.
    """

    __slots__ = ()

    def __init__(self, method: str | None = None) -> None:
        # False as soon as there is anything that an event has to say, or the end to forget, beyond what every request
        # has. One look at it in place of a dozen: whoever sets what most requests do not have sets this too.
        self.ordinary: bool = True
        # An excluded request makes no captured event; its explicit ones are the application's own business.
        self.excluded: bool = False
        self.method = method
        # For events that are tracked when the request's span has ended already.
        self.span: Span | None = None
        self._user_id: Any = UNSAID
        self._session_id: Any = UNSAID
        self._request_id: str | None = None
        self._endpoint: str | None = None
        self.db_queries: int = 0
        self.db_duration_ms: float = 0.0
        # Repeats of each statement fingerprint, made at the first query: most requests of most applications have none.
        self.fingerprints: dict[str, int] | None = None
        # The exception objects that were reported, so that nested layers report each once.
        self.seen_errors: list[BaseException] | None = None

    @property
    def user_id(self) -> UUID | str | int | None:
        """Who asks; None for nobody in particular."""
        return None if self._user_id is UNSAID else self._user_id

    @user_id.setter
    def user_id(self, value: UUID | str | int | None) -> None:
        self._user_id = value

    @property
    def session_id(self) -> str | None:
        """The session, if any is known."""
        return None if self._session_id is UNSAID else self._session_id

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
        """Known before the response where a decorator names it or a router has matched; else None."""
        return self._endpoint

    @endpoint.setter
    def endpoint(self, value: str | None) -> None:
        self._endpoint = value

    def db_repeats(self) -> int | None:
        """Return the most repeats of one statement fingerprint (N+1 shows here); None without a query."""
        return max(self.fingerprints.values()) if self.fingerprints else None

    def add_queries(self, inner: RequestContext) -> None:
        """Take over the database totals that were counted in the same request for another client."""
        self.ordinary = False
        self.db_queries += inner.db_queries
        self.db_duration_ms += inner.db_duration_ms
        if inner.fingerprints:
            mine = self.fingerprints = dict(self.fingerprints or {})
            for fingerprint, number in inner.fingerprints.items():
                mine[fingerprint] = mine.get(fingerprint, 0) + number


current: ContextVar[RequestContext | None] = ContextVar("asgi_analytics_request", default=None)
suppressed: ContextVar[bool] = ContextVar("asgi_analytics_suppressed", default=False)


def _context_reader() -> Callable[[], Context]:
    """Return what `opentelemetry.context.get_current` asks in the end, where it is what the API ships: two calls less.

    Every event asks once, and every request twice.
    """
    runtime = getattr(opentelemetry.context, "_RUNTIME_CONTEXT", None)
    variable = getattr(runtime, "_current_context", None)
    is_shipped = type(runtime).__module__ == "opentelemetry.context.contextvars_context"
    return variable.get if is_shipped and isinstance(variable, ContextVar) else opentelemetry.context.get_current


otel_context = _context_reader()
"""Returns OpenTelemetry's current context; empty without a trace."""


# Where a context holds its span; `get_current_span` finds it by three calls more.
_SPAN_KEY: str = getattr(opentelemetry.trace.propagation, "_SPAN_KEY", "")


def span_of(trace: Context) -> Span | None:
    """Return which span is current in a context; None where there is none, or one without valid ids."""
    try:
        span = trace[_SPAN_KEY].get_span_context()  # type: ignore[attr-defined]  # any object may stand there
    except (KeyError, AttributeError):  # no span, or an API that keeps it elsewhere
        span = get_current_span(trace).get_span_context()
    if type(span) is SpanContext:  # a tuple, whose properties cost a call each
        return span[:2] if span[5] else None
    return (span.trace_id, span.span_id) if span.is_valid else None


@contextmanager
def suppress() -> Iterator[None]:
    """Mute capture in this context: the pipeline's own work must not become events."""
    token = suppressed.set(True)
    try:
        yield
    finally:
        suppressed.reset(token)


def _ambient() -> RequestContext:
    request = current.get()
    if request is None:
        # Outside a request (a job, a command): the facts hold for the rest of this context.
        request = RequestContext()
        current.set(request)
    return request


def set_user(user_id: UUID | str | int | None) -> None:
    """Name the user of the current request; its event, its errors and its domain events carry it.

    Works from a dependency, a threadpool handler, or below ``BaseHTTPMiddleware``. Outside a request it holds for the
    rest of the current context (task or thread). An id that is no UUID is mapped as `user_uuid` documents. None
    takes the name away.
    """
    _ambient().user_id = user_id


def set_session(session_id: str | None) -> None:
    """Name the session of the current request, in the same way as `set_user`."""
    _ambient().session_id = session_id
