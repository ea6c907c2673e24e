"""The JSON of an ``ApiRequest``, written at once: every request makes one, and most of it is the same each time.

`lines.py` has what it shares with the other captured events.
"""

from __future__ import annotations

import os
import secrets
from time import time_ns
from typing import TYPE_CHECKING

from asgi_analytics.instrumentation.identity import sent_request_id
from asgi_analytics.instrumentation.lines import COUNTER_TOP, MICROSECONDS, Lines, json_text, step

if TYPE_CHECKING:
    from asgi_analytics.instrumentation.request import CapturedRequest

_MOST_HEADS = 4096
_NO_TRACE = '},"context":{"trace_id":null,"span_id":null,"request_id":"'
# What ids of requests begin with in this process; the counter of the events' ids makes them unique.
_request_ids = [secrets.token_hex(10)]


def _reseed() -> None:
    _request_ids[0] = secrets.token_hex(10)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reseed)


def new_request_id() -> str:
    """Return an id for a request that came without one: 32 digits, unlike any other's."""
    return _request_ids[0] + hex(step[0]() | COUNTER_TOP)[3:]


class RequestLines(Lines):
    """Writes the lines of one service's requests."""

    event_type = "api_request"

    def __init__(self, service: str, hostname: str | None, environment: str | None) -> None:
        super().__init__(service, hostname, environment)
        # One for each route, method, status and outcome: few, unless a callable makes its endpoints up.
        self._heads: dict[tuple[object, ...], str] = {}

    def line(self, request: CapturedRequest, status: int, ended: int) -> bytes:
        """Return the event's JSON; its id and its time are minted here, as `events.identity.mint` does."""
        now = time_ns() // 1000
        millisecond, id_start, time_start = self.millisecond
        if millisecond != now // 1000:
            id_start, time_start = self.start(now // 1000)
        head = self._heads.get((request.template, status, request.method, request.outcome))
        if head is None:
            head = self._head(request.template, status, request.method, request.outcome)
        who, place = self.nobody, self.place
        if request.known_user is not None or request.known_session is not None:
            who, place = self.somebody(request.known_user, request.known_session)
        context = _NO_TRACE if request.trace_id is None else _trace(request)
        if request.db_queries or request.error_type is not None or request.close_code is not None:
            context = _rest(request) + context
        started, ttfb, size = request.started, request.ttfb, request.response_bytes
        number = hex(step[0]() | COUNTER_TOP)[3:]
        request_id = request._request_id
        if request_id is None:
            request_id = request._request_id = sent_request_id(request.scope) or _request_ids[0] + number
        if not request_id.isalnum():
            request_id = json_text(request_id)[1:-1]
        # One expression and no format specification, each of which would cost a tenth of the whole: numbers are cut
        # out of longer ones, and milliseconds are microseconds with an exponent.
        if ttfb is None or size is None:
            if ttfb is not None:
                context = f',"ttfb_ms":{ttfb // 1000}e-3{context}'
            if size is not None:
                context = f',"response_bytes":{size}{context}'
            return (
                f"{id_start}{number}{time_start}{MICROSECONDS[now % 1000]}{who}{head}"
                f"{(ended - started) // 1000}e-3{context}{request_id}{place}"
            ).encode()
        return (
            f"{id_start}{number}{time_start}{MICROSECONDS[now % 1000]}{who}{head}"
            f'{(ended - started) // 1000}e-3,"ttfb_ms":{ttfb // 1000}e-3,"response_bytes":{size}{context}'
            f"{request_id}{place}"
        ).encode()

    def _head(self, endpoint: str | None, status: int, method: str | None, outcome: str) -> str:
        text = f'"data":{{"method":{json_text(method)},"status_code":{status},"outcome":{json_text(outcome)}'
        if endpoint is not None:
            text += f',"endpoint":{json_text(endpoint)}'
        text += ',"duration_ms":'
        if len(self._heads) >= _MOST_HEADS:
            self._heads.clear()
        self._heads[endpoint, status, method, outcome] = text
        return text


def _trace(request: CapturedRequest) -> str:
    return f'}},"context":{{"trace_id":"{request.trace_id}","span_id":"{request.span_id}","request_id":"'


def _rest(request: CapturedRequest) -> str:
    """Return the members that few requests have."""
    text = ""
    if request.error_type is not None:
        text = f',"error_type":{json_text(request.error_type)}'
    if request.close_code is not None:
        text += f',"close_code":{request.close_code}'
    if request.db_queries:
        text += f',"db_queries":{request.db_queries},"db_duration_ms":{json_text(request.db_duration_ms)}'
        if (repeats := request.db_repeats()) is not None:
            text += f',"db_repeats":{repeats}'
    return text
