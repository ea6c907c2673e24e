"""One request while it lives: what is said of it, which route it takes, and how it ends."""

from __future__ import annotations

import asyncio
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from opentelemetry.context import get_current as otel_context
from opentelemetry.trace import format_span_id, format_trace_id, get_current_span

from asgi_analytics._context import RequestContext
from asgi_analytics._log import failure, log_problem
from asgi_analytics._tracebacks import error_type, leaves, unwrapped
from asgi_analytics.events.captured import ApiRequest
from asgi_analytics.instrumentation.identity import ask, identity_of, is_id, sent_request_id
from asgi_analytics.instrumentation.request_lines import new_request_id

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping
    from uuid import UUID

    from opentelemetry.context import Context

    from asgi_analytics.instrumentation.asgi import AnalyticsMiddleware
    from asgi_analytics.instrumentation.framework import Template

    Scope = MutableMapping[str, Any]

REQUEST_KEY = "asgi_analytics.request"
"""Where the scope holds the request that is being captured, so that an inner middleware does not capture it again."""

_UNSAID: Any = object()

# By their names: the packages that define them may not be installed.
_CANCELLATIONS = frozenset({"CancelledError", "Cancelled", "GeneratorExit", "KeyboardInterrupt"})
_DISCONNECTS = frozenset(
    {"ClientDisconnect", "WebSocketDisconnect", "ClientDisconnected", "ClientDisconnectedError", "RequestAborted"}
)


class CapturedRequest(RequestContext):
    """What is known of one request. It stands in the context, so that ``set_user`` and the drivers can add to it."""

    __slots__ = (
        "_endpoint",
        "_request_id",
        "_session_id",
        "_user_id",
        "answering",
        "close_code",
        "ended",
        "error_type",
        "known_session",
        "known_user",
        "middleware",
        "native",
        "outcome",
        "outer",
        "response_bytes",
        "scope",
        "send_error",
        "started",
        "status",
        "template",
        "trace",
        "ttfb",
    )

    def __init__(self, middleware: AnalyticsMiddleware, scope: Scope, method: str) -> None:
        # Every request pays for this: what RequestContext sets is set here, without a call of its own.
        self.method = method
        self.trace_id = self.span_id = self.fingerprints = self.seen_errors = None
        self.excluded = False
        self.db_queries = 0
        self.db_duration_ms = 0.0
        self.middleware = middleware
        self.scope: Scope | None = scope
        # What was said: by set_user, by set_session, by a decorator.
        self._user_id: Any = _UNSAID
        self._session_id: Any = _UNSAID
        self._endpoint: str | None = None
        self._request_id: str | None = None
        # The framework's own request object, where one of its hooks has left it here.
        self.native: Any = None
        # The same request as another client's middleware captures it.
        self.outer: CapturedRequest | None = None
        # The exception that was being handled when the response began.
        self.answering: BaseException | None = None
        self.send_error: OSError | None = None
        self.error_type: str | None = None
        self.outcome = "ok"
        self.status: int | None = None
        self.response_bytes: int | None = None
        self.close_code: int | None = None
        # What was the trace when the response began.
        self.trace: Context | None = None
        # Set when it ends: what the event says.
        self.template: str | None = None
        self.known_user: UUID | str | int | None = None
        self.known_session: str | None = None
        # Nanoseconds: from the start to the response's; and the clock at the start, and when all was sent.
        self.ttfb: int | None = None
        self.ended: int | None = None
        self.started = perf_counter_ns()

    # -- who and where, asked whenever an event is tracked: authentication and routing may come late

    @property
    def user_id(self) -> UUID | str | int | None:
        """Who asks: what ``set_user`` said, else the middleware's callable, else ``scope["user"]``."""
        user_id = self._user_id
        if user_id is not _UNSAID:
            return user_id  # type: ignore[no-any-return]
        scope = self.scope
        if scope is None:
            return self.known_user
        return self._find_user(scope) if self.middleware.knows_users or "user" in scope else None

    @user_id.setter
    def user_id(self, value: UUID | str | int | None) -> None:
        if value is not None and not is_id(value):
            log_problem("set_user", "set_user() takes a UUID, a str or an int, not a %s", type(value).__name__)
            return
        self._user_id = value
        if self.outer is not None:
            self.outer.user_id = value

    def _find_user(self, scope: Scope) -> UUID | str | int | None:
        middleware = self.middleware
        self._user_id = None  # meanwhile: a callable may track events itself
        try:
            user = ask(middleware.user_id, scope, "user_id")
            if user is None:
                user = identity_of(scope.get("user"))
            for framework in middleware.frameworks:
                if user is None:
                    user = identity_of(framework.user(scope, self))
            return user
        except Exception as error:
            log_problem("user", "the user of a request is not known: %s", failure(error))
            return None
        finally:
            self._user_id = _UNSAID

    @property
    def session_id(self) -> str | None:
        """The session: what ``set_session`` said, else the middleware's callable."""
        session_id = self._session_id
        if session_id is _UNSAID:
            if self.scope is None:
                return self.known_session
            if self.middleware.session_id is None:
                return None
            self._session_id = None
            try:
                session_id = ask(self.middleware.session_id, self.scope, "session_id")
            finally:
                self._session_id = _UNSAID
        return session_id if session_id is None or type(session_id) is str else str(session_id)

    @session_id.setter
    def session_id(self, value: str | None) -> None:
        self._session_id = value
        if self.outer is not None:
            self.outer.session_id = value

    @property
    def request_id(self) -> str:  # type: ignore[override]  # nobody has a reason to set it
        """The ``X-Request-ID`` of the request, else one that is made for it."""
        request_id = self._request_id
        if request_id is None:
            request_id = self._request_id = sent_request_id(self.scope) or new_request_id()
        return request_id

    @property
    def endpoint(self) -> str | None:
        """The route template, as far as it is known now; a decorator's name for it wins."""
        if self._endpoint is not None:
            return self._endpoint
        scope = self.scope
        return self.template if scope is None else self._find_endpoint(scope)

    @endpoint.setter
    def endpoint(self, value: str | None) -> None:
        self._endpoint = value
        if self.outer is not None:
            self.outer.endpoint = value

    def _find_endpoint(self, scope: Scope) -> str | None:
        middleware = self.middleware
        try:
            if (only := middleware.only_framework) is not None:
                found = only.template(scope, self)
                return None if found is None else found.text
            if middleware.endpoint is not None and (named := middleware.endpoint(scope)) is not None:
                return str(named)
            route: Template | None = None
            mount: Template | None = None
            for framework in middleware.frameworks:
                found = framework.template(scope, self)
                if found is None:
                    continue
                if found.prefix is None:
                    route = route or found
                else:
                    mount = found if mount is None else found.below(mount)
            if route is None:
                return None if mount is None else mount.text
            return route.text if mount is None else route.below(mount).text
        except Exception as error:
            log_problem("endpoint", "the endpoint of a request is not known: %s", failure(error))
            return None

    def take_trace(self) -> None:
        """Remember the span that is current now, else the one in which the response began."""
        for trace in (otel_context(), self.trace):
            if trace:
                span = get_current_span(trace).get_span_context()
                if span.is_valid:
                    self.trace_id = format_trace_id(span.trace_id)
                    self.span_id = format_span_id(span.span_id)
                    return

    # -- its end

    def is_complete(self) -> bool:
        """Tell whether the client has got all of the response."""
        return self.ended is not None

    def failed(self, exc: BaseException) -> None:
        """Take note of an exception that leaves the application; never raises."""
        try:
            self.unhandled(exc)
        except Exception as error:
            log_problem("failed", "an exception was not captured: %s", failure(error))

    def unhandled(self, exc: BaseException) -> None:
        """Take note of an exception that nobody handles: one that leaves the application, or that a framework answers.

        After the response it is none of the request's: a background task has raised.
        """
        is_answered = exc is self.answering or (self.status or 0) >= 500
        exc = unwrapped(exc)
        outcome = self._outcome_of(exc)
        for framework in self.middleware.frameworks:
            exc = unwrapped(framework.original(exc))
        if not self.is_complete() or is_answered:
            self.outcome = outcome
            self.error_type = error_type(exc) if outcome == "error" else None
            if outcome != "error" and self.is_complete():
                # An error handler has answered, but there was nobody left to hear it.
                self.status = self.ttfb = self.response_bytes = None
        if outcome == "error" and self.middleware.capture_errors:
            self.middleware.client.track_unhandled(exc)

    def _outcome_of(self, exc: BaseException) -> str:
        kinds = {self._kind_of(one) for one in leaves(exc)}
        return "error" if "error" in kinds else "disconnected" if "disconnected" in kinds else "cancelled"

    def _kind_of(self, exc: BaseException) -> str:
        if isinstance(exc, asyncio.CancelledError):
            return "cancelled"
        names = {cls.__name__ for cls in type(exc).__mro__}
        if names & _DISCONNECTS or any(one is self.send_error for one in _with_causes(exc)):
            return "disconnected"
        return "cancelled" if names & _CANCELLATIONS else "error"

    def finish(self) -> None:
        """Track the request's event, and let go of the application's objects: contexts may outlive the request."""
        try:
            if not self.excluded:
                self._track(self.middleware)
            if self.outer is not None:
                self.outer.add_queries(self)
                self.outer = None
        except Exception as error:
            log_problem("finish", "a request was not captured: %s", failure(error))
        self.scope = self.native = self.answering = self.send_error = self.seen_errors = self.trace = None

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """Pass a message on, and take note of it when it is sent."""
        raise NotImplementedError

    def answered(self) -> int:
        """Return the status that the client got; the outcome is settled here too."""
        raise NotImplementedError

    def _track(self, middleware: AnalyticsMiddleware) -> None:
        ended = self.ended or perf_counter_ns()
        status = self.answered()
        scope = self.scope
        # From here on they are what they are now. Nobody is asked who cannot know.
        if self._endpoint is not None or scope is None:
            self.template = self._endpoint
        elif middleware.knows_endpoints:
            self.template = self._find_endpoint(scope)
        if self._user_id is not _UNSAID or middleware.knows_users or (scope is not None and "user" in scope):
            self.known_user = self.user_id
        if self._session_id is not _UNSAID or middleware.session_id is not None:
            self.known_session = self.session_id
        if otel_context() or self.trace:
            self.take_trace()
        if middleware.lines is None:
            middleware.client.track_captured(self._event(status, ended))
        else:
            middleware.client.track_captured_line(middleware.lines.line(self, status, ended))

    def _event(self, status: int, ended: int) -> ApiRequest:
        queries = self.db_queries
        return ApiRequest(
            method=self.method or "_OTHER",
            endpoint=self.template,
            status_code=status,
            duration_ms=(ended - self.started) // 1000 / 1000,
            ttfb_ms=None if self.ttfb is None else self.ttfb // 1000 / 1000,
            response_bytes=self.response_bytes,
            outcome=self.outcome,
            error_type=self.error_type,
            close_code=self.close_code,
            db_queries=queries or None,
            db_duration_ms=self.db_duration_ms if queries else None,
            db_repeats=self.db_repeats() if queries else None,
        )

    def add_queries(self, inner: RequestContext) -> None:
        """Take over the database totals that were counted in the same request for another client."""
        self.db_queries += inner.db_queries
        self.db_duration_ms += inner.db_duration_ms
        if inner.fingerprints:
            mine = self.fingerprints = dict(self.fingerprints or {})
            for fingerprint, number in inner.fingerprints.items():
                mine[fingerprint] = mine.get(fingerprint, 0) + number


def _with_causes(exc: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what it was raised from: frameworks dress up a server's OSError."""
    one: BaseException | None = exc
    for _ in range(5):
        if one is None:
            return
        yield one
        one = one.__cause__
