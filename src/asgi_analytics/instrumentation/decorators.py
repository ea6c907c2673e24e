"""Capture by hand: what the middleware and the instrumented drivers do not see, function by function.

The decorators stay out of the way: signature, identity, return values, exceptions and what may be sent or thrown into a
generator are those of the function. What is called is judged by what it is: a coroutine function is observed while it
is awaited, a generator from its first step to its last. What is no client, or no function, is refused when it is
decorated, not when it is called.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, TypeVar

from asgi_analytics.client import checked_client
from asgi_analytics.context import RequestContext, current, suppressed
from asgi_analytics.errors import ConfigError
from asgi_analytics.events.captured import ApiRequest, DatabaseQuery
from asgi_analytics.exceptions import error_type
from asgi_analytics.instrumentation.observed import Call, observed
from asgi_analytics.instrumentation.outcomes import query_outcome, request_outcome, sqlstate_of
from asgi_analytics.instrumentation.queries.statement import fingerprint_of
from asgi_analytics.instrumentation.types import METHODS

if TYPE_CHECKING:
    from asgi_analytics.client import AnalyticsClient

F = TypeVar("F", bound=Callable[..., Any])


def capture_request(client: AnalyticsClient, endpoint: str | None = None) -> Callable[[F], F]:
    """Capture each call as an `ApiRequest`; below the middleware only name its endpoint.

    Below the middleware, or another ``capture_request``, there is no second event: ``endpoint`` becomes the endpoint
    of the one there is, and without a name the route's template stays. Alone the method is that of a request (or an
    ASGI scope) among the arguments, else ``_OTHER``; the status that of the returned response, else 200, 500 when it
    raised, 499 when it was cancelled; the endpoint ``endpoint``, else the function's qualified name.
    """
    checked_client(client)
    if endpoint is not None and not isinstance(endpoint, str):
        raise ConfigError(f"endpoint is a {type(endpoint).__name__}: use a str")
    return observed(lambda function, args, kwargs: _RequestCall.of(client, endpoint, function, args, kwargs))


def capture_query(client: AnalyticsClient, query_type: str, table: str | None = None) -> Callable[[F], F]:
    """Capture each call as a `DatabaseQuery`, for drivers that are not instrumented.

    The call counts in its request like any query. ``rows_affected`` is the ``rowcount`` of a returned DB-API cursor;
    of a generator the time counts that it spends itself, not its consumer's.
    """
    checked_client(client)
    if not isinstance(query_type, str) or not query_type.strip():
        raise ConfigError(f"query_type is {query_type!r}: use the kind of query, 'SELECT'")
    kind = query_type.upper()
    return observed(lambda function, args, kwargs: _QueryCall.of(client, kind, table, function))


def capture_errors(client: AnalyticsClient) -> Callable[[F], F]:
    """Report each exception that leaves the function as an `ApplicationError`, and let it go on.

    One exception object is one event, however many layers report it, the middleware among them. Cancellation, the end
    of an iteration and the end of the program are no errors.
    """
    checked_client(client)
    return observed(lambda function, args, kwargs: _ErrorCall(client))


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
        cls, client: AnalyticsClient, endpoint: str | None, function: Any, args: Any, kwargs: Any
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
            self._track(500, "error", error_type(error))
        else:
            self._track(499, outcome, None)

    def _track(self, status: int, outcome: str, error_type: str | None) -> None:
        request = self.request
        queries = request.queries
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
    def __init__(self, client: AnalyticsClient, query_type: str, table: str | None, fingerprint: str) -> None:
        self._client = client
        self._query_type = query_type
        self._table = table
        self._fingerprint = fingerprint
        self._duration = 0
        self._entered = 0

    @classmethod
    def of(cls, client: AnalyticsClient, query_type: str, table: str | None, function: Any) -> _QueryCall | None:
        request = current.get()
        if suppressed.get() or (request is not None and request.excluded):
            return None
        fingerprint = fingerprint_of(f"{query_type} {table or ''} {_name_of(function)}")
        if request is not None:
            request.count_query(fingerprint)
        return cls(client, query_type, table, fingerprint)

    def entered(self) -> None:
        self._entered = perf_counter_ns()

    def left(self) -> None:
        duration = (perf_counter_ns() - self._entered) // 1000
        self._duration += duration
        request = current.get()
        if request is not None:
            request.add_query_time(duration / 1000)

    def returned(self, result: Any) -> None:
        rows = getattr(result, "rowcount", None)
        self._track("ok", rows=rows if type(rows) is int and rows >= 0 else None)

    def raised(self, error: BaseException) -> None:
        self._track(query_outcome(error), error_type=error_type(error), sqlstate=sqlstate_of(error))

    def _track(
        self, outcome: str, *, rows: int | None = None, error_type: str | None = None, sqlstate: str | None = None
    ) -> None:
        request = current.get()
        self._client.intake.event(
            DatabaseQuery(
                query_type=self._query_type,
                table=self._table,
                fingerprint=self._fingerprint,
                duration_ms=self._duration / 1000,
                rows_affected=rows,
                outcome=outcome,
                error_type=error_type,
                sqlstate=sqlstate,
                endpoint=None if request is None else request.endpoint,
            )
        )


class _ErrorCall(Call):
    def __init__(self, client: AnalyticsClient) -> None:
        self._client = client

    def raised(self, error: BaseException) -> None:
        if isinstance(error, Exception) and not isinstance(error, StopIteration | StopAsyncIteration):
            self._client.intake.error(error)
