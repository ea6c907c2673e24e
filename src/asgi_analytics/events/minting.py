"""What the event ids of this process are made of, shared by all that mint them.

`identity.MINT_SOURCE` says how.
"""

from __future__ import annotations

import os
import secrets
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_COUNTER_BITS = 48

next_millisecond = [0]
"""In nanoseconds: when the next one begins."""

base = [0]
"""All of an id but its counter."""

step: list[Callable[[], int]] = []
"""What counts on."""

_fixed = [0]


def seed() -> None:
    """Begin anew, with other random bits."""
    _fixed[0] = (7 << 76) | (secrets.randbits(12) << 64) | (0b10 << 62) | (secrets.randbits(14) << _COUNTER_BITS)
    next_millisecond[0] = base[0] = 0
    step[:] = [count(secrets.randbits(_COUNTER_BITS - 1)).__next__]


def advance(ns: int) -> None:
    """Begin a millisecond in which no id was minted yet."""
    ms = ns // 1_000_000
    prefix, following = ms << 80 | _fixed[0], (ms + 1) * 1_000_000
    # Must not set back what another thread has set meanwhile. No call between a look and what follows from it: after a
    # call, that of max() too, another thread may come in.
    if prefix > base[0]:
        base[0] = prefix
    if following > next_millisecond[0]:
        next_millisecond[0] = following


seed()
# Two processes with one counter would mint the same ids.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=seed)
