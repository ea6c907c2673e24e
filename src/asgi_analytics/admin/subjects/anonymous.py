"""What is left of an event without the person: members are taken out, all others keep every byte."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec

from asgi_analytics.admin.subjects.subject import MASK, Number, decoded, words
from asgi_analytics.encoding.shape import UNREADABLE
from asgi_analytics.errors import ConfigError
from asgi_analytics.events.base import PERSONAL, event_types

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asgi_analytics.admin.subjects.subject import Subject
    from asgi_analytics.events.base import Event

PERSONAL_WORDS = frozenset({
    "email", "emails", "mail", "mails", "useremail",
    "phone", "phones", "telephone", "telephones", "mobile", "mobiles", "fax", "phonenumber",
    "address", "addresses", "addr", "street", "postcode", "postalcode", "zip", "zipcode",
    "ip", "ips", "ipaddress", "ipaddr", "ipv4", "ipv6", "remoteaddr", "emailaddress",
    "useragent", "ua",
})  # fmt: skip
"""Words in the names of members that hold e-mail, phone, address, IP address or user agent."""

PERSONAL_PAIRS = frozenset({("e", "mail"), ("user", "agent"), ("postal", "code"), ("zip", "code")})

CONNECTING = frozenset({"visitor", "user_key", "session_id", "user_id"})
"""Members of the context that say who it was, or connect events."""

E_MAIL = re.compile(r"[^\s@<>()\[\]{}\"',;:=]+@[^\s@<>()\[\]{}\"',;:=]+\.[^\s@<>()\[\]{}\"',;:=]+")

IDENTIFIED = "user_identified"
"""Its data is nothing but what was told of the person."""

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_items = msgspec.json.Decoder(list[msgspec.Raw])
_encode = msgspec.json.Encoder().encode


def is_personal(name: str) -> bool:
    """Tell whether a member of this name holds e-mail, phone, address, IP address or user agent."""
    found = words(name)
    return not PERSONAL_WORDS.isdisjoint(found) or not PERSONAL_PAIRS.isdisjoint(pairwise(found))


def personal_fields() -> dict[str, frozenset[str]]:
    """Return the ``Personal`` fields of every event class that is defined now, as they are stored, by its type.

    Raises `ConfigError` if the fields of a class cannot be read.
    """
    found = {tag: _personal_fields_of(cls) for tag, cls in event_types().items()}
    return {tag: names for tag, names in found.items() if names}


def _personal_fields_of(cls: type[Event]) -> frozenset[str]:
    try:
        fields = msgspec.structs.fields(cls)
    except UNREADABLE as error:
        name = f"{cls.__module__}.{cls.__qualname__}"
        raise ConfigError(f"which fields of {name} are personal cannot be read: {error}") from None
    return frozenset(field.encode_name for field in fields if _is_marked(field.type))


def _is_marked(annotation: Any) -> bool:
    metadata = getattr(annotation, "__metadata__", ())
    if any(isinstance(one, msgspec.Meta) and (one.extra or {}).get(PERSONAL) for one in metadata):
        return True
    return any(_is_marked(part) for part in getattr(annotation, "__args__", ()))


class Anonymous:
    """Makes events anonymous: those of ``subject``, with the ``personal`` fields of each type."""

    def __init__(self, subject: Subject, personal: Mapping[str, frozenset[str]]) -> None:
        self._subject = subject
        self._personal = personal

    def data(self, event_type: str, data: bytes) -> bytes:
        """Return the JSON of the data of an event of this type without what is personal."""
        if event_type == IDENTIFIED:
            return b"{}"
        return self._without(data, self._personal.get(event_type, frozenset()))

    def context(self, context: bytes) -> bytes:
        """Return the JSON of a context without who it was, or what connects it with other events."""
        return self._without(context, CONNECTING)

    def event(self, line: bytes) -> bytes:
        """Return the JSON of a whole event; raises `msgspec.DecodeError` or `msgspec.ValidationError`."""
        members = _members.decode(line)
        event_type = decoded(bytes(members.get("event_type", msgspec.Raw(b"null"))))
        parts: dict[str, msgspec.Raw] = {}
        for name, value in members.items():
            if name in ("user_id", "session_id"):
                parts[name] = msgspec.Raw(b"null")
            elif name == "data" and isinstance(event_type, str):
                parts[name] = msgspec.Raw(self.data(event_type, bytes(value)))
            elif name == "context":
                parts[name] = msgspec.Raw(self.context(bytes(value)))
            else:
                parts[name] = msgspec.Raw(self._without(bytes(value)))
        return _encode(parts)

    def _without(self, value: bytes, fields: frozenset[str] = frozenset(), *, name: str = "") -> bytes:
        """Return JSON without what is personal, and without the members ``fields`` of the object that it is."""
        first = value.lstrip()[:1]
        if first == b"{":
            return _encode(
                {
                    member: msgspec.Raw(self._without(bytes(inner), name=member))
                    for member, inner in _members.decode(value).items()
                    if member not in fields and not self._goes(member, bytes(inner))
                }
            )
        if first == b"[":
            return _encode(
                [
                    msgspec.Raw(b"null" if self._goes(name, bytes(item)) else self._without(bytes(item), name=name))
                    for item in _items.decode(value)
                ]
            )
        if first != b'"':
            return value
        text = decoded(value)
        masked = E_MAIL.sub(MASK, self._subject.masked(text))
        return value if masked == text else _encode(masked)

    def _goes(self, name: str, value: bytes) -> bool:
        """Tell whether a member goes as a whole. Whether an e-mail was verified is told by a boolean, which stays."""
        if self._subject.is_in(name):
            return True
        if value.strip() in (b"true", b"false", b"null"):
            return False
        if is_personal(name):
            return True
        if value.lstrip()[:1] in (b"{", b"["):
            return False
        said = decoded(value)
        # A text that quotes the id among other words stays, without it.
        whole = isinstance(said, Number) or said in self._subject.keys or self._subject.masked(said) == MASK
        return whole and self._subject.is_value(name, said)
