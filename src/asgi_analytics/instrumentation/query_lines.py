"""The JSON of a ``DatabaseQuery`` that went well, written at once: most of it is the same for each run of a statement.

`lines.py` has what it shares with the other captured events.
"""

from __future__ import annotations

from functools import lru_cache
from time import time_ns
from typing import TYPE_CHECKING

from opentelemetry.context import get_current as otel_context
from opentelemetry.trace import format_span_id, format_trace_id, get_current_span

from asgi_analytics.instrumentation.lines import COUNTER_TOP, MICROSECONDS, Lines, json_text, step

if TYPE_CHECKING:
    from asgi_analytics._context import RequestContext

_END = ',"outcome":"ok"},"context":{"trace_id":null,"span_id":null,"request_id":"'


class QueryLines(Lines):
    """Writes the lines of one service's queries."""

    event_type = "database_query"

    def __init__(self, service: str, hostname: str | None, environment: str | None) -> None:
        super().__init__(service, hostname, environment)
        self._unrequested = _END[:-1] + "null" + self.place[1:]

    def line(self, data: str, duration: int, rows: int | None, request: RequestContext | None) -> bytes:
        """Return the event's JSON: ``data`` as `Statement` has it, microseconds, rows, and the request around it.

        Its id and its time are minted here, as `events.identity.mint` does.
        """
        now = time_ns() // 1000
        millisecond, id_start, time_start = self.millisecond
        if millisecond != now // 1000:
            id_start, time_start = self.start(now // 1000)
        who, end = self.nobody, self._unrequested
        trace = otel_context()
        if trace or request is not None:
            who, end = self._around(request)
        affected = "" if rows is None else f',"rows_affected":{rows}'
        # One expression and no format specification: numbers are cut out of longer ones, and milliseconds are
        # microseconds with an exponent.
        return (
            f"{id_start}{hex(step[0]() | COUNTER_TOP)[3:]}{time_start}{MICROSECONDS[now % 1000]}{who}"
            f'"data":{{{data},"duration_ms":{duration}e-3{affected}{end}'
        ).encode()

    def _around(self, request: RequestContext | None) -> tuple[str, str]:
        """Return who asked, and how the line ends."""
        trace_id = span_id = request_id = endpoint = None
        who, place = self.nobody, self.place
        if request is not None:
            trace_id, span_id, request_id = request.trace_id, request.span_id, request.request_id
            user_id, session_id, endpoint = request.user_id, request.session_id, request.endpoint
            if user_id is not None or session_id is not None:
                who, place = self.somebody(user_id, session_id)
        if trace := otel_context():
            span = get_current_span(trace).get_span_context()
            if span.is_valid:
                trace_id, span_id = format_trace_id(span.trace_id), format_span_id(span.span_id)
        end = _END
        if trace_id is not None:
            end = f',"outcome":"ok"}},"context":{{"trace_id":"{trace_id}","span_id":{json_text(span_id)},"request_id":"'
        if endpoint is not None:
            end = f',"endpoint":{_text(endpoint)}{end}'
        if request_id is None:
            return who, f"{end[:-1]}null{place[1:]}"
        return who, f"{end}{request_id if request_id.isalnum() else json_text(request_id)[1:-1]}{place}"


@lru_cache(maxsize=4096)
def _text(endpoint: str) -> str:
    return json_text(endpoint)
