"""Capture by hand: what the middleware and the instrumented drivers do not see, function by function.

The decorators stay out of the way: signature, identity, return values, exceptions and what may be sent or thrown into a
generator are those of the function. How a call is observed depends on the function: a coroutine function while it is
awaited, a generator from its first step to its last. A wrong client, or what is not a function, is refused at
decoration, not at the call.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, TypeVar

from asgi_analytics.client import checked_client
from asgi_analytics.context import RequestContext, current
from asgi_analytics.errors import ConfigError
from asgi_analytics.events.captured import ApiRequest
from asgi_analytics.exceptions import error_type, unwrapped
from asgi_analytics.instrumentation.outcomes import request_outcome
from asgi_analytics.instrumentation.queries.recorder import QueryRecorder
from asgi_analytics.instrumentation.queries.statement import Statement, fingerprint_of
from asgi_analytics.instrumentation.types import METHODS
from asgi_analytics.observed import Call, observed

if TYPE_CHECKING:
    from asgi_analytics.client import AnalyticsClient

F = TypeVar("F", bound=Callable[..., Any])


def capture_request(client: AnalyticsClient, endpoint: str | None = None) -> Callable[[F], F]:
    """Capture each call as an `ApiRequest`; below the middleware, only name its endpoint.

    Below the middleware, or another ``capture_request``, there is no second event: ``endpoint`` becomes the endpoint
    of the existing one, and without a name the route's template stays. Otherwise the method is that of a request (or
    an ASGI scope) among the arguments, or ``_OTHER``; the endpoint is ``endpoint``, or the function's qualified name;
    the status is that of the returned response, or 200. A call that raises has status 500; if it was cancelled, or
    raised because the client has left, 499, as under the middleware.

    Raises `ConfigError` for a wrong client or endpoint.
    """
    checked_client(client)
    if endpoint is not None and not isinstance(endpoint, str):
        raise ConfigError(f"endpoint is a {type(endpoint).__name__}: use a str")
    return observed(
        "a request", lambda function, args, kwargs: _RequestCall.of(client, endpoint, function, args, kwargs)
    )


def capture_query(client: AnalyticsClient, query_type: str, table: str | None = None) -> Callable[[F], F]:
    """Capture each call as a `DatabaseQuery`, for drivers that are not instrumented.

    The call counts in its request like any query. ``rows_affected`` is the ``rowcount`` of a returned DB-API cursor.
    The time of a generator is what it spends itself, without its consumer's.

    Raises `ConfigError` for a wrong client or query type.
    """
    if not isinstance(query_type, str) or not query_type.strip():
        raise ConfigError(f"query_type is {query_type!r}: use the kind of query, 'SELECT'")
    recorder = QueryRecorder(client, slow_ms=None, sample_rate=1.0, capture_statement=False)
    statement = Statement("", "", query_type.upper(), table, is_control=False, is_read=False)
    return observed("a query", lambda function, args, kwargs: _QueryCall.of(recorder, statement, function))


def capture_errors(client: AnalyticsClient) -> Callable[[F], F]:
    """Report each exception that leaves the function as an `ApplicationError`, and let it propagate.

    One exception object is one event, however many layers report it, the middleware among them. Cancellation, the end
    of an iteration and the end of the program are not errors.

    Raises `ConfigError` for a wrong client.
    """
    checked_client(client)
    return observed("an error", lambda function, args, kwargs: _ErrorCall(client))


class _RequestCall(Call):
    request: RequestContext

    def __init__(self, client: AnalyticsClient, endpoint: str, method: str, ambient: RequestContext | None) -> None:
        self._client = client
        self._is_websocket = method == "WEBSOCKET"
        self.request = request = RequestContext(method)
        request.endpoint = endpoint
        if ambient is not None:
            request.user_id, request.session_id = ambient.user_id, ambient.session_id
        self._started = perf_counter_ns()

    @classmethod
    def of(
        cls,
        client: AnalyticsClient,
        endpoint: str | None,
        function: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> _RequestCall | None:
        request = current.get()
        if request is not None and request.is_running:
            if endpoint is not None:
                request.endpoint = endpoint
            return None
        return cls(client, endpoint or _name_of(function), _method_among(args, kwargs), request)

    def returned(self, result: Any) -> None:
        status = getattr(result, "status_code", None)
        if not isinstance(status, int) or isinstance(status, bool):
            status = 101 if self._is_websocket else 200
        self._track(status, "ok", None)

    def raised(self, error: BaseException) -> None:
        outcome = request_outcome(error)
        if outcome == "error":
            self._track(500, "error", error_type(unwrapped(error)))
        else:
            self._track(499, outcome, None)

    def _track(self, status: int, outcome: str, error_type: str | None) -> None:
        request = self.request
        queries = request.queries
        try:
            self._client.intake.event(
                ApiRequest(
                    method=request.method or "_OTHER",
                    endpoint=request.endpoint,
                    status_code=status,
                    duration_ms=(perf_counter_ns() - self._started) // 1000 / 1000,
                    outcome=outcome,
                    error_type=error_type,
                    db_queries=None if queries is None else queries.count,
                    db_duration_ms=None if queries is None else round(queries.duration_ms, 3),
                    db_repeats=None if queries is None else queries.repeats,
                )
            )
        finally:
            request.end()


def _name_of(function: Any) -> str:
    """Return the qualified name of a function, of what a partial calls, or of the class of a callable object."""
    while isinstance(function, partial):
        function = function.func
    return getattr(function, "__qualname__", None) or type(function).__qualname__


def _method_among(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Return the method of the first argument that looks like a request, a connection or an ASGI scope."""
    for argument in (*args, *kwargs.values()):
        scope = argument if type(argument) is dict else getattr(argument, "scope", None)
        if isinstance(scope, dict) and scope.get("type") == "websocket":
            return "WEBSOCKET"
        method = scope.get("method") if isinstance(scope, dict) else getattr(argument, "method", None)
        if isinstance(method, str) and method.upper() in METHODS:
            return method.upper()
    return "_OTHER"


class _QueryCall(Call):
    def __init__(self, recorder: QueryRecorder, statement: Statement) -> None:
        self._recorder = recorder
        self._statement = statement
        self._duration = 0
        self._entered = 0
        recorder.begin(statement)

    @classmethod
    def of(cls, recorder: QueryRecorder, statement: Statement, function: Any) -> _QueryCall | None:
        if not recorder.is_watching():
            return None
        key = f"{statement.query_type} {statement.table or ''} {_name_of(function)}"
        return cls(recorder, statement._replace(fingerprint=fingerprint_of(key)))

    def entered(self) -> None:
        self._entered = perf_counter_ns()

    def left(self) -> None:
        duration = (perf_counter_ns() - self._entered) // 1000
        self._duration += duration
        self._recorder.spend(duration)

    def returned(self, result: Any) -> None:
        rows = getattr(result, "rowcount", None)
        self._recorder.end(self._statement, self._duration, rows if type(rows) is int and rows >= 0 else None)

    def raised(self, error: BaseException) -> None:
        self._recorder.end(self._statement, self._duration, None, error)


class _ErrorCall(Call):
    def __init__(self, client: AnalyticsClient) -> None:
        self._client = client

    def raised(self, error: BaseException) -> None:
        if isinstance(error, Exception) and not isinstance(error, StopIteration | StopAsyncIteration):
            self._client.intake.error(error)
