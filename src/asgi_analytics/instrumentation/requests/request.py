"""One request while it lives, and the record that is made of it when it ends."""

from __future__ import annotations

from time import perf_counter_ns, time_ns
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from opentelemetry.context import get_current

from asgi_analytics.context import NOT_SET, RequestContext, current, span_of
from asgi_analytics.encoding.ids import next_number, request_id_of
from asgi_analytics.encoding.records import RECORD_BYTES, extra_weight
from asgi_analytics.encoding.request_record import RequestRecord
from asgi_analytics.encoding.users import is_id
from asgi_analytics.exceptions import error_type, unwrapped
from asgi_analytics.instrumentation.outcomes import request_outcome
from asgi_analytics.instrumentation.page_views import asks_for_page
from asgi_analytics.instrumentation.requests.lookup import (
    REQUEST_ID,
    endpoint_of,
    request_id_in,
    session_of,
    storable_request_id,
    user_of,
)
from asgi_analytics.log import failure, log_problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.context import Context

    from asgi_analytics.encoding.caller import Caller
    from asgi_analytics.instrumentation.requests.plan import CapturePlan
    from asgi_analytics.instrumentation.types import Message, Receive, Scope, Send

REQUEST_KEY = "asgi_analytics.request"
"""Where the scope holds the request that is being captured, so that an inner middleware does not capture it again."""


class Exchange(NamedTuple):
    """What differs between HTTP and WebSocket."""

    note: Callable[[CapturedRequest, Message], None]
    """Take note of a message that was sent; must not raise."""
    answered: Callable[[CapturedRequest], int]
    """Return the status that the client got, and settle the outcome."""


class CapturedRequest(RequestContext):
    """What is known of one request. It stands in the context, so that ``set_user`` and the drivers can add to it.

    User, session and endpoint are looked up whenever an event asks for them, since authentication and routing may come
    late. Times are nanoseconds of `perf_counter_ns`.
    """

    # What few requests have.
    close_code: int | None = None
    # Whether a WebSocket was accepted, and whether its client has closed it.
    accepted = False
    client_left = False
    # The exception that was being handled when the response began.
    answering: BaseException | None = None
    # The exception that broke a response in its middle, if a layer above completes the response all the same.
    broken: BaseException | None = None
    # What the server's send() has raised.
    send_error: OSError | None = None
    # Whether the response can be a page, if page views are counted; None for a 304 that does not say.
    shows_html: bool | None = False
    _caller: Caller | None = None

    def __init__(
        self, plan: CapturePlan, scope: Scope, receive: Receive, send: Send, method: str, exchange: Exchange
    ) -> None:
        super().__init__(method)
        self.plan = plan
        self.scope: Scope | None = scope
        self.receive = receive
        self.server_send = send
        self._exchange = exchange
        self.status: int | None = None
        self.response_bytes: int | None = 0
        # Whether the response ends with trailers in place of its body.
        self.has_trailers = False
        self.outcome = "ok"
        self.error_type: str | None = None
        # The trace in which the response began.
        self.trace: Context | None = None
        # The framework's own request object, or what its hook has learnt.
        self.framework_state: Any = None
        # The same request as another client's middleware captures it.
        self.outer: CapturedRequest | None = None
        # The number of its event, once it is needed.
        self._number: int | None = None
        # From the start to the response's; and the clock when all was sent.
        self.ttfb: int | None = None
        self.ended: int | None = None
        self.started = perf_counter_ns()

    # -- who asks

    @property
    def user_id(self) -> UUID | str | int | None:
        """Who asks: what ``set_user`` said, else what can be looked up."""
        user_id, scope = self._user_id, self.scope
        if user_id is NOT_SET:
            if scope is None or not (self.plan.knows_users or "user" in scope):
                return None
            self._user_id = None  # meanwhile: a callable may track events itself
            try:
                return user_of(self.plan, scope, self.framework_state)
            finally:
                self._user_id = NOT_SET
        return user_id  # type: ignore[no-any-return]

    @user_id.setter
    def user_id(self, value: UUID | str | int | None) -> None:
        if value is not None and not is_id(value):
            log_problem("set_user", "set_user() takes a UUID, a str or an int, not a %s", type(value).__name__)
            return
        self._user_id = value
        if self.outer is not None:
            self.outer.user_id = value

    @property
    def session_id(self) -> str | None:
        """The session: what ``set_session`` said, else what the middleware's callable names."""
        if self._session_id is NOT_SET and self.plan.session_id is not None and self.scope is not None:
            self._session_id = None
            try:
                return session_of(self.plan, self.scope)
            finally:
                self._session_id = NOT_SET
        session_id = self._session_id
        if session_id is NOT_SET or session_id is None:
            return None
        return session_id if type(session_id) is str else str(session_id)

    @session_id.setter
    def session_id(self, value: str | None) -> None:
        self._session_id = value
        if self.outer is not None:
            self.outer.session_id = value

    @property
    def request_id(self) -> str | None:
        """The ``X-Request-ID`` of the request, else one that is made for it; None when the request has ended."""
        if self._request_id is None and self.scope is not None:
            self._request_id = request_id_in(self.scope)
            if self._request_id is None:
                self._number = next_number()
                self._request_id = request_id_of(self._number)
        return self._request_id

    @request_id.setter
    def request_id(self, value: str | None) -> None:
        self._request_id = value

    @property
    def endpoint(self) -> str | None:
        """The route template, as far as it is known now; a decorator's name for it wins."""
        if self._endpoint is not None or self.scope is None or not self.plan.knows_endpoints:
            return self._endpoint
        return endpoint_of(self.plan, self.scope, self.framework_state)

    @endpoint.setter
    def endpoint(self, value: str | None) -> None:
        self._endpoint = value
        if self.outer is not None:
            self.outer.endpoint = value

    @property
    def caller(self) -> Caller | None:
        """Who sent the request; None unless page views are counted, and for a WebSocket connection."""
        if self._caller is None and self.plan.page_views is not None and self.scope is not None:
            if self.method == "WEBSOCKET":
                return None
            self._caller = self.plan.page_views.caller(self.scope, dict(self.scope["headers"]), self.plan.intake.now())
        return self._caller

    # -- what the application and the server say to each other

    async def send(self, message: Message) -> None:
        """Pass a message on, and take note of it when it is sent."""
        try:
            await self.server_send(message)
        except Exception as error:
            if isinstance(error, OSError) and self.is_running:
                self.send_error = error
            raise
        except BaseException:  # cancelled: the server has been handed the message
            if self.is_running:
                self._exchange.note(self, message)
            raise
        if self.is_running:
            self._exchange.note(self, message)

    def failed(self, exc: BaseException) -> None:
        """Take note of an exception that leaves the application, or that a framework answers; never raises.

        After the response it is not the request's any more: a background task has raised.
        """
        try:
            is_answered = exc is self.answering or exc is self.broken or (self.status or 0) >= 500
            # A WebSocket connection is never over while the application runs, whose errors are the connection's.
            is_over = self.ended is not None and self.method != "WEBSOCKET"
            exc = unwrapped(exc)
            for framework in self.plan.frameworks:
                exc = unwrapped(framework.unwrap(exc))
            outcome = request_outcome(exc, self.send_error)
            if not is_over or is_answered:
                self.outcome = outcome
                self.error_type = error_type(exc) if outcome == "error" else None
                if outcome != "error" and is_over:
                    # An error handler has answered, but the client had left.
                    self.status = self.ttfb = self.response_bytes = None
            if outcome == "error" and self.plan.capture_errors:
                self.plan.intake.error(exc)
        except Exception as error:
            log_problem("failed", "an exception was not captured: %s", failure(error))

    # -- the end

    def finish(self) -> None:
        """Track the request's event, and let go of the application's objects: contexts may outlive the request."""
        scope, outer = self.scope, self.outer
        if scope is None:
            return
        try:
            user_id, session_id = self.user_id, self.session_id
            # Events that are tracked later, in tasks that the request has started, still say who asked.
            self._user_id, self._session_id = user_id, session_id
            if not self.excluded:
                # A page's headers are looked at several times, any other request's at most once.
                headers = None if self.shows_html is False else dict(scope["headers"])
                record = self._record(scope, user_id, session_id, headers)
                if headers is not None:
                    self._record_page_view(scope, headers, record)
                self.plan.intake.record(record)
        except Exception as error:
            log_problem("finish", "a request was not captured: %s", failure(error))
        finally:
            if outer is None:
                scope.pop(REQUEST_KEY, None)
            else:
                scope[REQUEST_KEY] = outer
                if self.queries is not None:
                    outer.add_queries(self.queries)
            self.scope = self.framework_state = self.trace = self.outer = None
            if self.answering is not None or self.broken is not None or self.send_error is not None:
                self.answering = self.broken = self.send_error = None
            self.end()

    def _record(
        self,
        scope: Scope,
        user_id: UUID | str | int | None,
        session_id: str | None,
        headers: dict[bytes, bytes] | None,
    ) -> RequestRecord:
        ended = self.ended or perf_counter_ns()
        status = self._exchange.answered(self)
        trace = get_current()
        if trace or self.trace:
            # The span that is current now, else the one in which the response began.
            self.span = span_of(trace) or (span_of(self.trace) if self.trace else None)
        endpoint = self.endpoint
        # A UUID and the template of a route are in the usual weight.
        is_usual = (user_id is None or type(user_id) is UUID) and session_id is None and self.plan.endpoint is None
        weight = RECORD_BYTES if is_usual else RECORD_BYTES + extra_weight(user_id, session_id, endpoint)
        request_id = self._request_id
        if request_id is None:
            request_id = request_id_in(scope) if headers is None else storable_request_id(headers.get(REQUEST_ID, b""))
        queries = self.queries
        return RequestRecord(
            self.plan.intake.source,
            weight,
            time_ns(),
            next_number() if self._number is None else self._number,
            user_id,
            session_id,
            request_id,
            self.span,
            self.method or "_OTHER",
            endpoint,
            status,
            self.outcome,
            self.error_type,
            self.close_code,
            ended - self.started,
            self.ttfb,
            self.response_bytes,
            None if queries is None else queries.count,
            None if queries is None else round(queries.duration_ms, 3),
            None if queries is None else queries.repeats,
        )

    def _record_page_view(self, scope: Scope, headers: dict[bytes, bytes], request: RequestRecord) -> None:
        """Record that the request has shown a page, if its browser asked for one."""
        views, intake = self.plan.page_views, self.plan.intake
        try:
            if views is None or not asks_for_page(headers, self.shows_html):
                return
            caller = self._caller
            if caller is None:
                time = request.time if intake.has_own_clock else intake.now()
                caller = self._caller = views.caller(scope, headers, time)
            intake.record(views.record(scope, headers, request, caller))
        except Exception as error:
            log_problem("page view", "a page view was not captured: %s", failure(error))


def captured_request() -> CapturedRequest | None:
    """Return the request that is being captured here, for a hook of a framework; None outside of one."""
    request = current.get()
    return request if isinstance(request, CapturedRequest) and request.is_running else None
