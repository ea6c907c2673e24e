"""The line that is written at once holds what the event would hold, on any value."""

from __future__ import annotations

import contextvars
from datetime import timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_analytics import AnalyticsMiddleware, EnrichedEvent
from asgi_analytics.context import current
from asgi_analytics.instrumentation.requests.http import HTTP
from asgi_analytics.instrumentation.requests.request import CapturedRequest
from asgi_analytics.testing import capture_events
from tests.instrumentation.asgi_app import hello, http_scope

text = st.text(st.characters(exclude_categories=()), max_size=30)  # NUL and lone surrogates, too
users = st.one_of(st.none(), st.uuids(), text.filter(bool), st.integers(min_value=-(2**70), max_value=2**70))
counts = st.integers(min_value=0, max_value=2**60)


@settings(max_examples=300)
@given(
    service=text.filter(lambda name: bool(name.strip())),
    environment=st.one_of(st.none(), text),
    endpoint=st.one_of(st.none(), text),
    status=st.integers(100, 599),
    outcome=st.sampled_from(["ok", "error", "cancelled", "disconnected"]),
    user=users,
    session=st.one_of(st.none(), text),
    ttfb=st.one_of(st.none(), counts),
    size=st.one_of(st.none(), counts),
    duration=counts,
    error_type=st.one_of(st.none(), text),
    close_code=st.one_of(st.none(), st.integers(1000, 4999)),
    queries=st.integers(0, 5),
    trace=st.booleans(),
)
def test_both_ways_say_the_same(
    service: str,
    environment: str | None,
    endpoint: str | None,
    status: int,
    outcome: str,
    user: Any,
    session: str | None,
    ttfb: int | None,
    size: int | None,
    duration: int,
    error_type: str | None,
    close_code: int | None,
    queries: int,
    trace: bool,
) -> None:
    found: list[EnrichedEvent] = []
    for before_track in (None, lambda event: event):
        with capture_events(service=service, environment=environment, before_track=before_track) as captured:
            plan = AnalyticsMiddleware(hello, client=captured.client).plan
            request = CapturedRequest(plan, http_scope(headers=[]), None, None, "GET", HTTP)  # type: ignore[arg-type]
            request.ended = request.started + duration
            request.status, request.ttfb, request.response_bytes = status, ttfb, size
            request.outcome, request.error_type, request.close_code = outcome, error_type, close_code
            for name, value in (("endpoint", endpoint), ("user_id", user), ("session_id", session)):
                if value is not None:
                    setattr(request, name, value)
            request._request_id = "r-1"
            for _ in range(queries):
                request.count_query("f")
                request.add_query_time(0.125)
            if trace:
                request.span = (1, 2)
            context = contextvars.copy_context()
            context.run(current.set, request)
            context.run(request.finish)
            found += captured.events

    line, event = found
    assert dict(line.data) == dict(event.data)
    assert (line.event_type, line.service, line.user_id, line.session_id) == (
        event.event_type,
        event.service,
        event.user_id,
        event.session_id,
    )
    assert line.context == event.context


def test_ids_and_times_rise_with_those_of_other_events() -> None:
    from asgi_analytics.events.cocoons import CocoonConnected

    with capture_events() as captured:
        plan = AnalyticsMiddleware(hello, client=captured.client).plan
        for _ in range(500):
            CapturedRequest(plan, http_scope(), None, None, "GET", HTTP).finish()  # type: ignore[arg-type]
            captured.client.track(CocoonConnected(cocoon_id=UUID(int=1)))

    ids = [event.event_id for event in captured.events]
    times = [event.timestamp for event in captured.events]
    assert ids == sorted(ids)
    assert len(set(ids)) == 1000
    assert all(one.version == 7 for one in ids)
    # One way cuts the nanoseconds off and the other rounds them: a microsecond is no disorder.
    assert all(later - earlier >= timedelta(microseconds=-1) for earlier, later in pairwise(times))
    assert all(abs(one.int // (1 << 80) - time.timestamp() * 1000) < 2 for one, time in zip(ids, times, strict=True))


@pytest.mark.parametrize("options", [{"clock": lambda: None}, {"ids": [UUID(int=1)]}, {"enabled": False}])
def test_a_fixed_identity_needs_the_event(options: dict[str, Any]) -> None:
    with capture_events(**options) as captured:
        assert not captured.client.intake._takes_records
