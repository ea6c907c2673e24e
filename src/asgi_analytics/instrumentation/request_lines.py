"""The JSON of an ``ApiRequest``, written at once: every request makes one, and most of it is the same each time.

It is what an `EventEncoder` makes of the event, at a third of the cost; a test compares the two.
"""

from __future__ import annotations

import os
import secrets
from datetime import UTC, datetime
from functools import lru_cache
from time import time_ns
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from asgi_analytics.events.identity import clean_text, mint_names, user_uuid
from asgi_analytics.instrumentation.identity import sent_request_id

if TYPE_CHECKING:
    from asgi_analytics.instrumentation.request import CapturedRequest

_MOST_HEADS = 4096
_COUNTER_TOP = 1 << 48
_NOBODY = ("null", "")
_NO_TRACE = '},"context":{"trace_id":null,"span_id":null,"request_id":"'
_MICROSECONDS = [f"{number:03d}" for number in range(1000)]

# Shared by all that mint, and seeded anew in place after a fork.
_names = mint_names()
_last, _base, _fixed, _step = _names["last"], _names["base"], _names["fixed"], _names["step"]


# What ids of requests begin with in this process; the counter of the events' ids makes them unique.
_request_ids = [secrets.token_hex(10)]


def _reseed() -> None:
    _request_ids[0] = secrets.token_hex(10)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reseed)


def new_request_id() -> str:
    """Return an id for a request that came without one: 32 digits, unlike any other's."""
    return _request_ids[0] + hex(_step[0]() | _COUNTER_TOP)[3:]


def _json(value: object) -> str:
    return msgspec.json.encode(clean_text(value) if isinstance(value, str) else value).decode()


@lru_cache(maxsize=4096, typed=True)
def _user(user_id: object) -> tuple[str, str]:
    """Return the JSON of the column ``user_id``, and of the member of the context that holds the original."""
    user, key = user_uuid(user_id)
    return f'"{user}"', "" if key is None else f',"user_key":{_json(key)}'


class RequestLines:
    """Writes the lines of one service's requests."""

    def __init__(self, service: str, hostname: str | None, environment: str | None) -> None:
        self._service = f'Z","service":{_json(service)},"user_id":'
        self._nobody = f'{self._service}null,"session_id":null,'
        self._place = f'","hostname":{_json(hostname)},"environment":{_json(environment)}}}}}'
        # One for each route, method, status and outcome: few, unless a callable makes its endpoints up.
        self._heads: dict[tuple[object, ...], str] = {}
        # What is the same for a millisecond; replaced at once, for all threads.
        self._millisecond: tuple[int, str, str] = (-1, "", "")

    def line(self, request: CapturedRequest, status: int, ended: int) -> bytes:
        """Return the event's JSON; its id and its time are minted here, as `events.identity.mint` does."""
        now = time_ns() // 1000
        millisecond, id_start, time_start = self._millisecond
        if millisecond != now // 1000:
            id_start, time_start = self._start(now // 1000)
        head = self._heads.get((request.template, status, request.method, request.outcome))
        if head is None:
            head = self._head(request.template, status, request.method, request.outcome)
        who, place = self._nobody, self._place
        if request.known_user is not None or request.known_session is not None:
            who, place = self._somebody(request.known_user, request.known_session)
        context = _NO_TRACE if request.trace_id is None else _trace(request)
        if request.db_queries or request.error_type is not None or request.close_code is not None:
            context = _rest(request) + context
        started, ttfb, size = request.started, request.ttfb, request.response_bytes
        number = hex(_step[0]() | _COUNTER_TOP)[3:]
        request_id = request._request_id
        if request_id is None:
            request_id = request._request_id = sent_request_id(request.scope) or _request_ids[0] + number
        if not request_id.isalnum():
            request_id = _json(request_id)[1:-1]
        # One expression and no format specification, each of which would cost a tenth of the whole: numbers are cut
        # out of longer ones, and milliseconds are microseconds with an exponent.
        if ttfb is None or size is None:
            if ttfb is not None:
                context = f',"ttfb_ms":{ttfb // 1000}e-3{context}'
            if size is not None:
                context = f',"response_bytes":{size}{context}'
            return (
                f"{id_start}{number}{time_start}{_MICROSECONDS[now % 1000]}{who}{head}"
                f"{(ended - started) // 1000}e-3{context}{request_id}{place}"
            ).encode()
        return (
            f"{id_start}{number}{time_start}{_MICROSECONDS[now % 1000]}{who}{head}"
            f'{(ended - started) // 1000}e-3,"ttfb_ms":{ttfb // 1000}e-3,"response_bytes":{size}{context}'
            f"{request_id}{place}"
        ).encode()

    def _somebody(self, user_id: object, session_id: str | None) -> tuple[str, str]:
        user, user_key = _NOBODY if user_id is None else _user(user_id)
        session = "null" if session_id is None else _json(session_id)
        return f'{self._service}{user},"session_id":{session},', f"{self._place[:-2]}{user_key}}}}}"

    def _start(self, millisecond: int) -> tuple[str, str]:
        """Return how lines begin in this millisecond: before the id's counter, and from there to the microseconds."""
        if millisecond > _last[0]:
            _last[0] = millisecond
            _base[0] = millisecond << 80 | _fixed[0]
        id_start = f'{{"event_id":"{str(UUID(int=_base[0]))[:-12]}'
        instant = datetime.fromtimestamp(millisecond // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        time_start = f'","event_type":"api_request","timestamp":"{instant}.{millisecond % 1000:03d}'
        self._millisecond = (millisecond, id_start, time_start)
        return id_start, time_start

    def _head(self, endpoint: str | None, status: int, method: str | None, outcome: str) -> str:
        text = f'"data":{{"method":{_json(method)},"status_code":{status},"outcome":{_json(outcome)}'
        if endpoint is not None:
            text += f',"endpoint":{_json(endpoint)}'
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
        text = f',"error_type":{_json(request.error_type)}'
    if request.close_code is not None:
        text += f',"close_code":{request.close_code}'
    if request.db_queries:
        text += f',"db_queries":{request.db_queries},"db_duration_ms":{_json(request.db_duration_ms)}'
        if (repeats := request.db_repeats()) is not None:
            text += f',"db_repeats":{repeats}'
    return text
