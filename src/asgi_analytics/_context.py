"""What is going on around an event: the request it belongs to, its trace, and whether capture is muted."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import msgspec
import opentelemetry.context
import opentelemetry.trace.propagation
from opentelemetry.trace import get_current_span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from uuid import UUID

    from opentelemetry.context import Context
    from opentelemetry.trace import SpanContext


class RequestContext(msgspec.Struct, kw_only=True, eq=False):
    """The mutable facts of one request.

    One object stands in the context of the request. Threads and sub-tasks get a copy of the context but the same
    object, so what a dependency or a threadpool handler says reaches the request's own event. A struct, since every
    request makes one, and most of it stays as it is.
    """

    ordinary: bool = True
    """False as soon as there is anything that an event has to say, or the end to forget, beyond what every request has.

    One look at it in place of a dozen: whoever sets what most requests do not have sets this too.
    """
    user_id: UUID | str | int | None = None
    session_id: str | None = None
    request_id: str | None = None
    endpoint: str | None = None
    """Known before the response where a decorator names it or a router has matched; else None."""
    method: str | None = None
    span: SpanContext | None = None
    """For events that are tracked when the request's span has ended already."""
    excluded: bool = False
    """An excluded request makes no captured event; its explicit ones are the application's own business."""
    db_queries: int = 0
    db_duration_ms: float = 0.0
    fingerprints: dict[str, int] | None = None
    """Repeats of each statement fingerprint, made at the first query: most requests of most applications have none."""
    seen_errors: list[BaseException] | None = None
    """The exception objects that were reported, so that nested layers report each once."""

    def db_repeats(self) -> int | None:
        """Return the most repeats of one statement fingerprint (N+1 shows here); None without a query."""
        return max(self.fingerprints.values()) if self.fingerprints else None


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


def span_of(trace: Context) -> SpanContext | None:
    """Return which span is current in a context; None where there is none, or one without valid ids."""
    try:
        context = trace[_SPAN_KEY].get_span_context()  # type: ignore[attr-defined]  # any object may stand there
    except (KeyError, AttributeError):  # no span, or an API that keeps it elsewhere
        context = get_current_span(trace).get_span_context()
    return context if context.is_valid else None


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
