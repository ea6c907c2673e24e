"""Who is who: the UUID that stands for a user, and the keyed hash of what is personal."""

from __future__ import annotations

import hmac
import re
from functools import lru_cache
from typing import TYPE_CHECKING, TypeGuard
from uuid import UUID, uuid5

from asgi_analytics.encoding.text import clean_text
from asgi_analytics.events.base import USER_NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_BITS = 4_096
"""Of a number that is a user's: Python does not write much longer ones as text."""

_SPELLS_A_UUID = re.compile(r"[0-9a-fA-F]{32}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}").fullmatch


@lru_cache(maxsize=4096)
def _mapped(user_id: str) -> tuple[UUID, str | None]:
    if _SPELLS_A_UUID(user_id):
        return UUID(user_id), None
    return uuid5(USER_NAMESPACE, user_id), user_id


def is_id(value: object) -> TypeGuard[UUID | str | int]:
    """Tell whether a value can be a ``user_id``."""
    if isinstance(value, int):
        return not isinstance(value, bool) and value.bit_length() <= MAX_BITS
    return isinstance(value, UUID | str)


def user_uuid(user_id: object) -> tuple[UUID, str | None]:
    """Return the UUID that stands for a user, and the original where it was no UUID.

    A UUID, or a str that spells one (with or without hyphens), is taken as it is. Any other str or int is mapped by
    ``uuid5(USER_NAMESPACE, str(user_id))``: the same in every process and service; 42 and "42" are one user.
    Raises TypeError for any other type.
    """
    if isinstance(user_id, UUID):
        return user_id, None
    if isinstance(user_id, bool) or not isinstance(user_id, str | int):
        raise TypeError(f"a user_id is a UUID, a str or an int, not {type(user_id).__name__}")
    return _mapped(clean_text(str.__str__(user_id) if isinstance(user_id, str) else int.__repr__(user_id)))


def personal_hash(hash_key: bytes | None, keep: bool) -> Callable[[str], str]:
    """Return what is done to a personal value: HMAC-SHA256 in hex, ``***`` without a key, nothing when it is kept."""
    if keep:
        return clean_text
    if hash_key is None:
        return lambda text: "***"

    def keyed(text: str) -> str:
        return hmac.digest(hash_key, clean_text(text).encode(), "sha256").hex()

    return keyed
