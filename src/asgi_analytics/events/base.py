"""What an event is: the base class, its tag, and the envelope it travels and rests in."""

from __future__ import annotations

import gc
import re
from datetime import UTC, datetime
from itertools import count
from typing import Annotated, Any, ClassVar, Literal, TypeVar, dataclass_transform
from uuid import UUID
from weakref import WeakValueDictionary

import msgspec

from asgi_analytics.errors import ConfigError, DuplicateEventType

UserId = UUID | str | int

USER_NAMESPACE = UUID("6d2f5a5e-3f43-5d0c-9b5a-0d1c6b7f6a10")
"""Namespace of the UUIDv5 (RFC 9562, 5.5) that stands for a user id that is not a UUID: ``uuid5(it, str(user_id))``."""

_T = TypeVar("_T")

PERSONAL = "asgi_analytics_personal"
Personal = Annotated[_T, msgspec.Meta(extra={PERSONAL: True})]
"""``Personal[str]`` marks a field that is stored as its keyed hash: HMAC-SHA256 under the client's ``hash_key``."""

Category = Literal["system", "interaction", "activity", "transaction", "content"]
"""The class of event that decides how long its rows are kept."""

_WORD_ENDS = re.compile(r"([a-z0-9])([A-Z])|([A-Z]+)([A-Z][a-z])")


def snake_case(name: str) -> str:
    """Return the tag of a class name: ``TaskCreated`` is ``task_created``, ``OAuthFlowStarted`` ``oauth_flow_started``.

    A run of capitals is one word (``HTTPCallMade``: ``http_call_made``); OAuth is a word of its own.
    """
    name = name.replace("OAuth", "Oauth")
    return _WORD_ENDS.sub(lambda m: f"{m[1] or m[3]}_{m[2] or m[4]}", name).lower()


_types: WeakValueDictionary[str, type[Event]] = WeakValueDictionary()
_definitions = count(1)
_newest = 0


METRIC = "$metric"
"""The type of the lines that hold a metric and no event; no event has it."""


class EventMeta(msgspec.StructMeta):
    """Makes event classes frozen and their fields keywords, and registers each under its tag, which must be free."""

    def __new__(
        mcls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        registered: bool = True,
        **options: Any,
    ) -> Any:
        """Make the class; raise `ConfigError` for a tag that is no name, `DuplicateEventType` for one that is taken.

        A class that is not ``registered`` has no tag: each of its events says its type itself.
        """
        options = {"frozen": True, "kw_only": True} | ({} if registered else {"tag": False}) | options
        cls: Any = super().__new__(mcls, name, bases, namespace, **options)
        # Not Event itself, which is nothing that happened.
        if registered and any(isinstance(base, EventMeta) for base in bases):
            tag = cls.__struct_config__.tag
            if not isinstance(tag, str) or not tag.strip():
                raise ConfigError(
                    f"{name} has the tag {tag!r}: use a name, as in class {name}(Event, tag='order_placed')"
                )
            if tag == METRIC:
                raise ConfigError(f"{name} has the tag {METRIC}, which the lines of metrics have: give it another one")
            _claim(event_type_of(cls), cls)
        return cls


def _claim(tag: str, cls: type[Event]) -> None:
    other = _types.get(tag)
    same = other is not None and (other.__module__, other.__qualname__) == (cls.__module__, cls.__qualname__)
    if other is not None and not same and "<locals>" in other.__qualname__:
        # A class made in a function (a test, mostly) may be gone but for a reference cycle.
        del other
        gc.collect()
        other = _types.get(tag)
    if other is not None and not same:
        raise DuplicateEventType(
            f"{cls.__module__}.{cls.__qualname__} has the tag {tag!r}, which {other.__module__}.{other.__qualname__} "
            f"has already: rename the class or give it a tag of its own, class {cls.__name__}(Event, tag='…')"
        )
    # The same name in the same module is the same class defined anew: a reload, or a notebook cell run twice.
    _types[tag] = cls
    global _newest
    _newest = next(_definitions)


# For type checkers; EventMeta makes it true.
@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Event(
    msgspec.Struct,
    metaclass=EventMeta,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    tag=snake_case,
    tag_field="$type",  # never the name of a field: no identifier starts with a dollar sign
):
    """Base of every event: a frozen struct named in the past tense.

    Subclass it for the events of your own domain; the class name in snake_case is the event type::

        class OrderPlaced(Event):
            order_id: int
            total: float
            user_id: UUID | str | int | None = None

    A field called ``user_id`` is lifted out of the stored ``data`` into the column of that name. Fields that are None
    by default are left out of the stored JSON while they are None. ``Personal[str]`` fields are stored hashed.
    A class attribute ``category: ClassVar[Category] = "transaction"`` says which category its rows belong to.
    """

    category: ClassVar[Category] = "interaction"


def event_types() -> dict[str, type[Event]]:
    """Return every event class that is defined now, by its tag."""
    # The references are copied in one step: a class may be collected, or made by another thread, at any moment.
    living = [cls for reference in _types.valuerefs() if (cls := reference()) is not None]
    return {event_type_of(cls): cls for cls in living}


def event_class(name: str) -> type[Event] | None:
    """Return the event class with a tag, or else of that class name; None where there is none, or not one alone."""
    known = _types.get(name)
    if known is not None or name.islower():  # a class name has a capital
        return known
    named = [cls for cls in event_types().values() if cls.__name__ == name]
    return named[0] if len(named) == 1 else None


def event_type_of(cls: type[Event]) -> str:
    """Return the tag of an event class, the ``event_type`` of its rows."""
    tag = cls.__struct_config__.tag
    if not isinstance(tag, str):
        raise TypeError(f"{cls.__name__} has no event type")
    return tag


def known_categories() -> dict[str, Category]:
    """Return the category of every event class that is defined now, by its tag; all other types are `interaction`."""
    # A class whose events have a field of that name says nothing of its category.
    return {
        tag: cls.category if isinstance(cls.category, str) else Event.category for tag, cls in event_types().items()
    }


def definitions() -> int:
    """Return the number of the newest event class, which tells at no cost whether there is another one since."""
    return _newest


def categories_to_note() -> dict[str, Category]:
    """Return the category of every class that is not of the catalogue and is kept otherwise than a type without one."""
    return {
        tag: cls.category
        for tag, cls in event_types().items()
        if isinstance(cls.category, str)
        and cls.category != Event.category
        and not cls.__module__.startswith("asgi_analytics.events.")
    }


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """What the pipeline needs to know of an encoded event, its data left as they are."""

    event_id: UUID
    event_type: str
    timestamp: datetime
    service: str
    user_id: UUID | None = None
    session_id: str | None = None


class EnrichedEvent(msgspec.Struct, frozen=True):
    """An event as it is stored and sent: with identity, time, service and context.

    ``timestamp`` is aware and in UTC; ``data`` holds the event's own fields as JSON values, without ``user_id``.
    Optional fields that were None are not in ``data``; reading one by its name gives None.
    """

    event_id: UUID
    event_type: str
    timestamp: Annotated[datetime, msgspec.Meta(tz=True)]
    service: str
    data: dict[str, Any]
    user_id: UUID | None = None
    session_id: str | None = None
    context: dict[str, Any] | None = None

    @classmethod
    def from_json(cls, line: bytes | str) -> EnrichedEvent:
        """Decode one event from its JSON; raises `msgspec.DecodeError` or `msgspec.ValidationError`."""
        event = _decode_enriched(line)
        data = named_data(event.event_type, event.data)
        return msgspec.structs.replace(event, data=data, timestamp=event.timestamp.astimezone(UTC))

    def to_json(self) -> bytes:
        """Encode to the JSON that is stored and sent."""
        return _encode(self)


def named_data(event_type: str, data: dict[str, Any]) -> dict[str, Any]:
    """Return the data of an event so that an optional field of a known type reads as None if it was left out."""
    known = _types.get(event_type)
    return data if known is None else _Data(data, known)


class _Data(dict[str, Any]):
    """The fields of an event of a known type: an optional one that was left out reads as None."""

    __slots__ = ("_fields",)

    def __init__(self, values: dict[str, Any], event_class: type[Event]) -> None:
        super().__init__(values)
        self._fields = frozenset(event_class.__struct_encode_fields__)

    def __missing__(self, key: str) -> Any:
        if key in self._fields and key != "user_id":
            return None
        raise KeyError(key)


_encode = msgspec.json.Encoder().encode
_decode_enriched = msgspec.json.Decoder(EnrichedEvent).decode
decode_envelope = msgspec.json.Decoder(Envelope).decode
