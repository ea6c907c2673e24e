"""One request while it lives: who asks, which route it takes, and how it ends."""

from __future__ import annotations

import asyncio
import os
import secrets
from itertools import count
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, TypeGuard
from uuid import UUID

from opentelemetry.trace import format_span_id, format_trace_id, get_current_span

from asgi_analytics._context import RequestContext, current
from asgi_analytics._log import log_problem
from asgi_analytics._tracebacks import error_type, leaves, unwrapped
from asgi_analytics.events.captured import ApiRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, MutableMapping

    from opentelemetry.context import Context

    from asgi_analytics.instrumentation.asgi import AnalyticsMiddleware
    from asgi_analytics.instrumentation.framework import Template

REQUEST_KEY = "asgi_analytics.request"
"""Where the scope holds the request that is being captured, so that an inner middleware does not capture it again."""

_UNSET: Any = object()
_MAX_REQUEST_ID = 200

# By their names: the frameworks that define them may not be installed.
_CANCELLATIONS = frozenset({"CancelledError", "Cancelled", "GeneratorExit", "KeyboardInterrupt"})
_DISCONNECTS = frozenset(
    {"ClientDisconnect", "WebSocketDisconnect", "ClientDisconnected", "ClientDisconnectedError", "RequestAborted"}
)
# Where an application keeps the id of a user, most telling first; no address, no display name.
_USER_FIELDS = ("user_id", "id", "pk", "uuid", "identity", "sub", "username")


def _request_ids() -> Callable[[], int]:
    return count(secrets.randbits(63) << 64 | 1).__next__


_next_request_id = _request_ids()


def _reseed() -> None:
    global _next_request_id
    _next_request_id = _request_ids()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reseed)


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
        "middleware",
        "native",
        "outcome",
        "outer",
        "response_bytes",
        "scope",
        "send_error",
        "started",
        "status",
        "ttfb",
    )

    def __init__(self, middleware: AnalyticsMiddleware, scope: MutableMapping[str, Any]) -> None:
        # All that RequestContext has, without its call: this runs for every request.
        self.db_queries = 0
        self.db_duration_ms = 0.0
        self.fingerprints = None
        self.seen_errors = None
        self.trace_id = None
        self.span_id = None
        self.excluded = False
        self._endpoint: str | None = None
        self._request_id: str | None = None
        self._session_id: Any = _UNSET
        self._user_id: Any = _UNSET
        self.middleware = middleware
        self.scope: MutableMapping[str, Any] | None = scope
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
        # Nanoseconds: when the response began, counted from the start, and when it was complete.
        self.ttfb: int | None = None
        self.ended: int | None = None
        self.started = perf_counter_ns()

    # -- who and where, asked when an event is tracked: authentication and routing may come late

    @property
    def user_id(self) -> UUID | str | int | None:
        """Who asks: what ``set_user`` said, else the middleware's callable, else ``scope["user"]``."""
        user_id = self._user_id
        return self._find_user() if user_id is _UNSET else user_id

    @user_id.setter
    def user_id(self, value: UUID | str | int | None) -> None:
        if value is not None and not _is_id(value):
            log_problem("set_user", "set_user() takes a UUID, a str or an int, not %s", type(value).__name__)
            return
        self._user_id = value
        if self.outer is not None:
            self.outer.user_id = value

    def _find_user(self) -> UUID | str | int | None:
        scope = self.scope
        if scope is None:
            return None
        middleware = self.middleware
        if middleware.user_id is None and "user" not in scope and not middleware.knows_users:
            return None
        self._user_id = None  # meanwhile: a callable may track events itself
        try:
            user = _checked(middleware.user_id, scope, "user_id")
            if user is None and (known := scope.get("user")) is not None:
                user = _identity(known)
            for framework in middleware.frameworks:
                if user is None and (known := framework.user(scope, self)) is not None:
                    user = _identity(known)
            return user
        except Exception as error:
            log_problem("user", "the user of a request is not known: %s: %s", type(error).__name__, error)
            return None
        finally:
            self._user_id = _UNSET

    @property
    def session_id(self) -> str | None:
        """The session: what ``set_session`` said, else the middleware's callable."""
        session_id = self._session_id
        if session_id is _UNSET:
            if self.middleware.session_id is None or self.scope is None:
                return None
            self._session_id = None
            try:
                session_id = _checked(self.middleware.session_id, self.scope, "session_id")
            finally:
                self._session_id = _UNSET
        return session_id if session_id is None or type(session_id) is str else str(session_id)

    @session_id.setter
    def session_id(self, value: str | None) -> None:
        self._session_id = value
        if self.outer is not None:
            self.outer.session_id = value

    @property
    def request_id(self) -> str | None:
        """The ``X-Request-ID`` of the request, else one that is made for it."""
        if self._request_id is None:
            self._request_id = self._find_request_id()
        return self._request_id

    @request_id.setter
    def request_id(self, value: str | None) -> None:
        self._request_id = value

    def _find_request_id(self) -> str:
        if self.scope is not None:
            for name, value in self.scope.get("headers") or ():
                if name == b"x-request-id" and value and len(value) <= _MAX_REQUEST_ID:
                    text: str = value.decode("latin-1")
                    if text.isascii() and text.isprintable():
                        return text
                    break
        return f"{_next_request_id():032x}"

    @property
    def endpoint(self) -> str | None:
        """The route template, as far as it is known now; a decorator's name for it wins."""
        if self._endpoint is not None or self.scope is None:
            return self._endpoint
        return self._find_endpoint(self.scope)

    @endpoint.setter
    def endpoint(self, value: str | None) -> None:
        self._endpoint = value
        if self.outer is not None:
            self.outer.endpoint = value

    def _find_endpoint(self, scope: MutableMapping[str, Any]) -> str | None:
        middleware = self.middleware
        try:
            if middleware.endpoint is not None:
                named = middleware.endpoint(scope)
                if named is not None:
                    return str(named)
            mount: Template | None = None
            for framework in middleware.frameworks:
                found = framework.template(scope, self)
                if found is None:
                    continue
                if mount is not None and mount.prefix is not None:
                    found = found._replace(
                        text=mount.prefix + found.text,
                        prefix=None if found.prefix is None else mount.prefix + found.prefix,
                    )
                if found.prefix is None:
                    return found.text
                mount = found
            return None if mount is None else mount.text
        except Exception as error:
            log_problem("endpoint", "the endpoint of a request is not known: %s: %s", type(error).__name__, error)
            return None

    # -- its life

    def enter(self, scope: MutableMapping[str, Any]) -> RequestContext | None:
        """Make this the current request, and return the one that was."""
        self.outer = scope.get(REQUEST_KEY)
        middleware = self.middleware
        self.excluded = middleware.has_excluded and middleware.is_excluded(scope)
        scope[REQUEST_KEY] = self
        previous = current.get()
        current.set(self)
        return previous

    def leave(self, scope: MutableMapping[str, Any], previous: RequestContext | None) -> None:
        """Track the request's event and put back what was current; no token, which another context would refuse."""
        outer = self.outer
        self.finish()
        if outer is None:
            scope.pop(REQUEST_KEY, None)
        else:
            scope[REQUEST_KEY] = outer
        current.set(previous)

    def take_trace(self, trace: Context) -> None:
        """Remember the span that is current now, unless an outer one is known."""
        span = get_current_span(trace).get_span_context()
        if span.is_valid:
            self.trace_id = format_trace_id(span.trace_id)
            self.span_id = format_span_id(span.span_id)

    def is_complete(self) -> bool:
        """Tell whether the client has got all of the response."""
        return self.ended is not None

    def failed(self, exc: BaseException) -> None:
        """Take note of an exception that leaves the application."""
        try:
            self.unhandled(exc)
        except Exception as error:
            log_problem("failed", "an exception of the application was not captured: %s", error)

    def unhandled(self, exc: BaseException) -> None:
        """Take note of an exception that nobody handles: one that leaves the application, or that a framework answers.

        After the response it is none of the request's: a background task has raised.
        """
        exc = unwrapped(exc)
        outcome = self._outcome_of(exc)
        if not self.is_complete() or exc is self.answering or (self.status or 0) >= 500:
            self.outcome = outcome
            self.error_type = error_type(exc) if outcome == "error" else None
        if outcome == "error" and self.middleware.capture_errors:
            self.middleware.client.track_unhandled(exc)

    def _outcome_of(self, exc: BaseException) -> str:
        kinds = {self._kind(one) for one in leaves(exc)}
        return "error" if "error" in kinds else "disconnected" if "disconnected" in kinds else "cancelled"

    def _kind(self, exc: BaseException) -> str:
        for one in _with_explicit_causes(exc):
            if one is self.send_error:
                return "disconnected"
        if isinstance(exc, asyncio.CancelledError):
            return "cancelled"
        names = {cls.__name__ for cls in type(exc).__mro__}
        if names & _DISCONNECTS:
            return "disconnected"
        return "cancelled" if names & _CANCELLATIONS else "error"

    def finish(self) -> None:
        """Track the request's event, and let go of the application's objects: contexts may outlive the request."""
        try:
            # From here on they are what they are now.
            self._endpoint = self.endpoint
            self._user_id = self.user_id
            self._session_id = self.session_id
            if not self.excluded:
                self.track()
            if self.outer is not None:
                self.outer.add_queries(self)
        except Exception as error:
            log_problem("finish", "a request was not captured: %s: %s", type(error).__name__, error)
        finally:
            self.scope = self.native = self.outer = None
            self.answering = self.send_error = self.seen_errors = None

    def answered(self) -> int:
        """Return the status that the client got; the outcome is settled here too."""
        raise NotImplementedError

    def track(self) -> None:
        """Track the `ApiRequest`."""
        ended = perf_counter_ns() if self.ended is None else self.ended
        ttfb = self.ttfb
        queries = self.db_queries
        status = self.answered()
        self.middleware.client.track_captured(
            ApiRequest(
                method=self.method or "_OTHER",
                endpoint=self._endpoint,
                status_code=status,
                duration_ms=(ended - self.started) // 1000 / 1000,
                ttfb_ms=None if ttfb is None else ttfb // 1000 / 1000,
                response_bytes=self.response_bytes,
                outcome=self.outcome,
                error_type=self.error_type,
                close_code=self.close_code,
                db_queries=queries or None,
                db_duration_ms=self.db_duration_ms if queries else None,
                db_repeats=self.db_repeats() if queries else None,
            )
        )

    def add_queries(self, inner: RequestContext) -> None:
        """Take over the database totals that were counted in the same request for another client."""
        self.db_queries += inner.db_queries
        self.db_duration_ms += inner.db_duration_ms
        if inner.fingerprints:
            mine = self.fingerprints = dict(self.fingerprints or {})
            for fingerprint, number in inner.fingerprints.items():
                mine[fingerprint] = mine.get(fingerprint, 0) + number


def _with_explicit_causes(exc: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what it was raised from: frameworks dress up a server's OSError."""
    one: BaseException | None = exc
    for _ in range(5):
        if one is None:
            return
        yield one
        one = one.__cause__


def _is_id(value: object) -> TypeGuard[UUID | str | int]:
    return isinstance(value, UUID | str | int) and not isinstance(value, bool)


def _checked(
    callable_: Callable[[Any], Any] | None, scope: MutableMapping[str, Any], name: str
) -> UUID | str | int | None:
    """Return what a middleware's callable says of the scope; None when it raises or returns no id."""
    if callable_ is None:
        return None
    try:
        value: object = callable_(scope)
    except Exception as error:
        log_problem((name, callable_), "the middleware's %s raised %s: %s", name, type(error).__name__, error)
        return None
    if value is not None and not _is_id(value):
        log_problem((name, callable_), "the middleware's %s returned a %s: no id", name, type(value).__name__)
        return None
    return value


def _identity(user: object) -> UUID | str | int | None:
    """Return the id of what authentication has left: an id, a mapping, or an object; None for nobody in particular."""
    if _is_id(user):
        return user
    if isinstance(user, dict):
        values = (user.get(field) for field in _USER_FIELDS)
        return next((value for value in values if value != "" and _is_id(value)), None)
    if getattr(user, "is_authenticated", True) is False:
        return None
    for field in _USER_FIELDS:
        try:
            value = getattr(user, field, None)
        except Exception:  # noqa: S112  # Starlette's BaseUser raises NotImplementedError where there is no identity
            continue
        if value != "" and _is_id(value):
            return value
    return None
