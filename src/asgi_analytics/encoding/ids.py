"""Ids of events, UUIDv7, unique and rising within the process; and ids for requests that came without one.

An event id (RFC 9562, 5.7) is 48 bits of Unix milliseconds, the version, 12 random bits of the process, the variant, 14
random bits of the process, and a 48-bit counter that starts at random in its lower half (RFC 9562, 6.2, method 1, with
the counter at the end: it cannot overflow within a process's life, so the order holds within a millisecond too).
"""

from __future__ import annotations

import os
import secrets
from itertools import count
from uuid import UUID

COUNTER_BITS = 48

next_number = count().__next__
"""Returns the next number of the counter. One step of an iterator cannot be interrupted, so no two threads, and no
thread and a signal handler, get the same number."""

_random_bits = 0
_request_prefix = ""
_prefix = 0  # an id without its number; never set back, even if the clock is
_next_millisecond = 0  # the nanosecond at which the prefix has to change

# UUID(int=…) costs four times as much as setting the one slot that the encoder reads.
_new_object, _set_int = object.__new__, vars(UUID)["int"].__set__


def mint(time: int) -> UUID:
    """Return a new id for a time in Unix nanoseconds, greater than the one before, even if the clock was set back."""
    if time >= _next_millisecond:
        _begin_millisecond(time)
    event_id = _new_object(UUID)
    _set_int(event_id, _prefix + next_number())
    return event_id


def event_id_of(time: int, number: int) -> UUID:
    """Return the id of an event that took its time, in Unix nanoseconds, and its `next_number` before."""
    event_id = _new_object(UUID)
    _set_int(event_id, _prefix_of(time) + number)
    return event_id


def request_id_of(number: int) -> str:
    """Return an id for a request that came without one: 32 hexadecimal digits, made of a `next_number`."""
    return f"{_request_prefix}{number:012x}"


def _prefix_of(time: int) -> int:
    return time // 1_000_000 << 80 | _random_bits


def _begin_millisecond(time: int) -> None:
    global _prefix, _next_millisecond
    prefix, following = _prefix_of(time), (time // 1_000_000 + 1) * 1_000_000
    # Compared again: another thread may have begun a later millisecond.
    if prefix > _prefix:
        _prefix = prefix
    if following > _next_millisecond:
        _next_millisecond = following


def _seed() -> None:
    """Begin with new random bits: two processes with the same ones would mint the same ids."""
    global _random_bits, _request_prefix, _prefix, _next_millisecond
    version, variant = 7 << 76, 0b10 << 62
    counter_start = secrets.randbits(COUNTER_BITS - 1)
    _random_bits = version | secrets.randbits(12) << 64 | variant | secrets.randbits(14) << COUNTER_BITS | counter_start
    _request_prefix = secrets.token_hex(10)
    _prefix = _next_millisecond = 0


_seed()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_seed)
