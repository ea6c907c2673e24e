"""Make the values that applications give fit for JSON and PostgreSQL, or refuse them with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from enum import Enum
from functools import partial
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import PurePath
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from asgi_analytics.encoding.text import clean_text
from asgi_analytics.errors import InvalidEvent

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_DEPTH = 100
"""How deep values may be nested. PostgreSQL's own parser gives up at some thousands."""

# Bound here: what freezes datetime in a test puts a class in its place whose objects cannot be encoded.
_combine, _kept = datetime.combine, (datetime, time, UUID)

_TEXTS = (PurePath, IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network)
"""Classes whose objects are stored as their text."""


class _Oversize(InvalidEvent):
    """An event is too large, which was seen before it was encoded."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"more than {max_bytes} bytes, each value counted as often as it is met")
        self.reason = "oversize"


class ByteBudget:
    """How much of an event's bytes is left to its values.

    A value that is met again and again is written each time: thirty lists that hold each other twice are a billion
    values, and an object that knows its parent has no end. The caller of `track` must not wait for that.
    """

    __slots__ = ("left", "max_bytes")

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = self.left = max_bytes

    def take(self, size: int) -> None:
        """Count so many bytes; raises `InvalidEvent` with the reason ``oversize`` if the budget does not allow them."""
        self.left -= size
        if self.left < 0:
            raise _Oversize(self.max_bytes)


def clean(value: Any, where: str, budget: ByteBudget, depth: int = 0) -> Any:
    """Return a value that JSON and PostgreSQL can hold: text cleaned, structures made of dict and list."""
    kind = type(value)
    if depth:  # a field's own text is not counted here: where it is personal, its hash is stored
        budget.take(len(value) if kind is str else 1)
    if kind is str:
        return clean_text(value)
    if value is None or kind in (bool, int, float) or isinstance(value, UUID):
        return value
    if isinstance(value, datetime):
        if value.tzinfo is None or value.utcoffset() is None:
            raise InvalidEvent(f"{where} is a naive datetime: give it a time zone, datetime.now(UTC)")
        return exact_datetime(value)
    if depth >= MAX_DEPTH:
        raise InvalidEvent(f"{where} is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        return {_clean_key(key, where, budget): clean(item, where, budget, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [clean(item, where, budget, depth + 1) for item in value]
    if isinstance(value, Enum):
        return clean(value.value, where, budget, depth + 1)
    # Text, numbers and dates with a class of their own (numpy's, markupsafe's, freezegun's) are what they are.
    if isinstance(value, str):
        return clean_text(str.__str__(value))
    if isinstance(value, int):
        return int.__index__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, date | time):
        return value.isoformat()
    # Decimals, bytes, durations, structs, dataclasses, attrs: as msgspec writes them, then look again.
    _measure(value, where, ByteBudget(budget.left), depth)
    try:
        converted = msgspec.to_builtins(
            value, builtin_types=_kept, str_keys=True, enc_hook=partial(_stand_in, where, budget.max_bytes)
        )
    except (TypeError, ValueError) as error:
        raise InvalidEvent(f"{where}: {reason_of(error)}") from None
    return clean(converted, where, budget, depth + 1)


def _stand_in(where: str, max_bytes: int, value: Any) -> Any:
    """Return what is stored for an object that msgspec does not know; raises `InvalidEvent` for what is refused."""
    kind = type(value)
    if isinstance(value, _TEXTS):
        return str(value)
    if isinstance(value, str | int | float | date):
        return clean(value, where, ByteBudget(max_bytes))
    if isinstance(value, Mapping):
        return dict(value)
    if kind.__module__.partition(".")[0] == "numpy" and hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(kind, "model_dump") and hasattr(kind, "model_fields"):  # pydantic
        return value.model_dump(mode="json")
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    raise InvalidEvent(f"{where} holds a {name}, which is unsupported: give its text, number, list or dict")


def _measure(value: Any, where: str, budget: ByteBudget, depth: int) -> None:
    """Refuse a structure that msgspec, which converts all of it in one go, would not come to an end with."""
    budget.take(1)
    if depth > MAX_DEPTH:
        raise InvalidEvent(f"{where} is nested deeper than {MAX_DEPTH} levels")
    kind = type(value)
    parts: Iterable[Any] = ()
    if isinstance(value, dict):
        parts = value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        parts = value
    elif names := getattr(kind, "__struct_fields__", None) or getattr(kind, "__dataclass_fields__", None):
        parts = (getattr(value, name, None) for name in names)
    elif kind.__module__ == "numpy":
        budget.take(int(getattr(value, "size", 1)))
    elif hasattr(kind, "model_dump") and isinstance(names := getattr(kind, "model_fields", None), dict):
        parts = (getattr(value, name, None) for name in names)
    elif attributes := getattr(kind, "__attrs_attrs__", None):
        parts = (getattr(value, attribute.name, None) for attribute in attributes)
    for part in parts:
        _measure(part, where, budget, depth + 1)


def _clean_key(key: Any, where: str, budget: ByteBudget) -> str:
    if isinstance(key, str):
        budget.take(len(key))
    if isinstance(key, str) and not isinstance(key, Enum):
        return clean_text(str.__str__(key))
    plain = msgspec.to_builtins({key: None}, str_keys=True)
    return clean_text(next(iter(plain)))


def exact_datetime(value: datetime) -> datetime:
    """Return an aware datetime as one of the standard class, whose offset is of whole minutes as in RFC 3339.

    Local times before time zones had offsets with seconds: such a moment is given in UTC.
    """
    offset = value.utcoffset()
    if offset is not None and (offset.seconds % 60 or offset.microseconds):
        value = value.astimezone(UTC)
    return _combine(value.date(), value.timetz())


def reason_of(error: Exception) -> str:
    """Return the message of a refusal, without the values that some of them quote."""
    if isinstance(error, UnicodeError):
        return "text that cannot be encoded"
    if isinstance(error, msgspec.ValidationError):
        what, _, where = str(error).partition(" - at ")
        what = what if what.startswith(("Expected", "Object missing")) else "a value is refused"
        return f"{what} at {where}" if where else what
    return str(error)
