"""One request while it lives: what is said of it, which route it takes, and how it ends."""

from __future__ import annotations

from time import perf_counter_ns, time_ns
from typing import TYPE_CHECKING, Any

from asgi_analytics._context import RequestContext, otel_context, span_of
from asgi_analytics._log import failure, log_problem
from asgi_analytics._queue import MOST_RECORDS_BYTES
from asgi_analytics._tracebacks import error_type, unwrapped
from asgi_analytics.events.captured import ApiRequest
from asgi_analytics.instrumentation.identity import acceptable_request_id, ask, identity_of, is_id, sent_request_id
from asgi_analytics.instrumentation.lines import LONGEST_NAME, RECORD_BYTES, advance, base, fits, next_millisecond, step
from asgi_analytics.instrumentation.outcomes import outcome_of
from asgi_analytics.instrumentation.request_lines import made_request_id, rest_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping
    from uuid import UUID

    from opentelemetry.context import Context

    from asgi_analytics.instrumentation.asgi import AnalyticsMiddleware
    from asgi_analytics.instrumentation.framework import Template

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

REQUEST_KEY = "asgi_analytics.request"
"""Where the scope holds the request that is being captured, so that an inner middleware does not capture it again."""

_UNSAID: Any = object()


class CapturedRequest(RequestContext, eq=False):
    """What is known of one request. It stands in the context, so that ``set_user`` and the drivers can add to it."""

    middleware: AnalyticsMiddleware
    scope: Any
    """The scope of the request; None when it has ended."""
    _receive: Receive
    _send: Send
    # Nanoseconds, as all that follow: the clock at the start.
    started: int
    # What was said: by set_user, by set_session, by a decorator.
    _user_id: Any = _UNSAID
    _session_id: Any = _UNSAID
    _endpoint: str | None = None
    _request_id: str | None = None
    # The number of its event, of which the id of a request is made that came without one.
    _number: int | None = None
    # The framework's own request object, where one of its hooks has left it here.
    native: Any = None
    # The same request as another client's middleware captures it.
    outer: CapturedRequest | None = None
    # The exception that was being handled when the response began.
    answering: BaseException | None = None
    send_error: OSError | None = None
    error_type: str | None = None
    outcome: str = "ok"
    status: int | None = None
    response_bytes: int | None = None
    close_code: int | None = None
    # What was the trace when the response began.
    trace: Context | None = None
    # From the start to the response's; and the clock when all was sent.
    ttfb: int | None = None
    ended: int | None = None
    # Set when it ends: what the event says.
    template: str | None = None
    known_user: UUID | str | int | None = None
    known_session: str | None = None

    # -- who and where, asked whenever an event is tracked: authentication and routing may come late

    @property  # type: ignore[misc]  # asked anew each time, where another context holds a value
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
        self.ordinary = False
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

    @property  # type: ignore[misc]  # asked anew each time, where another context holds a value
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
        self.ordinary = False
        if self.outer is not None:
            self.outer.session_id = value

    @property  # type: ignore[misc]  # nobody has a reason to set it
    def request_id(self) -> str:  # type: ignore[override]
        """The ``X-Request-ID`` of the request, else one that is made for it."""
        request_id = self._request_id
        if request_id is None:
            request_id = self._request_id = sent_request_id(self.scope) or made_request_id(self._number)
        return request_id

    @property  # type: ignore[misc]  # asked anew each time, where another context holds a value
    def endpoint(self) -> str | None:
        """The route template, as far as it is known now; a decorator's name for it wins."""
        if self._endpoint is not None:
            return self._endpoint
        scope = self.scope
        return self.template if scope is None else self._find_endpoint(scope)

    @endpoint.setter
    def endpoint(self, value: str | None) -> None:
        self._endpoint = value
        self.ordinary = False
        if self.outer is not None:
            self.outer.endpoint = value

    def _find_endpoint(self, scope: Scope) -> str | None:
        middleware = self.middleware
        try:
            if (only := middleware.only_framework) is not None:
                found = only.template(scope, self)
                return None if found is None else found.text
            # One that raises is as one that does not know: the framework may.
            if middleware.endpoint is not None and (named := ask(middleware.endpoint, scope, "endpoint")) is not None:
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
        outcome = outcome_of(exc, self.send_error)
        for framework in self.middleware.frameworks:
            exc = unwrapped(framework.original(exc))
        if not self.is_complete() or is_answered:
            self.outcome = outcome
            self.ordinary = False
            self.error_type = error_type(exc) if outcome == "error" else None
            if outcome != "error" and self.is_complete():
                # An error handler has answered, but there was nobody left to hear it.
                self.status = self.ttfb = self.response_bytes = None
        if outcome == "error" and self.middleware.capture_errors:
            self.middleware.client.track_unhandled(exc)

    def finish(self) -> None:
        """Track the request's event, and let go of the application's objects: contexts may outlive the request."""
        # Every request comes through here once, and each step costs it a hundredth of a microsecond.
        middleware, scope, known = self.middleware, self.scope, None
        try:
            if (trace := otel_context()) or self.trace:
                # The span that is current now, else the one in which the response began.
                self.span = span_of(trace) or (span_of(self.trace) if self.trace else None)
                self.trace = None
            # Most requests: nothing was said in them, they were answered, and only a route and a user are asked for.
            if (
                self.ordinary
                and self.ended is not None
                and self.status is not None
                and self.method != "HEAD"
                and middleware.asks_little
            ):
                known = middleware.alone.get(id(scope.get("route")), middleware.unrouted)
            if known is None or "app_root_path" in scope:
                if (facts := self._facts()) is None:
                    return
                template, status, ended, user_id, session_id, rest, weight = facts
            else:
                self.template = template = known[1]
                status, ended, rest, weight = self.status, self.ended, "", RECORD_BYTES
                user_id = session_id = None
                if middleware.user_id is not None or "user" in scope:
                    user_id = self.known_user = self._find_user(scope)
                    if user_id is not None and not fits(user_id):
                        middleware.client.track_captured(self._event(status, ended))
                        return
            span, trace_id, span_id = self.span, None, None
            if span is not None:
                trace_id, span_id = span.trace_id, span.span_id
            request_id = self._request_id
            if request_id is None and (sent := dict(scope.get("headers") or ()).get(b"x-request-id")) is not None:
                request_id = self._request_id = acceptable_request_id(sent)
            now = time_ns()
            if now >= next_millisecond[0]:
                advance(now)
            self._number = number = step[0]()
            record = (
                middleware.writer, weight, now, base[0], number, template, status, self.method, self.outcome,
                self.started, ended, self.ttfb, self.response_bytes, rest, user_id, session_id, trace_id, span_id,
                request_id,
            )  # fmt: skip
            if not middleware.client._queue.put(record, weight, True):
                middleware.client.refuse_captured(weight)
        except Exception as error:
            log_problem("finish", "a request was not captured: %s", failure(error))
        finally:
            self.scope = None
            if not self.ordinary:
                self._let_go()

    def leave(self, native: Any) -> None:
        """Keep a framework's own request object, or what its hook has learnt, until the end."""
        self.native = native
        self.ordinary = False

    def _let_go(self) -> None:
        self.native = self.answering = self.send_error = self.seen_errors = None
        if self.outer is not None:
            self.outer.add_queries(self)
            self.outer = None

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """Pass a message on, and take note of it when it is sent."""
        raise NotImplementedError  # HTTP and WebSocket have messages of their own

    def answered(self) -> int:
        """Return the status that the client got; the outcome is settled here too."""
        raise NotImplementedError  # HTTP and WebSocket have answers of their own

    def _facts(self) -> tuple[Any, ...] | None:
        """Return what a record needs to hold; None for a request that makes none: excluded, or tracked as an object."""
        if self.excluded:
            return None
        middleware, scope = self.middleware, self.scope
        ended = self.ended or perf_counter_ns()
        status = self.answered()
        # From here on they are what they are now. Nobody is asked who cannot know.
        user_id = session_id = template = None
        if self._endpoint is not None or scope is None:
            template = self._endpoint
        elif middleware.knows_endpoints:
            template = self._find_endpoint(scope)
        if self._user_id is not _UNSAID or middleware.knows_users or (scope is not None and "user" in scope):
            user_id = self.known_user = self.user_id
        if self._session_id is not _UNSAID or middleware.session_id is not None:
            session_id = self.known_session = self.session_id
        self.template = template
        rest, weight = "", RECORD_BYTES
        if self.db_queries or self.error_type is not None or self.close_code is not None:
            rest = rest_of(self.error_type, self.close_code, self.db_queries, self.db_duration_ms, self.db_repeats())
            weight += len(rest)
        if (
            middleware.lines is None
            or weight > MOST_RECORDS_BYTES
            or not fits(user_id)
            or any(name is not None and len(name) > LONGEST_NAME for name in (template, session_id))
        ):
            middleware.client.track_captured(self._event(status, ended))
            return None
        return template, status, ended, user_id, session_id, rest, weight

    def _event(self, status: Any, ended: Any) -> ApiRequest:
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
        self.ordinary = False
        self.db_queries += inner.db_queries
        self.db_duration_ms += inner.db_duration_ms
        if inner.fingerprints:
            mine = self.fingerprints = dict(self.fingerprints or {})
            for fingerprint, number in inner.fingerprints.items():
                mine[fingerprint] = mine.get(fingerprint, 0) + number
