"""Events of the user's own: subclasses of Event, their tags, and what is refused when a class is made."""

from __future__ import annotations

import gc
import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from weakref import ref

import msgspec
import pytest

from asgi_analytics import Event
from asgi_analytics.errors import ConfigError, DuplicateEventType, InvalidEvent
from asgi_analytics.events import base
from asgi_analytics.events.base import event_type_of, event_types, known_categories, snake_case
from asgi_analytics.testing import capture_events


class ParcelSent(Event):
    order_id: int
    total: float
    user_id: str | None = None


def test_a_plain_subclass_is_an_event_with_the_tag_of_its_name() -> None:
    with capture_events(strict=True) as captured:
        captured.client.track(ParcelSent(order_id=7, total=9.5))
    [event] = captured.of(ParcelSent)
    assert (event.event_type, event.data) == ("parcel_sent", {"order_id": 7, "total": 9.5})


def test_a_subclass_is_frozen_and_takes_keywords_only() -> None:
    with pytest.raises(TypeError):
        ParcelSent(7, 9.5)  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        ParcelSent(order_id=7, total=9.5).total = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("TaskCreated", "task_created"),
        ("OAuthFlowStarted", "oauth_flow_started"),
        ("StartedOAuth", "started_oauth"),
        ("HTTPCallMade", "http_call_made"),
        ("SeenByAPI", "seen_by_api"),
        ("Paid", "paid"),
        ("Page2Seen", "page2_seen"),
        ("already_snake", "already_snake"),
    ],
)
def test_a_class_name_becomes_snake_case(name: str, tag: str) -> None:
    assert snake_case(name) == tag


def test_a_tag_of_ones_own_is_kept() -> None:
    class Renamed(Event, tag="basket_filled"):
        pass

    assert event_type_of(Renamed) == "basket_filled"
    assert event_types()["basket_filled"] is Renamed


def test_a_tag_that_is_taken_is_refused_when_the_class_is_made() -> None:
    with pytest.raises(
        DuplicateEventType, match=r"'task_created'.*asgi_analytics\.events\.tasks\.TaskCreated.*tag='…'"
    ):

        class TaskCreated(Event):
            pass

    with pytest.raises(ConfigError):

        class Another(Event, tag="parcel_sent"):
            pass


def test_a_subclass_of_an_event_needs_a_tag_of_its_own_and_inherits_the_fields() -> None:
    class ParcelSentByPhone(ParcelSent):
        number: str

    with capture_events(strict=True) as captured:
        captured.client.track(ParcelSentByPhone(order_id=1, total=2, number="3"))
    assert captured.events[0].event_type == "parcel_sent_by_phone"
    assert captured.events[0].data == {"order_id": 1, "total": 2, "number": "3"}


@pytest.mark.parametrize("tag", ["", " ", 5, False])
def test_a_tag_that_is_no_name_is_refused_when_the_class_is_made(tag: Any) -> None:
    with pytest.raises(ConfigError, match=r"Unnamed has the tag .*: use a name, as in class Unnamed\(Event, tag="):

        class Unnamed(Event, tag=tag):
            pass


def test_a_class_that_is_tracked_in_place_of_an_event_is_told_apart() -> None:
    with (
        capture_events(strict=True) as captured,
        pytest.raises(InvalidEvent, match="a class was tracked"),
    ):
        captured.client.track(ParcelSent)  # type: ignore[arg-type]  # on purpose


def test_the_same_class_may_be_defined_again_in_the_same_place() -> None:
    def define() -> type[Event]:
        class CellRunTwice(Event):
            pass

        return CellRunTwice

    first, second = define(), define()
    assert first is not second
    assert event_types()["cell_run_twice"] is second


def test_a_class_of_a_function_that_has_ended_leaves_its_tag_free() -> None:
    def one() -> None:
        class MadeInATest(Event):
            pass

    def two() -> str:
        class MadeInATest(Event):
            pass

        return MadeInATest.__qualname__

    gc.disable()
    try:
        one()
        assert "two" in two()
    finally:
        gc.enable()


def test_a_module_that_is_reloaded_defines_its_events_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop_events.py").write_text("from asgi_analytics import Event\nclass Paid(Event):\n    cents: int\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("shop_events")
    first = module.Paid
    assert importlib.reload(module).Paid is not first


def test_event_itself_is_nothing_that_happened() -> None:
    with (
        capture_events(strict=True) as captured,
        pytest.raises(InvalidEvent, match="is not an event: track an instance"),
    ):
        captured.client.track(Event())


@pytest.mark.parametrize("what", [None, 7, "task_created", {"event_type": "x"}, ParcelSent, object(), msgspec.Struct])
def test_what_is_no_event_is_refused(what: Any) -> None:
    with capture_events() as captured:
        assert captured.client.track(what) is False
    assert captured.client.stats().dropped["invalid"] == 1


def test_defaults_of_ones_own_are_stored_and_none_is_left_out() -> None:
    class Shipped(Event):
        carrier: str = "post"
        parcels: list[str] = msgspec.field(default_factory=list)
        note: str | None = None

    with capture_events(strict=True) as captured:
        captured.client.track(Shipped())
    assert captured.events[0].data == {"carrier": "post", "parcels": []}


def test_a_field_may_be_stored_under_another_name() -> None:
    class Renaming(Event, rename="camel"):
        basket_size: int
        user_id: int | None = None
        shelf: str = msgspec.field(name="Regal")

    with capture_events(strict=True) as captured:
        captured.client.track(Renaming(basket_size=1, user_id=7, shelf="x"))
    [event] = captured.events
    assert event.data == {"basketSize": 1, "Regal": "x"}
    assert event.user_id is not None


def test_fields_may_have_any_name_python_allows() -> None:
    class Odd(Event):
        event: int
        line: int
        u: int
        context: dict[str, int]
        facts: int
        encode: int
        timestamp: str

    with capture_events(strict=True) as captured:
        captured.client.track(Odd(event=1, line=2, u=3, context={"a": 1}, facts=4, encode=5, timestamp="now"))
        assert captured.events[0].data["timestamp"] == "now"


def test_a_class_whose_types_cannot_be_read_is_refused_when_it_is_tracked_and_costs_no_other() -> None:
    def track_one() -> None:
        class Unreadable(Event):
            what: NoSuchType  # type: ignore[name-defined]  # noqa: F821

        with capture_events() as captured:
            assert not captured.client.track(Unreadable(what=1))
            assert captured.client.track(ParcelSent(order_id=1, total=1))
        with capture_events(strict=True) as captured, pytest.raises(InvalidEvent, match="Unreadable cannot be read"):
            captured.client.track(Unreadable(what=1))

    track_one()
    for _ in range(2):  # the clients that met it are collected first
        gc.collect()
    assert "unreadable" not in event_types()


def test_a_class_that_is_being_forgotten_is_no_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """It happens between two steps of a look through all classes, so the moment is made here."""

    class BulbLit(Event):
        lamp_id: int

    references = [ref(BulbLit), ref(ParcelSent)]
    del BulbLit
    gc.collect()
    monkeypatch.setattr(base, "_types", SimpleNamespace(valuerefs=lambda: references))
    assert event_types() == {"parcel_sent": ParcelSent}
    assert known_categories() == {"parcel_sent": "interaction"}
