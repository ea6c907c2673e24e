"""Where batches go: the protocol that client and worker see, and nothing else of a sink."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence


class Rejected(msgspec.Struct, frozen=True):
    """One event of a batch that the sink refused for its content."""

    index: int
    """Its place in the batch, from 0."""
    reason: str
    """Short and stable, so that it can be counted: no value of the event in it."""
    field: str | None = None
    """The field that was refused, where that is known."""


class Receipt(msgspec.Struct, frozen=True):
    """What became of a batch. What is neither a duplicate nor rejected was stored."""

    duplicates: int = 0
    rejected: Sequence[Rejected] = ()
    duplicate_at: Sequence[int] | None = None
    """The places of the duplicates, from 0, where the sink was made to tell them; None: only their number is known."""


@runtime_checkable
class Sink(Protocol):
    """A place to which batches go. Implement the two methods; inheriting is not needed.

    ``write(batch)`` gets events as the JSON bytes that ``track()`` made, oldest first. It returns when all of them are
    settled, or raises and has stored none: `TransientError` to get the same batch again soon (with ``fewer=True`` its
    first half, and then the rest), `OperatorError` to get it again later, with a loud word in the log. Any other
    exception counts as the latter. The same batch may come twice when an answer was lost; by ``event_id`` and
    ``timestamp`` it must be stored once. Calls never overlap.

    ``aclose()`` ends connections; it may be called twice, and the sink may be used again after it.

    A sink that a URL can name has ``schemes`` and ``from_url(url, *, token)`` besides; one that has chores of its own
    has ``async upkeep()``, which the worker calls every hour.
    """

    async def write(self, batch: Sequence[bytes]) -> Receipt:
        """Store a batch."""
        ...

    async def aclose(self) -> None:
        """End what is open."""
        ...
