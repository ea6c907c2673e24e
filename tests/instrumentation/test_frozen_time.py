"""In a test that freezes time, every event has the frozen time, and the ids are still unique and rising."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

import freezegun
import pytest
import time_machine

from asgi_analytics import AnalyticsMiddleware, Event, capture_query
from asgi_analytics.testing import CapturedEvents
from tests.instrumentation.asgi_app import Receive, Scope, Send, body, get, start

MOMENT = datetime(2024, 2, 29, 12, 30, 45, 123456, tzinfo=UTC)
Freeze = Callable[[datetime], AbstractContextManager[Any]]


class Ordered(Event):
    at: datetime
    anything: object = None


@pytest.fixture(params=["freezegun", "time-machine"])
def freeze(request: pytest.FixtureRequest) -> Freeze:
    if request.param == "freezegun":
        return freezegun.freeze_time
    return lambda moment: time_machine.travel(moment, tick=False)


async def a_request(analytics: CapturedEvents) -> None:
    """Make an event of each kind: a query, a domain event, an error and the request."""

    @capture_query(analytics.client, "SELECT", "orders")
    async def query() -> None:
        pass

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await query()
        analytics.client.track(Ordered(at=datetime.now(UTC), anything={"at": datetime.now(UTC)}))
        analytics.client.track_error(ValueError("no"))
        await send(start())
        await send(body())

    await get(AnalyticsMiddleware(app, client=analytics.client))


async def test_events_of_every_kind_have_the_frozen_time(analytics: CapturedEvents, freeze: Freeze) -> None:
    with freeze(MOMENT):
        await a_request(analytics)

    assert sorted(event.event_type for event in analytics.events) == [
        "api_request",
        "application_error",
        "database_query",
        "ordered",
    ]
    assert {event.timestamp for event in analytics.events} == {MOMENT}
    [ordered] = analytics.of("ordered")
    assert ordered.data == {"at": "2024-02-29T12:30:45.123456Z", "anything": {"at": "2024-02-29T12:30:45.123456Z"}}


async def test_ids_are_unique_and_rise_in_a_frozen_moment_and_after_it(
    analytics: CapturedEvents, freeze: Freeze
) -> None:
    with freeze(MOMENT):
        for _ in range(50):
            analytics.client.track(Ordered(at=MOMENT))
    with freeze(MOMENT + timedelta(hours=1)):
        for _ in range(50):
            analytics.client.track(Ordered(at=MOMENT))

    ids = [event.event_id for event in analytics.of("ordered")]
    assert len(set(ids)) == 100
    assert ids == sorted(ids)
    assert {event.timestamp for event in analytics.events} == {MOMENT, MOMENT + timedelta(hours=1)}


async def test_time_that_goes_on_does_so_from_the_frozen_moment(analytics: CapturedEvents) -> None:
    with time_machine.travel(MOMENT, tick=True):
        await a_request(analytics)

    assert all(MOMENT <= event.timestamp < MOMENT + timedelta(minutes=1) for event in analytics.events)
    assert all(event.data["duration_ms"] >= 0 for event in analytics.of("api_request"))
