"""A person whose data is asked for or erased: every form in which an id is stored, and how it is found in JSON."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from asgi_analytics.encoding.users import is_id, user_uuid
from asgi_analytics.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

SHORT = 4
"""A user_key of fewer characters is no id wherever it stands: 42 is also a number, and "ok" a word. It is looked for in
members only whose names say that they hold an id."""

LONG_NUMBER = 6
"""A number of so many digits that is a user_key is taken for it, whatever the name of its member."""

MASK = "***"

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_IDS = frozenset({"id", "ids", "key", "uid", "user", "users"})


class Number(str):
    """A number of JSON as it is spelled: no int is too long for it, and no float too large."""

    __slots__ = ()


def decoded(line: str | bytes) -> Any:
    """Return what JSON holds, with each number as a `Number`. Raises ValueError or RecursionError."""
    return json.loads(line, parse_int=Number, parse_float=Number)


def words(name: str) -> list[str]:
    """Return the words of the name of a member, in lower case: ``userAgent`` and ``user_agent`` have the same."""
    return [word.lower() for word in _WORD.findall(name)]


def names_id(name: str) -> bool:
    """Tell whether a member of this name holds an id."""
    found = words(name)
    return bool(found) and (found[-1] in _IDS or "user" in found)


class Subject:
    """A user in all forms in which rows may hold the id.

    ``user`` is the id as the application says it: a UUID, str or int. ``keys`` are the originals that the rows have in
    ``context.user_key``; `learn` adds one that is found although the id was given as the UUID that stands for it.

    Raises `ConfigError` for what cannot be a ``user_id``.
    """

    def __init__(self, user: object) -> None:
        if not is_id(user):
            raise ConfigError(f"a user is a UUID, a str or an int, not {type(user).__name__}")
        self.uuid, key = user_uuid(user)
        self.keys: tuple[str, ...] = ()
        self.hash = UUID(bytes=hashlib.md5(str(self.uuid).encode(), usedforsecurity=False).digest())
        """What aggregates count visitors by, as the function ``md5`` of PostgreSQL makes it."""
        self._uuids = re.compile(f"{self.uuid}|{self.uuid.hex}|{self.hash}|{self.hash.hex}", re.IGNORECASE)
        if key is not None:
            self._add(key)
        else:
            self._compile()

    def learn(self, key: object) -> None:
        """Take a ``user_key`` that stands beside the UUID, if the UUID is made of it."""
        if isinstance(key, str) and key not in self.keys and user_uuid(key) == (self.uuid, key):
            self._add(key)

    def _add(self, key: str) -> None:
        self.keys = (*self.keys, key)
        self._compile()

    def _compile(self) -> None:
        long = [re.escape(key) for key in self.keys if len(key) >= SHORT]
        self._words = re.compile(rf"(?<!\w)(?:{'|'.join(long)})(?!\w)") if long else None

    def keyed_hash(self, key: bytes) -> str:
        """Return what the log of requests has of the person: HMAC-SHA256 of the UUID, in hex."""
        return hmac.digest(key, str(self.uuid).encode(), "sha256").hex()

    # -- for the server

    def needles(self) -> tuple[list[str], list[str]]:
        """Return what the JSON text of rows that may quote the id has in it: four texts in any case, the first two of
        the UUID, the others of its hash; and patterns of LIKE for the originals as they are spelled.

        More rows have it than quote the id: `quoted_in` decides.
        """
        any_case, exact = self.texts()
        return any_case, [_like(text) for text in exact]

    def texts(self) -> tuple[list[str], list[str]]:
        """Return the same with the texts themselves in place of patterns."""
        any_case = [str(self.uuid), self.uuid.hex, str(self.hash), self.hash.hex]
        exact = []
        for key in self.keys:
            escaped = msgspec.json.encode(key).decode()
            exact.append(escaped[1:-1] if len(key) >= SHORT else escaped)
            if len(key) < SHORT and _is_number(key):
                exact += [f": {key}", f":{key}"]
        return any_case, exact

    def patterns(self) -> list[str]:
        """Return regular expressions of PostgreSQL for the id in a text."""
        long = [re.sub(r"([^\w])", r"\\\1", key) for key in self.keys if len(key) >= SHORT]
        return [f"(?i){self._uuids.pattern}", *(rf"(?<!\w){key}(?!\w)" for key in long)]

    # -- in JSON that was read

    def owns(self, event: Any) -> bool:
        """Tell whether an event is this person's: by its ``user_id``, or by ``context.user_key``."""
        if not isinstance(event, dict):
            return False
        user, context = event.get("user_id"), event.get("context")
        if is_id(user) and user_uuid(str(user))[0] == self.uuid:
            return True
        return user is None and isinstance(context, dict) and self.is_key(context.get("user_key"))

    def is_key(self, value: object) -> bool:
        """Tell whether a value is the id as the application said it."""
        return isinstance(value, str) and value in self.keys

    def is_in(self, text: str) -> bool:
        """Tell whether a text quotes the id."""
        return bool(self._uuids.search(text) or (self._words and self._words.search(text)))

    def is_value(self, name: str, value: object) -> bool:
        """Tell whether a member of JSON that was `decoded`, by its name, holds or quotes the id."""
        if isinstance(value, Number):
            return value in self.keys and (names_id(name) or len(value) >= LONG_NUMBER)
        return isinstance(value, str) and (self.is_in(value) or (value in self.keys and names_id(name)))

    def masked(self, text: str) -> str:
        """Return a text with asterisks in place of the id."""
        text = self._uuids.sub(MASK, text)
        return self._words.sub(MASK, text) if self._words else text

    def quoted_in(self, value: Any, path: str = "") -> Iterator[str]:
        """Yield the paths of the members of JSON that hold the id: ``data.reviewer_id``, ``data.notes[0]``."""
        if isinstance(value, dict):
            for name, member in value.items():
                inner = f"{path}.{name}" if path else name
                if self.is_in(name) or self.is_value(name, member):
                    # The name of a member may be the id itself.
                    yield self.masked(inner)
                else:
                    yield from self.quoted_in(member, inner)
        elif isinstance(value, list):
            for place, item in enumerate(value):
                name = path.rpartition(".")[2]
                if self.is_value(name, item):
                    yield f"{path}[{place}]"
                else:
                    yield from self.quoted_in(item, f"{path}[{place}]")


def _is_number(key: str) -> bool:
    return key.removeprefix("-").isascii() and key.removeprefix("-").isdigit()


def _like(needle: str) -> str:
    return "%" + needle.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
