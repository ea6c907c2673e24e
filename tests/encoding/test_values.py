"""What values become: what PostgreSQL or JSON cannot hold is mended or refused, and never costs another event."""

from __future__ import annotations

import dataclasses
import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

import msgspec
import pytest
from asyncpg.pgproto.pgproto import UUID as DatabaseUUID

from asgi_analytics import Event, events, set_session, set_user
from asgi_analytics.errors import InvalidEvent
from asgi_analytics.testing import capture_events

ID = UUID("0198c1a2-0000-7000-8000-000000000001")


class ValueSaid(Event):
    what: Any = None


class TypedValue(Event):
    text: str = ""
    number: int = 0
    measure: float = 0.0
    at: datetime | None = None
    id: UUID | None = None


def stored(what: Any) -> Any:
    """Return what is stored for a value in a field of any type."""
    with capture_events(strict=True) as captured:
        captured.client.track(ValueSaid(what=what))
    return captured.events[0].data["what"]


def refusal(event: Event) -> str:
    """Return why an event is refused; it is counted, and the next one is accepted."""
    with capture_events(strict=True) as captured:
        with pytest.raises(InvalidEvent) as caught:
            captured.client.track(event)
        assert captured.client.track(ValueSaid(what="the neighbour"))
    assert captured.client.stats().dropped["invalid"] == 1
    return caught.value.detail


REPLACED = [("a\x00b", "a\ufffdb"), ("\ud800", "\ufffd"), ("x\udc00y\x00", "x\ufffdy\ufffd"), ("\ud83d\ude00", "😀")]


@pytest.mark.parametrize(("text", "clean"), REPLACED)
def test_nul_and_lone_surrogates_become_the_replacement_character_wherever_they_stand(text: str, clean: str) -> None:
    assert stored(text) == clean
    assert stored([{text: [text]}]) == [{clean: [clean]}]
    with capture_events(strict=True) as captured:
        captured.client.track(events.ProjectCreated(project_id=ID, user_id=ID, name=text))
    assert captured.events[0].data["name"] == clean


@pytest.mark.parametrize(("text", "clean"), REPLACED)
def test_the_envelope_is_cleaned_like_the_data(text: str, clean: str) -> None:
    with capture_events(service=text + "s", environment=text, strict=True) as captured:
        set_session(text)
        set_user(text)
        captured.client.track(events.ProjectCreated(project_id=ID, user_id=text, name="x"))
        captured.client.track(ValueSaid())
    for event in captured.events:
        assert event.context is not None
        assert (event.service, event.session_id) == (clean + "s", clean)
        assert (event.context["environment"], event.context["user_key"]) == (clean, clean)


def test_a_tag_is_cleaned() -> None:
    class Dirty(Event, tag="dir\x00ty"):
        pass

    with capture_events(strict=True) as captured:
        captured.client.track(Dirty())
    assert captured.events[0].event_type == "dir\ufffdty"


def test_text_that_only_looks_like_an_escaped_nul_is_kept() -> None:
    assert stored(r"\u0000 \\u0000") == r"\u0000 \\u0000"
    with capture_events(strict=True) as captured:
        captured.client.track(TypedValue(text=r"\u0000"))
    assert captured.events[0].data["text"] == r"\u0000"


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_becomes_null(number: float) -> None:
    assert stored(number) is None
    assert stored({"a": [number, 1.5]}) == {"a": [None, 1.5]}
    with capture_events(strict=True) as captured:
        captured.client.track(TypedValue(measure=number))
    assert captured.events[0].data["measure"] is None


NAIVE = datetime(2026, 11, 20, 12, 0)


def test_a_naive_datetime_is_refused_wherever_it_stands() -> None:
    @dataclasses.dataclass
    class Holder:
        when: datetime

    for what in (NAIVE, [NAIVE], {"a": {"b": NAIVE}}, (1, NAIVE), Holder(NAIVE), [Holder(NAIVE)]):
        assert "naive datetime: give it a time zone" in refusal(ValueSaid(what=what))
    assert "at is a naive datetime" in refusal(TypedValue(at=NAIVE))
    assert "at is a naive datetime" in refusal(TypedValue(at="2026-11-20T12:00:00"))  # type: ignore[arg-type]


def test_an_aware_datetime_keeps_its_moment() -> None:
    aware = datetime(2026, 11, 20, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=-5)))
    assert datetime.fromisoformat(stored(aware)) == aware
    with capture_events(strict=True) as captured:
        captured.client.track(TypedValue(at=aware))
        captured.client.track(TypedValue(at=aware.isoformat()))  # type: ignore[arg-type]
    assert [datetime.fromisoformat(event.data["at"]) for event in captured.events] == [aware, aware]


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Side(StrEnum):
    LEFT = "left"


class Old(str, Enum):  # noqa: UP042  # as people had them before StrEnum
    ONE = "one"


class Point(NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class Basket:
    items: list[str]
    total: Decimal


class Address(msgspec.Struct, rename="camel"):
    street_name: str


class Text(str):
    pass


class Whole(int):
    pass


class Fraction(float):
    pass


class Moment(datetime):
    pass


class Day(date):
    pass


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (Side.LEFT, "left"),
        (Old.ONE, "one"),
        ({Colour.RED: 1, 7: 2}, {"red": 1, "7": 2}),
        (Decimal("1.50"), "1.50"),
        (b"\x00\xff", "AP8="),
        ({3}, [3]),
        (frozenset({3}), [3]),
        ((1, "b"), [1, "b"]),
        (Point(1, 2), [1, 2]),
        (date(2026, 1, 2), "2026-01-02"),
        (time(1, 2), "01:02:00"),
        (timedelta(seconds=90), "PT90S"),
        (ID, str(ID)),
        (DatabaseUUID(str(ID)), str(ID)),
        (Basket(["a\x00"], Decimal(3)), {"items": ["a\ufffd"], "total": "3"}),
        (Address("x"), {"streetName": "x"}),
        ([Basket([], Decimal(0))], [{"items": [], "total": "0"}]),
        (Text("a\x00"), "a\ufffd"),
        (Whole(7), 7),
        (Fraction(1.5), 1.5),
        ({Text("key"): Text("value")}, {"key": "value"}),
        (Moment(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00Z"),
        (Day(2026, 1, 2), "2026-01-02"),
        (2**64, 2**64),
        (-(2**63), -(2**63)),
        (True, True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_with_a_class_of_their_own_are_stored_as_json(value: Any, expected: Any) -> None:
    found = stored(value)
    assert found == expected
    assert type(found) is type(expected)


def test_subclasses_fit_the_declared_type() -> None:
    with capture_events(strict=True) as captured:
        captured.client.track(
            TypedValue(
                text=Text("a"), number=Level.HIGH, measure=Fraction(1.5), id=DatabaseUUID(str(ID)), at=Moment.now(UTC)
            )
        )
        captured.client.track(events.TaskStarted(task_id=DatabaseUUID(str(ID)), user_id=DatabaseUUID(str(ID))))
    assert captured.events[0].data["number"] == 3
    assert captured.events[1].user_id == ID
    assert captured.events[1].data["task_id"] == str(ID)


class Foreign:
    pass


@pytest.mark.parametrize(
    "value", [Foreign(), [Foreign()], {"a": Foreign()}, object, len, iter(()), msgspec.Raw(b"{"), {Foreign(): 1}]
)
def test_a_foreign_object_is_refused_by_its_type(value: Any) -> None:
    assert "unsupported" in refusal(ValueSaid(what=value)) or "str" in refusal(ValueSaid(what=value))


def test_a_cycle_and_deep_nesting_are_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    ring: dict[str, Any] = {}
    ring["self"] = [ring]
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    for what in (loop, ring, deep, Basket(loop, Decimal(0))):
        assert "nested" in refusal(ValueSaid(what=what))


def test_nesting_of_a_hundred_levels_is_stored() -> None:
    deep: Any = 1
    for _ in range(100):
        deep = [deep]
    assert stored(deep) == deep
    assert "nested deeper" in refusal(ValueSaid(what=[deep]))


def test_a_number_too_long_to_write_down_is_refused() -> None:
    assert refusal(ValueSaid(what=10**5000))
    assert refusal(TypedValue(number=10**5000))
    assert refusal(TypedValue(measure=10**400))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"text": 7}, "Expected `str`, got `int` at `$.text`"),
        ({"number": "seven"}, "Expected `int`, got `str` at `$.number`"),
        ({"number": True}, "Expected `int`, got `bool` at `$.number`"),
        ({"measure": None}, "Expected `float`, got `null` at `$.measure`"),
        ({"id": "no id"}, "a value is refused at `$.id`"),
        ({"at": "yesterday"}, "a value is refused at `$.at`"),
    ],
)
def test_a_wrong_type_is_refused_with_its_field(fields: dict[str, Any], said: str) -> None:
    assert refusal(TypedValue(**fields)) == f"typed_value: {said}"


def test_a_refusal_does_not_quote_the_value() -> None:
    class Choosy(Event):
        colour: Colour = Colour.RED
        kind: Literal["a", "b"] = "a"
        few: Annotated[str, msgspec.Meta(pattern="^a$")] = "a"

    for fields in ({"colour": "hunter2"}, {"kind": "hunter2"}, {"few": "hunter2"}):
        assert "hunter2" not in refusal(Choosy(**fields))  # type: ignore[arg-type]


def test_a_mapping_that_is_no_dict_does_not_cost_the_worker() -> None:
    with capture_events() as captured:
        captured.client.track(ValueSaid(what=MappingProxyType({"a": 1})))
        assert captured.client.track(ValueSaid(what=1))


def test_what_is_changed_after_track_changes_nothing() -> None:
    basket = {"items": ["book"]}
    with capture_events(strict=True) as captured:
        captured.client.track(ValueSaid(what=basket))
        basket["items"].append("pen")
        assert captured.events[0].data["what"] == {"items": ["book"]}


def test_a_session_that_is_no_text_is_stored_as_text() -> None:
    with capture_events(strict=True) as captured:
        for session in (7, ID, Text("s")):
            set_session(session)  # type: ignore[arg-type]
            captured.client.track(ValueSaid())
    assert [event.session_id for event in captured.events] == ["7", str(ID), "s"]
