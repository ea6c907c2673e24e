"""track(): what is accepted, what is dropped and why, and what surrounds an event."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any
from uuid import UUID

import msgspec
import pytest

from asgi_analytics import AnalyticsClient, Event, events
from asgi_analytics.context import RequestContext, current
from asgi_analytics.errors import AnalyticsError, EventNotAccepted, InvalidEvent
from asgi_analytics.testing import capture_events

pytestmark = pytest.mark.usefixtures("outside_a_request")

ID = UUID("0198c1a2-0000-7000-8000-000000000001")
TASK = events.TaskStarted(task_id=ID, user_id=ID)


class Letter(Event):
    text: Any = ""


def drops(client: AnalyticsClient) -> dict[str, int]:
    return {reason: number for reason, number in client.stats().dropped.items() if number}


# -- accepted and dropped


def test_an_event_is_accepted_and_waits() -> None:
    client = AnalyticsClient(service="shop")
    assert client.track(TASK) is True
    stats = client.stats()
    assert (stats.accepted, stats.queued, drops(client)) == (1, 1, {})
    assert repr(client) == "<AnalyticsClient service='shop' queued=1>"


def test_the_newest_event_is_dropped_when_the_queue_is_full() -> None:
    client = AnalyticsClient(service="shop", queue_size=2)
    assert [client.track(TASK) for _ in range(4)] == [True, True, False, False]
    assert drops(client) == {"queue_full": 2}
    client = AnalyticsClient(service="shop", queue_size=1, strict=True)
    client.track(TASK)
    with pytest.raises(EventNotAccepted, match="the queue is full: waiting=1, queue_size=1"):
        client.track(TASK)


def test_the_queue_is_bound_in_bytes() -> None:
    client = AnalyticsClient(service="shop", queue_bytes=10_000)
    assert client.track(Letter(text="x" * 9_000))
    assert not client.track(Letter(text="x" * 9_000))
    assert client.track(TASK)
    assert drops(client) == {"queue_full": 1}


def test_captured_events_leave_room_for_explicit_ones() -> None:
    client = AnalyticsClient(service="shop", queue_size=10)
    assert sum(client.intake.event(TASK) for _ in range(20)) == 8
    assert sum(client.track(TASK) for _ in range(20)) == 2
    assert drops(client) == {"queue_full": 30}


def test_captured_events_never_raise() -> None:
    client = AnalyticsClient(service="shop", queue_size=1, strict=True)
    assert client.intake.event(TASK)
    assert not client.intake.event(TASK)
    assert not client.intake.event(Letter(text=object()))
    assert drops(client) == {"queue_full": 1, "invalid": 1}


@pytest.mark.parametrize("text", ["x" * 2_000, ["x" * 2_000], "\x00" * 2_000])
def test_an_event_over_max_event_bytes_is_dropped(text: Any) -> None:
    client = AnalyticsClient(service="shop", max_event_bytes=1_000)
    assert not client.track(Letter(text=text))
    assert client.track(TASK)
    assert drops(client) == {"oversize": 1}


def test_max_event_bytes_counts_the_encoded_event_to_the_byte() -> None:
    with capture_events() as captured:
        captured.client.track(Letter(text="ä"))
        size = len(captured.client._queue.kept[0])  # type: ignore[attr-defined]
    assert AnalyticsClient(service="test", max_event_bytes=size).track(Letter(text="ä"))
    assert not AnalyticsClient(service="test", max_event_bytes=size - 1).track(Letter(text="ä"))


def test_nothing_is_accepted_after_close() -> None:
    client = AnalyticsClient(service="shop")
    client.close()
    assert not client.track(TASK)
    assert not client.intake.event(TASK)
    assert drops(client) == {"closed": 2}


def test_a_client_that_is_not_enabled_counts_nothing() -> None:
    client = AnalyticsClient.from_url("memory://", service="shop", enabled=False, before_track=lambda e: 1 / 0)
    assert client.track(TASK) is False
    assert client.track("nonsense") is False  # type: ignore[arg-type]
    assert client.intake.event(TASK) is False
    stats = client.stats()
    assert (stats.accepted, stats.dropped.total()) == (0, 0)
    assert client.flush()
    assert client.close()


@pytest.mark.parametrize("client_settings", [{"queue_size": 1}, {"max_event_bytes": 10}])
def test_strict_raises_what_would_return_false(client_settings: dict[str, int]) -> None:
    client = AnalyticsClient(service="shop", strict=True, **client_settings)  # type: ignore[arg-type]
    with pytest.raises(EventNotAccepted) as caught:  # noqa: PT012  # whichever of the two it is
        client.track(TASK)
        client.track(TASK)
    assert isinstance(caught.value, AnalyticsError)
    assert drops(client) == {caught.value.reason: 1}


def test_strict_raises_for_an_invalid_event_and_after_close() -> None:
    client = AnalyticsClient(service="shop", strict=True)
    with pytest.raises(InvalidEvent) as caught:
        client.track(Letter(text=object()))
    assert isinstance(caught.value, ValueError)
    assert "object" in caught.value.detail
    client.close()
    with pytest.raises(EventNotAccepted, match="closed"):
        client.track(TASK)


def test_whatever_goes_wrong_inside_never_reaches_the_caller() -> None:
    class Hostile:
        def __getattribute__(self, name: str) -> Any:
            raise RuntimeError("nothing for you")

    client = AnalyticsClient(service="shop")
    assert client.track(Letter(text=Hostile())) is False
    assert drops(client) == {"invalid": 1}


# -- before_track


def test_before_track_may_return_another_event() -> None:
    def redact(event: Event) -> Event:
        return Letter(text="redacted") if isinstance(event, Letter) else event

    with capture_events(before_track=redact, strict=True) as captured:
        captured.client.track(Letter(text="secret"))
        captured.client.intake.event(Letter(text="secret"))
        captured.client.track(TASK)
    assert [event.data.get("text") for event in captured.of(Letter)] == ["redacted", "redacted"]
    assert len(captured.of("task_started")) == 1


def test_before_track_sees_the_users_of_the_request_and_what_it_makes_of_them_is_stored() -> None:
    def redact(event: Event) -> Event:
        seen.append(getattr(event, "user_id", "no field"))
        if isinstance(event, events.TaskStarted):
            return msgspec.structs.replace(event, user_id=None)
        return msgspec.structs.replace(event, user_id="somebody") if hasattr(event, "user_id") else event

    seen: list[Any] = []
    request = RequestContext()
    request.user_id = "ann@example.com"
    token = current.set(request)
    try:
        with capture_events(before_track=redact, strict=True) as captured:
            captured.client.track(events.ProjectDeleted(project_id=ID, user_id=None))  # type: ignore[arg-type]
            captured.client.track(events.ProjectDeleted(project_id=ID, user_id="bob@example.com"))
            captured.client.track(events.TaskStarted(task_id=ID, user_id="bob@example.com"))
            captured.client.track(events.DatabaseQuery(query_type="SELECT", duration_ms=1, outcome="ok"))
    finally:
        current.reset(token)
    assert seen == ["ann@example.com", "bob@example.com", "bob@example.com", "no field"]
    keys = [(event.context or {}).get("user_key") for event in captured.events]
    assert keys == ["somebody", "somebody", None, "ann@example.com"]
    assert captured.events[2].user_id is None


def test_before_track_may_refuse_an_event_which_is_no_error() -> None:
    with capture_events(before_track=lambda event: None, strict=True) as captured:
        assert captured.client.track(TASK) is False
    assert drops(captured.client) == {"before_track": 1}


def test_before_track_that_raises_costs_its_event_only() -> None:
    def redact(event: Event) -> Event:
        if isinstance(event, Letter):
            raise KeyError("secret")
        return event

    with capture_events(before_track=redact) as captured:
        assert captured.client.track(Letter()) is False
        assert captured.client.track(TASK) is True
    assert drops(captured.client) == {"before_track": 1}
    with (
        capture_events(before_track=redact, strict=True) as captured,
        pytest.raises(EventNotAccepted, match="KeyError"),
    ):
        captured.client.track(Letter())


@pytest.mark.parametrize("nonsense", [True, "event", {}, Letter])
def test_before_track_that_returns_nonsense_costs_its_event_only(nonsense: Any) -> None:
    with capture_events(before_track=lambda event: nonsense) as captured:
        assert captured.client.track(TASK) is False
    assert drops(captured.client) == {"invalid": 1}


def test_before_track_that_tracks_ends() -> None:
    client = AnalyticsClient(service="shop", before_track=lambda event: client.track(event) and event)  # type: ignore[arg-type, return-value]
    assert client.track(TASK) is False
    assert client.stats().queued == 0


@pytest.mark.parametrize("copied", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_client_is_not_pickled_and_says_what_to_do(copied: Callable[[object], object]) -> None:
    with pytest.raises(TypeError, match="make one in each process"):
        copied(AnalyticsClient(service="shop"))
