"""Each element is judged by itself: stored as it came, mended, or refused with its field and a reason."""

from __future__ import annotations

import gc
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest

from asgi_analytics import Event, events
from asgi_analytics.encoding.encoder import EventEncoder
from asgi_analytics.encoding.users import user_uuid
from asgi_analytics.events.base import event_class, event_types
from asgi_analytics.web.ingestion.elements import split
from asgi_analytics.web.ingestion.validation import _TOGETHER, Validator
from tests.web.ingestion.service import MISSING, TASK, USER, event

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def judge(*elements: Any, strict_types: bool = False) -> tuple[list[bytes], list[tuple[int, str, str | None]]]:
    validator = Validator(strict_types=strict_types, clock=lambda: NOW)
    good, places, refused = validator.check(split(json.dumps(elements).encode(), 100))
    assert sorted([*places, *(one.index for one in refused)]) == list(range(len(elements)))
    return good, [(one.index, one.reason, one.field) for one in refused]


def at(moment: datetime = NOW, **changes: Any) -> dict[str, Any]:
    return event(timestamp=moment.isoformat(), **changes)


@pytest.mark.parametrize(
    ("changes", "reason", "field"),
    [
        ({"event_id": MISSING}, "missing", "event_id"),
        ({"event_id": None}, "expected uuid, got null", "event_id"),
        ({"event_id": 5}, "expected uuid, got int", "event_id"),
        ({"event_id": "5"}, "not a UUID", "event_id"),
        ({"event_type": MISSING}, "missing", "event_type"),
        ({"event_type": " "}, "empty", "event_type"),
        ({"timestamp": MISSING}, "missing", "timestamp"),
        ({"timestamp": "yesterday"}, "not a timestamp", "timestamp"),
        ({"timestamp": 1795176000}, "expected datetime, got int", "timestamp"),
        ({"timestamp": "2026-11-20T12:00:00"}, "no time zone", "timestamp"),
        ({"timestamp": "2026-11-21T12:00:01Z"}, "more than 24 h ahead", "timestamp"),
        ({"timestamp": "9999-12-31T23:59:59-10:00"}, "more than 24 h ahead", "timestamp"),
        ({"timestamp": "2026-08-22T11:59:59Z"}, "older than 90 days", "timestamp"),
        ({"timestamp": "0001-01-01T00:00:00+10:00"}, "older than 90 days", "timestamp"),
        ({"service": MISSING}, "missing", "service"),
        ({"service": ""}, "empty", "service"),
        ({"data": MISSING}, "missing", "data"),
        ({"data": None}, "expected object, got null", "data"),
        ({"data": "x"}, "expected object, got str", "data"),
        ({"data": ["x"]}, "expected object, got array", "data"),
        ({"context": "x"}, "expected object or null, got str", "context"),
        ({"session_id": 7}, "expected str or null, got int", "session_id"),
        ({"user_id": MISSING}, "missing", "user_id"),
        ({"user_id": True}, "expected int or str or null, got bool", "user_id"),
        ({"user_id": 1.5}, "expected int or str or null, got float", "user_id"),
        ({"user_id": MISSING, "data": {"task_id": TASK, "command": "", "user_id": {}}},
         "expected str, got another type", "user_id"),
        ({"data": {}}, "missing", "data.task_id"),
        ({"data": {"task_id": TASK}}, "missing", "data.command"),
        ({"data": {"task_id": "x", "command": ""}}, "not a UUID", "data.task_id"),
        ({"data": {"task_id": TASK, "command": 5}}, "expected str, got int", "data.command"),
        ({"event_type": "task_completed", "data": {"task_id": TASK, "duration_ms": "1", "exit_code": 0}},
         "expected float, got str", "data.duration_ms"),
        ({"event_type": "task_completed", "data": {"task_id": TASK, "duration_ms": 1, "exit_code": 2**63}},
         "number out of range", "data.exit_code"),
        ({"event_type": "application_error", "data": {"error_type": "", "error_message": "", "fingerprint": "",
          "handled": False, "stack": [{}, 5]}}, "expected object, got int", "data.stack[1]"),
        ({"event_type": "own", "data": {"a": [[[]] * 2] * 200, "b": json.loads("[" * 99 + "]" * 99)}},
         "nested deeper than 100 levels", None),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_with_its_field(changes: dict[str, Any], reason: str, field: str | None) -> None:
    neighbour = at()
    good, refused = judge(neighbour, event(**{"timestamp": NOW.isoformat()} | changes), neighbour)
    assert refused == [(1, reason, field)]
    assert len(good) == 2


def test_elements_are_judged_together_as_they_are_alone() -> None:
    odd: list[dict[str, Any]] = [
        {"timestamp": "2026-08-22T11:59:59Z"}, {"timestamp": "2026-11-21T12:00:01Z"}, {"service": " "}, {"data": 5},
        {"user_id": MISSING}, {"user_id": 7}, {"data": {"task_id": TASK, "command": "x", "user_id": "me"}},
        {"event_type": "TaskCreated"}, {"event_type": "own", "data": []}, {"event_type": "own", "user_id": None},
        {"context": {"a": [[]] * 200}}, {"context": json.loads("[" * 99 + "]" * 99)},
    ]  # fmt: skip
    lines: list[bytes | None] = [json.dumps(at()).encode() for _ in range(4 * _TOGETHER)]
    for place, changes in enumerate(odd * 2):  # some parts hold one or two of them, some none
        made = {key: value for key, value in (at() | changes).items() if value is not MISSING}
        lines[place * 4] = json.dumps(made).encode()
    lines[3 * _TOGETHER + 1] = None
    validator = Validator(clock=lambda: NOW)
    good, places, refused = validator.check(lines)
    alone = [validator.check([line]) for line in lines]
    assert good == [line for kept, _, _ in alone for line in kept]
    assert places == [place for place, (kept, _, _) in enumerate(alone) if kept]
    assert [(one.index, one.reason, one.field) for one in refused] == [
        (place, one.reason, one.field) for place, (_, _, why) in enumerate(alone) for one in why
    ]
    assert 10 < len(refused) < 20


@pytest.mark.parametrize("number", [1, 2, _TOGETHER])
@pytest.mark.parametrize("brackets", ["[]", "{}"])
def test_the_depth_of_one_is_seen_among_many(number: int, brackets: str) -> None:
    def nested(depth: int) -> bytes:
        opening, closing = ("[", "]") if brackets == "[]" else ('{"a":', "}")
        value = opening * (depth - 2) + "1" + closing * (depth - 2)  # the event and its data are two levels
        return json.dumps(at(event_type="own", context=None, data={"a": 0})).replace('"a": 0', f'"a": {value}').encode()

    flat = [nested(2) for _ in range(number - 1)]
    validator = Validator(clock=lambda: NOW)
    assert validator.check([*flat, nested(100)])[2] == []
    [refused] = validator.check([*flat, nested(101)])[2]
    assert (refused.index, refused.reason) == (number - 1, "nested deeper than 100 levels")


@pytest.mark.parametrize("element", [None, True, 5, "x", [], [5]])
def test_an_element_that_is_no_object_is_refused(element: Any) -> None:
    assert judge(element) == ([], [(0, "not an object", None)])


def test_of_a_key_that_occurs_twice_each_is_checked() -> None:
    line = json.dumps(at()).encode()[:-1] + b',"service":5,"service":"b"}'
    good, _, refused = Validator(clock=lambda: NOW).check([line])
    assert not good
    assert refused[0].field == "service"


def test_an_element_of_no_text_is_refused() -> None:
    _, _, refused = Validator().check([None])
    assert [(one.reason, one.field) for one in refused] == [("not UTF-8", None)]


def test_a_number_that_no_float_holds_is_refused_where_the_type_asks_for_one() -> None:
    def with_number(event_type: str) -> bytes:
        line = json.dumps(at(event_type=event_type, data={"task_id": TASK, "exit_code": 0, "duration_ms": 5.5}))
        return line.replace("5.5", "1e400").encode()

    lines = [with_number("task_completed"), with_number("own")]
    good, _, refused = Validator(clock=lambda: NOW).check(lines)
    assert [(one.reason, one.field) for one in refused] == [("number out of range", "data.duration_ms")]
    assert good == lines[1:]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"timestamp": "2026-11-20T13:00:00.5+01:00"},
        {"timestamp": "2026-11-20 12:00:00Z"},
        {"timestamp": "2026-11-21T11:59:59Z"},
        {"timestamp": "2026-08-22T12:00:01Z"},
        {"event_id": "0198C0DE000070008000000000000001"},
        {"user_id": None},
        {"session_id": "s-1"},
        {"context": None},
        {"context": MISSING},
        {"context": {"anything": [1, {"x": None}]}},
        {"a_later_field": 1},
        {"data": {"task_id": TASK, "command": "", "a_later_field": [1]}},
        {"data": {"task_id": TASK, "command": "", "project_id": None}},
        {"event_type": "order_placed", "data": {}},
        {"event_type": "order_placed", "user_id": None, "data": {"user_id": 5}},
        {"event_type": "Some Thing/else", "data": {"deep": json.loads("[" * 98 + "]" * 98)}},
    ],
    ids=str,
)
def test_what_is_right_is_stored_byte_for_byte(changes: dict[str, Any]) -> None:
    made = event(**({"timestamp": NOW.isoformat()} | changes))
    assert judge(made) == ([json.dumps(made).encode()], [])


@pytest.mark.parametrize("cls", [c for c in event_types().values() if c.__module__.startswith("asgi_analytics.")])
def test_what_track_encodes_is_stored_byte_for_byte(cls: type[Event]) -> None:
    samples: dict[Any, Any] = {
        "UUID": UUID(TASK), "UUID | str | int": UUID(USER), "str": "x", "int": 7, "float": 1.5, "bool": True,
        "list[dict[str, Any]]": [{"file": "a.py", "line": 1}], "dict[str, Any]": {"a": 1},
    }  # fmt: skip
    encoder = EventEncoder(service="shop", environment=None, hostname="web-1", clock=lambda: NOW)
    for full in (True, False):
        values = {}
        for name in cls.__struct_fields__:
            annotation = cls.__annotations__[name]
            text = str(annotation).removesuffix(" | None").replace("UserId", "UUID | str | int")
            if full or not str(annotation).endswith("| None"):
                values[name] = samples[text.removeprefix("Personal[").removesuffix("]") if "Personal" in text else text]
        for user in ({}, {"user_id": None}) if "user_id" in values else ({},):
            line = encoder.encode(cls(**values | user))
            assert judge(json.loads(line))[1] == []
            assert Validator(clock=lambda: NOW).check([line])[0] == [line]


def test_a_class_name_is_taken_for_the_tag() -> None:
    [line], refused = judge(at(event_type="TaskCreated"))
    assert refused == []
    assert json.loads(line)["event_type"] == "task_created"
    flow = at(event_type="OAuthFlowStarted", data={"provider": "x", "state": "y"})
    assert json.loads(judge(flow)[0][0])["event_type"] == "oauth_flow_started"
    assert judge(at(event_type="TaskCreated", data={}))[1] == [(0, "missing", "data.task_id")]


def test_a_class_with_a_tag_of_its_own_is_found_by_its_name() -> None:
    class ShelfEmptied(Event, tag="shop.shelf"):
        shelf: int

    assert event_class("ShelfEmptied") is event_class("shop.shelf") is ShelfEmptied
    assert event_class("NoSuchThing") is event_class("no_such_thing") is None
    [line], _ = judge(at(event_type="ShelfEmptied", data={"shelf": 1}))
    assert json.loads(line)["event_type"] == "shop.shelf"


@pytest.mark.parametrize("user_id", ["me", 42, "42", "", "ü" * 50])
def test_a_user_that_is_no_uuid_is_mapped_as_track_does(user_id: str | int) -> None:
    made = at(user_id=user_id, context={"hostname": "web-1"})
    [line], _ = judge(made)
    stored = json.loads(line)
    assert stored["user_id"] == str(user_uuid(user_id)[0])
    assert stored["context"] == {"hostname": "web-1", "user_key": str(user_id)}
    assert stored["data"] == made["data"]


def test_a_user_inside_data_is_lifted_out_and_the_envelopes_own_wins() -> None:
    data = {"task_id": TASK, "command": "x", "user_id": "me"}
    [lifted, null, own], _ = judge(at(user_id=MISSING, data=data), at(user_id=None, data=data), at(data=data))
    assert json.loads(lifted)["user_id"] == json.loads(null)["user_id"] == str(user_uuid("me")[0])
    assert json.loads(own)["user_id"] == USER
    assert "user_id" not in json.loads(lifted)["data"] | json.loads(own)["data"]


def test_a_required_user_is_null_where_data_says_so() -> None:
    [line], _ = judge(at(user_id=MISSING, data={"task_id": TASK, "command": "x", "user_id": None}))
    assert json.loads(line)["user_id"] is None
    assert "user_id" not in json.loads(line)["data"]


def test_mending_keeps_the_numbers_of_data_as_they_are() -> None:
    line = json.dumps(at(user_id="me", event_type="own", data={"n": "N"})).encode()
    line = line.replace(b'"N"', b"0.1000000000000000000000000000001")
    [mended], _, _ = Validator(clock=lambda: NOW).check([line])
    assert b'{"n": 0.1000000000000000000000000000001}' in mended


def test_strict_types_refuse_what_is_unknown() -> None:
    good, refused = judge(at(), at(event_type="TaskCreated"), at(event_type="own"), strict_types=True)
    assert len(good) == 2
    assert refused == [(2, "unknown event type", "event_type")]


def test_strict_types_know_what_the_package_makes_without_a_class() -> None:
    named = [at(event_type=name, data={}) for name in ("page_view", "user_identified", "page_engaged")]
    assert judge(*named, strict_types=True) == ([json.dumps(one).encode() for one in named], [])


def test_a_dotted_name_is_taken_for_a_tag() -> None:
    good, refused = judge(
        at(event_type="project.created", data={"project_id": TASK, "name": "x"}),
        at(event_type="cart.filled", data={}),
        at(event_type="project.created", data={}),
        at(event_type="Cart.filled", data={}),
    )
    assert [json.loads(line)["event_type"] for line in good] == ["project_created", "cart_filled", "Cart.filled"]
    assert [index for index, _, _ in refused] == [2]


def test_a_type_defined_later_is_known_then() -> None:
    validator = Validator(clock=lambda: NOW)
    line = json.dumps(at(event_type="lamp_lit", data={"watts": "many"})).encode()
    assert validator.check([line])[0] == [line]

    class LampLit(Event):
        watts: int

    assert [one.field for one in validator.check([line])[2]] == ["data.watts"]

    class LampLit(Event):  # type: ignore[no-redef]  # noqa: F811  # as a reload does
        lumens: int

    assert [one.field for one in validator.check([line])[2]] == ["data.lumens"]


def test_a_type_whose_class_cannot_be_read_is_stored_unchecked_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class UnreadableBell(Event):
        tone: NoSuchType  # type: ignore[name-defined]  # noqa: F821

    good, refused = judge(at(event_type="unreadable_bell", data={"tone": 1}), at(data={}))
    assert [json.loads(line)["event_type"] for line in good] == ["unreadable_bell"]
    assert [field for _, _, field in refused] == ["data.task_id"]
    assert judge(at(event_type="unreadable_bell"), strict_types=True)[1] == [(0, "unknown event type", "event_type")]
    assert "UnreadableBell cannot be read: its events are unchecked: name 'NoSuchType' is not defined" in caplog.text
    del UnreadableBell
    gc.collect()  # or other tests would meet it
    assert "unreadable_bell" not in event_types()


def test_the_span_is_named_in_the_reason() -> None:
    validator = Validator(retention={None: timedelta(days=7)}, max_ahead=timedelta(hours=1), clock=lambda: NOW)
    lines = [json.dumps(at(NOW + timedelta(days=days))).encode() for days in (-8, 1)]
    assert [one.reason for one in validator.check(lines)[2]] == ["older than 7 days", "more than 1 h ahead"]


@pytest.mark.parametrize(
    ("event_type", "days"),
    [("task_created", 90), ("TaskCreated", 90), ("bell_rung", 365), ("project.created", 2555), ("bell.rung", 365)],
)
def test_an_event_may_be_as_old_as_its_type_is_kept(event_type: str, days: int) -> None:
    kept = {"task_created": timedelta(days=90), "project_created": timedelta(days=2555), None: timedelta(days=365)}
    validator = Validator(retention=kept, clock=lambda: NOW)
    data = {"task_id": TASK, "project_id": TASK, "command": "build", "name": "Mill"}
    for age, reasons in ((days, []), (days + 1, [f"older than {days} days"])):
        old = json.dumps(at(NOW - timedelta(days=age), event_type=event_type, data=data)).encode()
        fresh = json.dumps(at()).encode()
        good, _, refused = validator.check([fresh, old])
        assert ([one.reason for one in refused], len(good)) == (reasons, 2 - len(reasons))


def test_the_zone_of_a_timestamp_counts() -> None:
    ahead = NOW.astimezone(timezone(timedelta(hours=14))) + timedelta(hours=23)
    assert judge(at(ahead))[1] == []


def test_values_never_stand_in_a_reason() -> None:
    secret = "s3cret"
    elements = [at() | {name: secret} for name in ("event_id", "timestamp", "data", "context")]
    elements += [at(data={"task_id": secret, "command": secret}), at(event_type=secret, data={secret: 1}, service="")]
    _, refused = judge(*elements)
    assert len(refused) == len(elements)
    assert secret not in str(refused)


def test_user_ids_of_events_that_have_none_are_kept() -> None:
    made = at(event_type="database_query", data={"query_type": "SELECT", "duration_ms": 1, "outcome": "ok"})
    assert judge(made) == ([json.dumps(made).encode()], [])
    assert "user_id" not in events.DatabaseQuery.__struct_fields__
