"""In which forms a person is found, and what is left of an event without the person."""

from __future__ import annotations

import gc
import json
from typing import Any
from uuid import UUID, uuid5

import pytest

from asgi_analytics.admin.subjects.anonymous import Anonymous, is_personal, personal_fields
from asgi_analytics.admin.subjects.subject import Subject, decoded
from asgi_analytics.errors import ConfigError
from asgi_analytics.events import USER_NAMESPACE, Event, Personal
from asgi_analytics.events.base import event_types

USER = UUID("0198c0de-77aa-7bcd-8eef-0123456789ab")
KEYED = uuid5(USER_NAMESPACE, "customer-4711")


def anonymous(user: Any, line: dict[str, Any]) -> Any:
    return json.loads(Anonymous(Subject(user), personal_fields()).event(json.dumps(line).encode()))


def quoted(user: Any, value: Any) -> list[str]:
    return list(Subject(user).quoted_in(decoded(json.dumps(value))))


@pytest.mark.parametrize("user", [USER, str(USER), USER.hex, str(USER).upper()])
def test_a_uuid_is_found_in_every_spelling(user: Any) -> None:
    for text in (str(USER), USER.hex, str(USER).upper(), f"urn:uuid:{USER}", f"/users/{USER}/orders", f"x{USER.hex}y"):
        assert quoted(user, {"data": {"page": text}}) == ["data.page"]
    assert quoted(user, {"data": {"page": str(USER)[:-1]}}) == []
    assert quoted(user, {"data": {str(USER): 1}}) == ["data.***"]


@pytest.mark.parametrize(
    ("user", "key"), [("customer-4711", "customer-4711"), (987654, "987654"), ("987654", "987654")]
)
def test_another_id_is_found_as_it_was_given_and_as_its_uuid(user: Any, key: str) -> None:
    mapped = uuid5(USER_NAMESPACE, key)
    assert quoted(user, {"a": [key, f"of {key}.", mapped.hex]}) == ["a[0]", "a[1]", "a[2]"]
    assert quoted(user, {"a": f"x{key}", "b": f"{key}0", "c": [f"{key}_"]}) == []


def test_a_short_id_is_found_only_where_an_id_stands() -> None:
    row = {
        "count": 42,
        "price": "42",
        "user_id": 42,
        "userId": "42",
        "context": {"user_key": "42"},
        "pages": [42, "42"],
    }
    assert quoted(42, row) == ["user_id", "userId", "context.user_key"]
    assert quoted("ok", {"outcome": "ok", "text": "all is ok", "reviewer_id": "ok"}) == ["reviewer_id"]
    assert quoted(987654, {"count": 987654, "other": 98765.4}) == ["count"]


@pytest.mark.parametrize("value", [True, 1.5, None, b"x", [], 2**5000])
def test_what_cannot_be_a_user_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError):
        Subject(value)


def test_numbers_and_nests_of_any_size_are_read() -> None:
    assert list(Subject(USER).quoted_in(decoded(b'{"a": 1e400, "b": ' + b"1" * 5000 + b"}"))) == []
    with pytest.raises(RecursionError):
        decoded(b"[" * 200_000 + b"]" * 200_000)


def test_the_original_is_learned_only_if_the_uuid_is_made_of_it() -> None:
    subject = Subject(KEYED)
    subject.learn("somebody")
    subject.learn(str(KEYED))
    subject.learn(None)
    assert not subject.keys
    subject.learn("customer-4711")
    assert subject.keys == ("customer-4711",)
    assert subject.owns({"user_id": None, "context": {"user_key": "customer-4711"}})
    assert not subject.owns({"user_id": str(USER), "context": {"user_key": "customer-4711"}})


def test_the_hash_in_the_log_needs_the_key() -> None:
    one = Subject("customer-4711")
    assert one.keyed_hash(b"a") == Subject(KEYED).keyed_hash(b"a") != one.keyed_hash(b"b")
    assert str(KEYED) not in one.keyed_hash(b"a")


@pytest.mark.parametrize(
    "name",
    ["email", "e_mail", "contactEmail", "EMAIL", "user.e-mail", "phone", "phone_number", "mobilePhone", "address",
     "billing_address", "zip_code", "ip", "client_ip", "ipAddress", "remote_addr", "user_agent", "userAgent", "UA"],
)  # fmt: skip
def test_what_is_personal_is_seen_by_its_name(name: str) -> None:
    assert is_personal(name)


@pytest.mark.parametrize("name", ["page", "tip", "ipsum", "description", "agent", "zipper", "emailed", "os"])
def test_other_names_are_not_personal(name: str) -> None:
    assert not is_personal(name)


def test_an_event_is_left_without_the_person_and_otherwise_as_it_was() -> None:
    line = {
        "event_id": "0198c0de-77aa-7bcd-8eef-00000000ffff",
        "event_type": "order_placed",
        "timestamp": "2026-11-20T12:00:00Z",
        "service": "shop",
        "user_id": str(KEYED),
        "session_id": "s1",
        "data": {
            "total": 12.50,
            "email": "ann@example.com",
            "email_verified": True,
            "address": {"city": "Ulm"},
            "buyers": [{"phone": "1", "name": "x", "user_id": "customer-4711"}, "customer-4711", 3],
            "owner": str(KEYED),
            "note": "customer-4711 wrote from ann@example.com",
            "page": f"/users/{KEYED.hex}/orders",
            str(KEYED): 1,
        },
        "context": {"visitor": "v1", "user_key": "customer-4711", "trace_id": "t", "device": {"browser": "Firefox"}},
    }
    assert anonymous("customer-4711", line) == {
        **line,
        "user_id": None,
        "session_id": None,
        "data": {
            "total": 12.50,
            "email_verified": True,
            "buyers": [{"name": "x"}, None, 3],
            "note": "*** wrote from ***",
            "page": "/users/***/orders",
        },
        "context": {"trace_id": "t", "device": {"browser": "Firefox"}},
    }


def test_members_that_stay_keep_every_digit() -> None:
    one = Anonymous(Subject(USER), {})
    numbers = b'{"a":1.00000000000000000000000001,"b":1e400,"c":' + b"9" * 5000 + b"}"
    assert one.data("order_placed", numbers) == numbers


class LetterSent(Event):
    """Has a personal field whose name says nothing."""

    to: Personal[str]
    weight: int


def test_personal_fields_of_the_classes_go() -> None:
    assert personal_fields()["auth_login_attempt"] == {"email"}
    one = Anonymous(Subject(USER), personal_fields())
    assert one.data("letter_sent", b'{"to":"f00d","weight":20}') == b'{"weight":20}'
    assert one.data("another", b'{"to":"f00d"}') == b'{"to":"f00d"}'


def test_a_class_whose_personal_fields_cannot_be_read_is_named() -> None:
    class UnreadableLetter(Event):
        to: NoSuchType  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(ConfigError, match=r"which fields of .*UnreadableLetter are personal cannot be read: name 'NoS"):
        personal_fields()
    del UnreadableLetter
    gc.collect()  # or other tests would meet it
    assert "unreadable_letter" not in event_types()


def test_what_was_told_of_the_person_goes_as_a_whole() -> None:
    assert Anonymous(Subject(USER), {}).data("user_identified", b'{"plan":"pro","name":"Ann"}') == b"{}"
