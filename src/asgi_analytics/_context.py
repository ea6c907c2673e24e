"""What is going on around an event: the request it belongs to, and whether capture is muted."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

from contextlib import contextmanager


class RequestContext:
    """The mutable facts of one request.

    One object stands in the context of the request. Threads and sub-tasks get a copy of the context but the same
    object, so what a dependency or a threadpool handler says reaches the request's own event.
    """

    __slots__ = (
        "db_duration_ms",
        "db_queries",
        "endpoint",
        "excluded",
        "fingerprints",
        "method",
        "request_id",
        "seen_errors",
        "session_id",
        "span_id",
        "trace_id",
        "user_id",
    )

    def __init__(self) -> None:
        self.user_id: UUID | str | int | None = None
        self.session_id: str | None = None
        self.request_id: str | None = None
        # Fallbacks for events that are tracked when the request's span has ended already.
        self.trace_id: str | None = None
        self.span_id: str | None = None
        # Known before the response where a decorator names it or a router has matched; else None.
        self.endpoint: str | None = None
        self.method: str | None = None
        # An excluded request makes no captured event; its explicit ones are the application's own business.
        self.excluded = False
        self.db_queries = 0
        self.db_duration_ms = 0.0
        # Repeats of each statement fingerprint, made at the first query: most requests of most applications have none.
        self.fingerprints: dict[str, int] | None = None
        # The exception object that was reported last, so that nested layers report it once.
        self.seen_errors: list[BaseException] | None = None

    def db_repeats(self) -> int | None:
        """Return the most repeats of one statement fingerprint (N+1 shows here); None without a query."""
        return max(self.fingerprints.values()) if self.fingerprints else None


current: ContextVar[RequestContext | None] = ContextVar("asgi_analytics_request", default=None)
suppressed: ContextVar[bool] = ContextVar("asgi_analytics_suppressed", default=False)


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
