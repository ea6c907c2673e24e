"""Who is who: event ids, user ids, and the keyed hash of what is personal."""

from __future__ import annotations

import hmac
import re
from functools import lru_cache
from time import time_ns
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

from asgi_analytics.events.minting import advance, base, next_millisecond, step

if TYPE_CHECKING:
    from collections.abc import Callable

USER_NAMESPACE = UUID("6d2f5a5e-3f43-5d0c-9b5a-0d1c6b7f6a10")
"""Namespace of the UUIDv5 (RFC 9562, 5.5) that stands for a user id which is no UUID: ``uuid5(it, str(user_id))``."""

_SPELLS_A_UUID = re.compile(r"[0-9a-fA-F]{32}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}").fullmatch

MINT_SOURCE = """\
ns = time_ns()
if ns >= next[0]:
    advance(ns)
event_id = new(UUID)
set_int(event_id, base[0] + step[0]())
"""
"""The statements that mint an ``event_id``, over `mint_names`: `mint` is made of them, and each event's encoder has
them inside, since a call more would cost a twentieth of ``track()``.

A UUIDv7 (RFC 9562, 5.7), greater than the one before: 48 bits of Unix milliseconds, version, 12 random bits of the
process, variant, 14 random bits of the process, and a 48-bit counter that starts at random in its lower half (RFC
9562, 6.2, method 1, the counter at the end: it cannot run over within a process's life, so the order holds within a
millisecond too). A clock that was set back does not set the ids back. A step of the counter is one step of the
interpreter, so threads and signal handlers never get the same id.
"""


def mint_names() -> dict[str, Any]:
    """Return what `MINT_SOURCE` needs; shared by all that mint, so that ids rise within the process."""
    set_int = vars(UUID)["int"].__set__  # a slot: UUID(int=…) costs four times as much
    new = object.__new__
    return {
        "UUID": UUID,
        "new": new,
        "set_int": set_int,
        "time_ns": time_ns,
        "next": next_millisecond,
        "advance": advance,
        "base": base,
        "step": step,
    }


def _write_mint() -> Callable[[], UUID]:
    names = mint_names()
    body = "".join(f"    {line}\n" for line in MINT_SOURCE.splitlines())
    exec(compile(f"def mint():\n{body}    return event_id\n", "<mint>", "exec"), names)  # noqa: S102  # see MINT_SOURCE
    function: Callable[[], UUID] = names["mint"]
    return function


mint = _write_mint()


@lru_cache(maxsize=4096)
def _mapped(user_id: str) -> tuple[UUID, str | None]:
    if _SPELLS_A_UUID(user_id):
        return UUID(user_id), None
    return uuid5(USER_NAMESPACE, user_id), user_id


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


def clean_text(text: str) -> str:
    """Return the text with NUL and lone surrogates, which PostgreSQL cannot hold, replaced by U+FFFD."""
    if "\x00" in text:
        text = text.replace("\x00", "\ufffd")
    elif text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        # Going through UTF-16 joins a surrogate pair that was written as two characters, and replaces the rest.
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def personal_hash(hash_key: bytes | None, keep: bool) -> Callable[[str], str]:
    """Return what is done to a personal value: HMAC-SHA256 in hex, ``***`` without a key, nothing when it is kept."""
    if keep:
        return clean_text
    if hash_key is None:
        return lambda text: "***"

    def keyed(text: str) -> str:
        return hmac.digest(hash_key, clean_text(text).encode(), "sha256").hex()

    return keyed
