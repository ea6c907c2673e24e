"""User ids of any kind, and what is personal."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import threading
from typing import Any
from uuid import UUID, uuid5

import msgspec
import pytest

from asgi_analytics import EnrichedEvent, Event, events, set_session, set_user
from asgi_analytics.errors import ConfigError, InvalidEvent
from asgi_analytics.events import USER_NAMESPACE, Personal
from asgi_analytics.testing import capture_events

ID = UUID("0198c1a2-0000-7000-8000-000000000001")


class UserSeen(Event):
    user_id: UUID | str | int | None = None


class NobodyHeard(Event):
    """Has no user of its own."""


def tracked(event: Event, **settings: Any) -> EnrichedEvent:
    with capture_events(**{"strict": True, **settings}) as captured:
        captured.client.track(event)
    return captured.events[0]


@pytest.mark.parametrize("user", [ID, str(ID), str(ID).upper(), ID.hex])
def test_a_uuid_is_the_user_id_as_it_is(user: Any) -> None:
    event = tracked(UserSeen(user_id=user))
    assert event.user_id == ID
    assert "user_key" not in (event.context or {})
    assert event.data == {}


@pytest.mark.parametrize(
    "user",
    ["ada", "", "ada@example.org", 42, -1, 0, "42", "{0198c1a2-0000-7000-8000-000000000001}", "1_2_" * 8, "٣" * 32],
)
def test_any_other_text_or_number_is_mapped_and_kept_beside(user: Any) -> None:
    event = tracked(UserSeen(user_id=user))
    assert event.user_id == uuid5(USER_NAMESPACE, str(user))
    assert (event.context or {})["user_key"] == str(user)


def test_the_mapping_is_fixed_for_ever() -> None:
    assert tracked(UserSeen(user_id="ada")).user_id == UUID("bbbdb8f8-367c-533e-aa05-315b7d3e64d4")
    assert str(USER_NAMESPACE) == "6d2f5a5e-3f43-5d0c-9b5a-0d1c6b7f6a10"


def test_a_number_and_its_digits_are_one_user() -> None:
    assert tracked(UserSeen(user_id=42)).user_id == tracked(UserSeen(user_id="42")).user_id


@pytest.mark.parametrize("user", [True, False, 1.5, b"ada", ["ada"], object()])
def test_what_cannot_be_a_user_is_refused(user: Any) -> None:
    with pytest.raises(InvalidEvent, match="a user_id is a UUID, a str or an int, not"):
        tracked(UserSeen(user_id=user))


@pytest.mark.parametrize("error", [None, "no such code", "\ud800"])  # the last takes the thorough way
def test_a_required_user_whom_nobody_knows_is_null_or_that_of_the_surroundings(error: str | None) -> None:
    attempt = events.AuthCodeVerified(user_id=None, success=False, error=error)  # type: ignore[arg-type]
    assert tracked(attempt).user_id is None
    set_user(ID)
    assert tracked(attempt).user_id == ID


@pytest.mark.parametrize("user", ["ada", 42, ID])
def test_the_user_of_the_surroundings_is_the_user_of_events_that_name_none(user: Any) -> None:
    set_user(user)
    expected = tracked(UserSeen(user_id=user)).user_id
    for event in (UserSeen(), NobodyHeard(), events.CocoonConnected(cocoon_id=ID)):
        assert tracked(event).user_id == expected


def test_the_user_of_the_event_wins_over_that_of_the_surroundings() -> None:
    set_user("ada")
    event = tracked(UserSeen(user_id="grace"))
    assert event.user_id == uuid5(USER_NAMESPACE, "grace")
    assert (event.context or {})["user_key"] == "grace"
    assert "user_key" not in (tracked(UserSeen(user_id=ID)).context or {})


def test_user_and_session_hold_for_the_context_they_were_set_in() -> None:
    async def visit(name: str) -> None:
        set_user(name)
        set_session(f"session of {name}")
        await asyncio.sleep(0)
        captured.client.track(NobodyHeard())

    async def both() -> None:
        await asyncio.gather(visit("ada"), visit("grace"))

    with capture_events(strict=True) as captured:
        asyncio.run(both())
        thread = threading.Thread(target=captured.client.track, args=(NobodyHeard(),))
        thread.start()
        thread.join()
    users = [(event.context or {}).get("user_key") for event in captured.events]
    assert users == ["ada", "grace", None]
    assert [event.session_id for event in captured.events] == ["session of ada", "session of grace", None]


LOGIN = events.AuthLoginAttempt(email="ada@example.org", success=True)


def test_a_personal_field_is_hidden_without_a_key() -> None:
    assert tracked(LOGIN).data["email"] == "***"
    assert tracked(events.OAuthFlowStarted(user_id=1, provider="git", state="s3cret")).data["state"] == "***"


@pytest.mark.parametrize("key", ["a key", b"a key"])
def test_a_personal_field_is_stored_as_its_keyed_hash(key: str | bytes) -> None:
    expected = hmac.new(b"a key", b"ada@example.org", hashlib.sha256).hexdigest()
    assert tracked(LOGIN, hash_key=key).data["email"] == expected
    assert tracked(LOGIN, hash_key="another").data["email"] != expected


def test_a_personal_field_is_kept_only_where_that_is_said() -> None:
    assert tracked(LOGIN, keep_personal_data=True, hash_key="a key").data["email"] == "ada@example.org"


def test_a_personal_field_is_hidden_on_the_thorough_way_too() -> None:
    class Invited(Event):
        email: Personal[str]
        guests: list[Personal[str]] | None = None
        phone: Personal[str] | None = None
        number: Personal[int] | None = None
        anything: Any = None

    event = tracked(Invited(email="a", guests=["b"], phone="c", number=4, anything=[1]), hash_key="k")
    assert event.data["email"] == hmac.new(b"k", b"a", hashlib.sha256).hexdigest()
    assert all(len(event.data[name]) == 64 for name in ("guests", "phone", "number"))
    assert tracked(Invited(email="a", guests=["b"])).data == {"email": "***", "guests": "***"}
    kept = tracked(Invited(email="a", guests=["b"], number=4), keep_personal_data=True).data
    assert kept == {"email": "a", "guests": ["b"], "number": 4}


def test_an_optional_personal_field_that_is_none_stays_none() -> None:
    class Called(Event):
        phone: Personal[str] | None = None
        name: Personal[str] | None

    assert dict(tracked(Called(name=None), hash_key="k").data) == {"name": None}


def test_a_wrong_value_in_a_personal_field_is_refused() -> None:
    with pytest.raises(InvalidEvent, match="Expected `str`"):
        tracked(events.AuthLoginAttempt(email=7, success=True))  # type: ignore[arg-type]


def test_the_same_address_has_the_same_hash_whatever_else_the_event_holds() -> None:
    plain = events.AuthLoginAttempt(email="a\x00b\ud800", success=True)
    mended = events.AuthLoginAttempt(email="a\x00b\ud800", success=True, error="\x00")
    assert tracked(plain, hash_key="k").data["email"] == tracked(mended, hash_key="k").data["email"]


class Guest(msgspec.Struct):
    friends: list[Guest] = []
    email: Personal[str] = ""


def test_a_personal_field_below_the_event_is_refused_rather_than_stored() -> None:
    class Table(Event):
        guests: list[Guest]

    with pytest.raises(InvalidEvent, match="guests has a Personal field inside"):
        tracked(Table(guests=[Guest(email="ada@example.org")]))


def test_an_empty_key_is_refused() -> None:
    with pytest.raises(ConfigError, match="hash_key"), capture_events(hash_key=""):
        pass
