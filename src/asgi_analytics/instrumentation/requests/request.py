"""One request while it lives, and the record that is made of it when it ends."""

from __future__ import annotations

from time import perf_counter_ns, time_ns
from typing import TYPE_CHECKING, Any
from uuid import UUID

from asgi_analytics.context import otel_context, span_of
from asgi_analytics.encoding.ids import id_of, next_number
from asgi_analytics.encoding.records import LONGEST_NAME, RECORD_BYTES, fits
from asgi_analytics.encoding.request_record import rest_of
from asgi_analytics.events.captured import ApiRequest
from asgi_analytics.exceptions import error_type, unwrapped
from asgi_analytics.instrumentation.outcomes import outcome_of
from asgi_analytics.instrumentation.requests.identified import IdentifiedRequest
from asgi_analytics.instrumentation.requests.identity import acceptable_request_id
from asgi_analytics.log import failure, log_problem
from asgi_analytics.pipeline.fields import UNSAID
from asgi_analytics.pipeline.queue import MOST_RECORDS_BYTES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from opentelemetry.context import Context

    from asgi_analytics.instrumentation.requests.plan import CaptureSettings

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

REQUEST_KEY = "asgi_analytics.request"
"""Where the scope holds the request that is being captured, so that an inner middleware does not capture it again."""

_NO_SPAN = (None, None)


class CapturedRequest(IdentifiedRequest):
    """What is known of one request. It stands in the context, so that ``set_user`` and the drivers can add to it.

    Times are nanoseconds of `perf_counter_ns`.
    """

    __slots__ = ()

    def __init__(
        self, settings: CaptureSettings, scope: Any, receive: Receive, send: Send, started: int, method: str
    ) -> None:
        # With what the bases have, in place of their calls: every request comes through here.
        self.ordinary = True
        self.excluded = False
        self.method = method
        self.span = None
        self._user_id = UNSAID
        self._session_id = UNSAID
        self._request_id = None
        self._endpoint = None
        self.db_queries = 0
        self.db_duration_ms = 0.0
        self.fingerprints = None
        self.seen_errors = None
        self.settings = settings
        self.scope = scope
        self._number = None
        self.native = None
        self.outer = None

        self._receive = receive
        self._send = send
        self.started = started
        # The exception that was being handled when the response began.
        self.answering: BaseException | None = None
        self.send_error: OSError | None = None
        self.error_type: str | None = None
        self.outcome: str = "ok"
        self.status: int | None = None
        self.response_bytes: int | None = 0
        self.close_code: int | None = None
        # Whether the response ends with trailers in place of its body.
        self.has_trailers: bool = False
        # What was the trace when the response began.
        self.trace: Context | None = None
        # From the start to the response's; and the clock when all was sent.
        self.ttfb: int | None = None
        self.ended: int | None = None

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
        for framework in self.settings.frameworks:
            exc = unwrapped(framework.original(exc))
        if not self.is_complete() or is_answered:
            self.outcome = outcome
            self.ordinary = False
            self.error_type = error_type(exc) if outcome == "error" else None
            if outcome != "error" and self.is_complete():
                # An error handler has answered, but there was nobody left to hear it.
                self.status = self.ttfb = self.response_bytes = None
        if outcome == "error" and self.settings.capture_errors:
            self.settings.client.track_unhandled(exc)

    def finish(self) -> None:
        """Track the request's event, and let go of the application's objects: contexts may outlive the request."""
        # Every request comes through here once, and each step costs it a hundredth of a microsecond.
        settings, scope, known = self.settings, self.scope, None
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
                and settings.asks_little
            ):
                known = settings.alone.get(id(scope.get("route")), settings.unrouted)
            if known is None or "app_root_path" in scope:
                if (facts := self._facts()) is None:
                    return
                template, status, ended, user_id, session_id, rest, weight = facts
            else:
                self._endpoint = template = known[1]
                status, ended, rest, weight = self.status, self.ended, "", RECORD_BYTES
                user_id = session_id = None
                if settings.user_id is not None or "user" in scope:
                    user_id = self._user_id = self._find_user(scope)
                    if type(user_id) is not UUID and not fits(user_id):
                        settings.client.track_captured(self._event(status, ended))
                        return
            trace_id, span_id = self.span or _NO_SPAN
            if (request_id := self._request_id) is None:  # what sent_request_id() does, without its calls
                for name, sent in scope.get("headers") or ():
                    if name == b"x-request-id":
                        request_id = self._request_id = acceptable_request_id(sent)
            now = time_ns()
            self._number = number = next_number()
            record = (
                settings.writer, weight, now, id_of(now, 0), number, template, status, self.method, self.outcome,
                self.started, ended, self.ttfb, self.response_bytes, rest, user_id, session_id, trace_id, span_id,
                request_id,
            )  # fmt: skip
            if not settings.queue.put(record, weight, True):
                settings.client.refuse_captured(weight)
        except Exception as error:
            log_problem("finish", "a request was not captured: %s", failure(error))
        finally:
            self.scope = None
            if self.outer is None:
                scope.pop(REQUEST_KEY, None)
            else:
                scope[REQUEST_KEY] = self.outer
            if not self.ordinary:
                self._let_go()

    def _let_go(self) -> None:
        self.native = self.answering = self.send_error = self.seen_errors = None
        if self.outer is not None:
            self.outer.add_queries(self)
            self.outer = None

    def receiver(self) -> Receive:
        """Return what the application is to receive by: what the server gave, where there is nothing to see."""
        return self._receive

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
        settings, scope = self.settings, self.scope
        ended = self.ended or perf_counter_ns()
        status = self.answered()
        # From here on they are what they are now. Nobody is asked who cannot know.
        user_id = session_id = template = None
        if self._endpoint is not None or scope is None:
            template = self._endpoint
        elif settings.knows_endpoints:
            template = self._find_endpoint(scope)
        if self._user_id is not UNSAID or settings.knows_users or (scope is not None and "user" in scope):
            user_id = self._user_id = self.user_id
        if self._session_id is not UNSAID or settings.session_id is not None:
            session_id = self._session_id = self.session_id
        self._endpoint = template
        rest, weight = "", RECORD_BYTES
        if self.db_queries or self.error_type is not None or self.close_code is not None:
            rest = rest_of(self.error_type, self.close_code, self.db_queries, self.db_duration_ms, self.db_repeats())
            weight += len(rest)
        if (
            settings.lines is None
            or weight > MOST_RECORDS_BYTES
            or not fits(user_id)
            or any(name is not None and len(name) > LONGEST_NAME for name in (template, session_id))
        ):
            settings.client.track_captured(self._event(status, ended))
            return None
        return template, status, ended, user_id, session_id, rest, weight

    def _event(self, status: Any, ended: Any) -> ApiRequest:
        queries = self.db_queries
        return ApiRequest(
            method=self.method or "_OTHER",
            endpoint=self._endpoint,
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
