"""The JSON of an ``ApiRequest``, written at once: every request makes one, and most of it is the same each time.

`lines.py` has what it shares with the other captured events.
"""

from __future__ import annotations

from typing import Any

from asgi_analytics.encoding.records import Lines, json_text
from asgi_analytics.instrumentation.requests.identity import made_request_id

_MOST_HEADS = 4096
_NO_TRACE = '},"context":{"trace_id":null,"span_id":null,"request_id":"'


class RequestLines(Lines):
    """Writes the lines of one service's requests."""

    event_type = "api_request"

    def __init__(self, service: str, hostname: str | None, environment: str | None) -> None:
        super().__init__(service, hostname, environment)
        # One for each route, method, status and outcome: few, unless a callable makes its endpoints up.
        self.heads: dict[tuple[object, ...], str] = {}

    def line(self, record: tuple[Any, ...]) -> bytes:
        """Return the event's JSON; `CapturedRequest` makes the record."""
        (
            _, _, now, base, number, endpoint, status, method, outcome, started, ended, ttfb, size, rest, user_id,
            session_id, trace_id, span_id, request_id,
        ) = record  # fmt: skip
        head = self.heads.get((endpoint, status, method, outcome)) or self.head(endpoint, status, method, outcome)
        who, place = self.nobody, self.place
        if user_id is not None or session_id is not None:
            who, place = self.somebody(user_id, session_id)
        context = rest + (_NO_TRACE if trace_id is None else _trace(trace_id, span_id))
        if size is not None:
            context = f',"response_bytes":{size}{context}'
        if ttfb is not None:
            context = f',"ttfb_ms":{ttfb // 1000}e-3{context}'
        if request_id is None:
            request_id = made_request_id(number)
        elif not request_id.isalnum():
            request_id = json_text(request_id)[1:-1]
        # No format specification, each of which would cost a tenth of the whole: milliseconds are microseconds with
        # an exponent.
        return (
            f"{self.start(now, base, number)}{who}{head}{(ended - started) // 1000}e-3{context}{request_id}{place}"
        ).encode()

    def head(self, endpoint: str | None, status: int, method: str | None, outcome: str) -> str:
        """Return what stands between the user and the duration, and remember it."""
        text = f'"data":{{"method":{json_text(method)},"status_code":{int(status)},"outcome":{json_text(outcome)}'
        if endpoint is not None:
            text += f',"endpoint":{json_text(endpoint)}'
        text += ',"duration_ms":'
        if len(self.heads) >= _MOST_HEADS:
            self.heads.clear()
        self.heads[endpoint, status, method, outcome] = text
        return text


def _trace(trace_id: int, span_id: int) -> str:
    return f'}},"context":{{"trace_id":"{trace_id:032x}","span_id":"{span_id:016x}","request_id":"'


def rest_of(
    error_type: str | None, close_code: int | None, queries: int, db_duration_ms: float, db_repeats: int | None
) -> str:
    """Return the members that few requests have."""
    text = ""
    if error_type is not None:
        text = f',"error_type":{json_text(error_type)}'
    if close_code is not None:
        text += f',"close_code":{close_code}'
    if queries:
        text += f',"db_queries":{queries},"db_duration_ms":{json_text(db_duration_ms)}'
        if db_repeats is not None:
            text += f',"db_repeats":{db_repeats}'
    return text
