"""What an application's own tests use: capture_events and the fixture."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib.metadata import entry_points
from typing import Any
from uuid import UUID

import pytest

from asgi_analytics import EnrichedEvent, events
from asgi_analytics.errors import ConfigError, EventNotAccepted
from asgi_analytics.testing import CapturedEvents, capture_events
from tests.kit.scripts import SOURCE

pytest_plugins = ["pytester"]

ID = UUID("0198c1a2-0000-7000-8000-000000000001")
OTHER = UUID("0198c1a2-0000-7000-8000-000000000002")
NOW = datetime(2026, 11, 20, 12, 0, 0, 123456, tzinfo=UTC)
TASK = events.TaskStarted(task_id=ID, user_id=ID)
DONE = events.TaskCompleted(task_id=ID, user_id=ID, duration_ms=1.5, exit_code=0)


def test_everything_tracked_is_there_in_its_order_at_once() -> None:
    with capture_events(service="shop") as captured:
        captured.client.track(TASK)
        assert [event.event_type for event in captured.events] == ["task_started"]
        captured.client.track(DONE)
        captured.client.intake.event(TASK)
        assert [event.event_type for event in captured.events] == ["task_started", "task_completed", "task_started"]
    [done] = captured.of(events.TaskCompleted)
    assert isinstance(done, EnrichedEvent)
    assert (done.service, done.user_id, done.data["exit_code"], done.session_id) == ("shop", ID, 0, None)
    assert captured.of("task_completed") == [done]
    assert captured.of("api_request") == []


def test_it_needs_no_thread_and_no_database() -> None:
    before = threading.active_count()
    with capture_events() as captured:
        captured.client.track(TASK)
        assert captured.client.flush(60)
        assert threading.active_count() == before
    assert captured.client.stats().stored == 1


def test_events_can_be_forgotten() -> None:
    with capture_events() as captured:
        captured.client.track(TASK)
        assert captured.events
        captured.clear()
        assert captured.events == []
        captured.client.track(DONE)
        assert len(captured.events) == 1


def test_what_is_changed_in_the_list_changes_nothing() -> None:
    with capture_events() as captured:
        captured.client.track(TASK)
        captured.events.clear()
        assert len(captured.events) == 1


@pytest.mark.parametrize("clock", [NOW, lambda: NOW, NOW.astimezone(), lambda: NOW.astimezone()])
def test_the_clock_can_be_fixed(clock: datetime | Callable[[], datetime]) -> None:
    with capture_events(clock=clock) as captured:
        captured.client.track(TASK)
        assert captured.client.stats().oldest_seconds == 0
    assert captured.events[0].timestamp == NOW
    assert captured.events[0].timestamp.utcoffset() == timedelta(0)


def test_a_clock_may_run() -> None:
    times = iter([NOW, NOW + timedelta(seconds=1)])
    with capture_events(clock=lambda: next(times)) as captured:
        captured.client.track(TASK)
        captured.client.track(TASK)
    first, second = captured.events
    assert second.timestamp - first.timestamp == timedelta(seconds=1)


def test_a_naive_clock_is_refused() -> None:
    naive = NOW.replace(tzinfo=None)
    with pytest.raises(ConfigError, match="naive"), capture_events(clock=naive):
        pass
    with capture_events(clock=lambda: naive) as captured:
        assert not captured.client.track(TASK)
    with capture_events(clock=lambda: naive, strict=True) as captured, pytest.raises(EventNotAccepted, match="naive"):
        captured.client.track(TASK)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"clock": "12:00"}, "the clock is a str: use an aware datetime"),
        ({"clock": 5}, "the clock is a int: use an aware datetime"),
        ({"ids": ID}, "ids is a UUID: use an iterable of UUIDs"),
        ({"ids": str(ID)}, "ids is a str: use an iterable of UUIDs"),
    ],
)
def test_what_is_no_clock_and_what_are_no_ids_is_refused_with_what_to_do(
    argument: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)), capture_events(**argument):
        pass


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"clock": lambda: "12:00"}, "the clock gives a str: give an aware datetime"),
        ({"ids": lambda: str(ID)}, "the ids of capture_events give a str: give UUIDs"),
        ({"ids": [5]}, "the ids of capture_events give a int: give UUIDs"),
    ],
)
def test_what_a_clock_or_ids_give_is_refused_with_what_to_do(argument: dict[str, Any], message: str) -> None:
    with capture_events(**argument) as captured:
        assert not captured.client.track(TASK)
        assert captured.events == []
    with capture_events(**argument, strict=True) as captured, pytest.raises(EventNotAccepted, match=message):
        captured.client.track(TASK)


@pytest.mark.parametrize(
    ("nonsense", "message"),
    [
        (5, "a int names no type of event: use a tag"),
        (None, "a NoneType names no type of event: use a tag"),
        (TASK, "a TaskStarted names no type of event: use a tag"),
        (dict, "dict names no type of event: use a tag"),
    ],
)
def test_what_names_no_type_of_event_is_refused_with_what_to_do(nonsense: Any, message: str) -> None:
    with capture_events() as captured, pytest.raises(TypeError, match=re.escape(message)):
        captured.of(nonsense)


def test_the_ids_can_be_fixed() -> None:
    with capture_events(ids=[ID, OTHER]) as captured:
        assert captured.client.track(TASK)
        assert captured.client.track(events.WebhookReceived(provider="a", event_type="\x00", delivery_id="b"))
        assert not captured.client.track(TASK)  # there is none left
    assert [event.event_id for event in captured.events] == [ID, OTHER]
    with capture_events(ids=lambda: OTHER) as captured:
        captured.client.track(TASK)
    assert captured.events[0].event_id == OTHER
    with capture_events(ids=[], strict=True) as captured, pytest.raises(EventNotAccepted, match="no id left"):
        captured.client.track(TASK)


def test_the_settings_of_a_client_hold() -> None:
    with capture_events(environment="staging", queue_size=2, strict=True, hash_key="k") as captured:
        captured.client.track(TASK)
        captured.client.track(TASK)
        with pytest.raises(EventNotAccepted, match="queue_full"):
            captured.client.track(TASK)
    assert (captured.events[0].context or {})["environment"] == "staging"
    with pytest.raises(ConfigError), capture_events(batch_size=0):
        pass


def test_the_client_is_closed_when_the_block_ends_and_its_events_stay() -> None:
    with capture_events() as captured:
        captured.client.track(TASK)
    assert not captured.client.track(TASK)
    assert len(captured.events) == 1


def test_figures_balance() -> None:
    with capture_events() as captured:
        captured.client.track(TASK)
        captured.client.track("nonsense")  # type: ignore[arg-type]
    stats = captured.client.stats()
    assert (stats.accepted, stats.stored, stats.queued, stats.dropped["invalid"]) == (1, 1, 0, 1)


def test_a_frozen_datetime_module_does_not_cost_the_events(monkeypatch: pytest.MonkeyPatch) -> None:
    class Frozen(datetime):  # as freezegun puts in its place
        @classmethod
        def now(cls, tz: Any = None) -> Frozen:
            return cls(2020, 1, 1, tzinfo=tz)

    monkeypatch.setattr("asgi_analytics.encoding.encoder.datetime", Frozen)
    with capture_events(strict=True) as captured:
        captured.client.track(TASK)
        captured.client.track(events.WebhookReceived(provider="a", event_type="\x00", delivery_id="b"))
    with capture_events(strict=True, clock=lambda: Frozen.now(UTC)) as captured:
        captured.client.track(TASK)
    assert captured.events[0].timestamp == datetime(2020, 1, 1, tzinfo=UTC)


def test_the_fixture_is_the_same(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))
    pytester.makepyfile(
        """
        from asgi_analytics import events
        from asgi_analytics.testing import CapturedEvents

        def test_one(analytics):
            assert isinstance(analytics, CapturedEvents)
            analytics.client.track(events.CocoonConnected(cocoon_id="0198c1a2-0000-7000-8000-000000000001"))
            [event] = analytics.of("cocoon_connected")
            assert event.service == "test"

        def test_two(analytics):
            assert analytics.events == []
        """
    )
    installed = any(point.value == "asgi_analytics.testing" for point in entry_points(group="pytest11"))
    arguments = [] if installed else ["-p", "asgi_analytics.testing"]
    pytester.runpytest_subprocess(*arguments).assert_outcomes(passed=2)


def test_what_is_captured_is_a_class_of_its_own() -> None:
    with capture_events() as captured:
        assert type(captured) is CapturedEvents
