"""The line of a query's record is what the encoder makes of its event, for every user, session, trace and text."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from asgi_analytics.context import RequestContext, current
from asgi_analytics.events import EnrichedEvent
from asgi_analytics.instrumentation.queries.recorder import QueryRecorder
from asgi_analytics.instrumentation.queries.statement import normalise
from asgi_analytics.testing import CapturedEvents, capture_events

USER = UUID("0198a5b2-0000-7000-8000-000000000001")

REQUESTS: dict[str, dict[str, Any] | None] = {
    "no request": None,
    "an unknown one": {},
    "a template": {"endpoint": '/t/{id}/"ü"', "request_id": "ab12"},
    "a user": {"user_id": USER, "request_id": "ab12"},
    "a mapped user": {"user_id": "ada", "session_id": 's"1'},
    "a number": {"user_id": 42},
    "a session": {"session_id": "s-1"},
    "a trace": {"span": (1, 2)},
    "an id of some client": {"request_id": 'a"b\\c'},  # the middleware lets printable ones through
    "no user id at all": {"user_id": 1.5},
}
STATEMENTS = [
    "SELECT 1",
    'SELECT "ü""\n\\" FROM t WHERE a = \'secret\'',
    "INSERT INTO t VALUES ($1)",
    "SELECT \ud800\x00",
]


@pytest.fixture
def request_of() -> Iterator[Any]:
    token = current.set(None)

    def make(facts: dict[str, Any] | None) -> None:
        if facts is not None:
            request = RequestContext()
            for name, value in facts.items():
                setattr(request, name, value)
            current.set(request)

    yield make
    current.reset(token)


class DriverError(Exception):
    """Of a driver."""

    sqlstate = "42P01"


ERRORS = [None, ValueError("secret"), TimeoutError(), DriverError(), asyncio.CancelledError()]


def recorder_of(captured: CapturedEvents, *, capture_statement: bool = True) -> QueryRecorder:
    return QueryRecorder(captured.client, slow_ms=None, sample_rate=1.0, capture_statement=capture_statement)


def track(statement: str, rows: int | None, error: BaseException | None, **settings: Any) -> list[EnrichedEvent]:
    with capture_events(service='s"ü', environment="e", **settings) as captured:
        recorder_of(captured).end(normalise(statement), 1234, rows, error)
        return captured.events


def both(statement: str, rows: int | None, error: BaseException | None = None) -> tuple[list[Any], list[Any]]:
    """Return the event as its line has it, and as the encoder writes it: a before_track wants to see an object."""
    written = track(statement, rows, error)
    encoded = track(statement, rows, error, before_track=lambda event: event)
    assert not written or written[0].event_id < encoded[0].event_id
    assert not written or written[0].timestamp <= encoded[0].timestamp

    def facts(event: EnrichedEvent) -> tuple[Any, ...]:
        return event.event_type, event.service, event.user_id, event.session_id, dict(event.data), event.context

    return [facts(event) for event in written], [facts(event) for event in encoded]


@pytest.mark.parametrize("rows", [None, 0, 7])
@pytest.mark.parametrize("statement", STATEMENTS)
@pytest.mark.parametrize("name", REQUESTS)
def test_the_line_is_the_events(request_of: Any, name: str, statement: str, rows: int | None) -> None:
    request_of(REQUESTS[name])
    written, encoded = both(statement, rows)
    assert written == encoded
    assert len(written) == (name != "no user id at all")


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("name", REQUESTS)
def test_a_failed_query_has_the_line_of_its_event(request_of: Any, name: str, error: BaseException | None) -> None:
    request_of(REQUESTS[name])
    written, encoded = both("SELECT 1", None, error)
    assert written == encoded
    assert len(written) == (name != "no user id at all")
    if written:
        assert ("error_type" in written[0][4]) is (error is not None)
        assert "secret" not in str(written)


@pytest.mark.parametrize("name", ["no request", "a user", "a trace"])
def test_the_span_that_is_current_wins(request_of: Any, name: str) -> None:
    request_of(REQUESTS[name])
    with trace.use_span(NonRecordingSpan(SpanContext(7, 8, is_remote=False, trace_flags=TraceFlags(1)))):
        written, encoded = both("SELECT 1", 1)
    assert written == encoded
    assert written[0][-1]["trace_id"] == f"{7:032x}"


@pytest.mark.parametrize("settings", [{}, {"before_track": lambda event: event}])
def test_the_text_can_be_left_out(settings: dict[str, Any]) -> None:
    with capture_events(**settings) as captured:
        recorder_of(captured, capture_statement=False).end(normalise("SELECT 1 FROM t"), 1, 1)
        [event] = captured.events
    assert "statement" not in event.data
    assert event.data["table"] == "t"


def test_ids_rise_and_are_unlike() -> None:
    with capture_events() as captured:
        recorder = recorder_of(captured)
        for _ in range(3000):
            recorder.end(normalise("SELECT 1"), 1, 1)
        ids = [event.event_id for event in captured.events]
    assert ids == sorted(set(ids))
    assert {id_.version for id_ in ids} == {7}
