"""Where batches go: the protocol of every sink, and one protocol for each thing that a sink may do besides."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

import msgspec

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import date, datetime, timedelta


CATEGORIES_HEADER = "Analytics-Event-Types"
"""Says of which category types are whose class only the sender has: ``order_paid=transaction, cart_filled=content``."""


class Rejected(msgspec.Struct, frozen=True):
    """One event of a batch that the sink refused because of its content."""

    index: int
    """Its place in the batch, from 0."""
    reason: str
    """Short and stable, so that it can be counted; it holds no value of the event."""
    field: str | None = None
    """The field that was refused, if known."""


class Receipt(msgspec.Struct, frozen=True):
    """What became of a batch. An event that is neither a duplicate nor rejected was stored."""

    duplicates: int = 0
    rejected: Sequence[Rejected] = ()
    duplicate_at: Sequence[int] | None = None
    """The places of the duplicates, from 0; None if only their number is known."""
    spooled: int = 0
    """Events that are kept on disk and settled later; all of a batch, or none."""


@runtime_checkable
class Sink(Protocol):
    """A place to which batches go. Implement the two methods; inheriting is not needed.

    ``write(batch)`` gets events as the JSON bytes that ``track()`` made, oldest first. It returns when all of them are
    settled, or raises and has stored none: `TransientError` to get the same batch again soon (with ``fewer=True`` its
    first half, and then the rest), `OperatorError` to get it again later, with an error in the log. Any other
    exception counts as the latter. The same batch may come twice if an answer was lost; by ``event_id`` and
    ``timestamp`` it must be stored once. Calls never overlap.

    ``aclose()`` ends connections; it may be called twice, and the sink may be used again afterwards.

    What else a sink can do is found by the protocols below.
    """

    async def write(self, batch: Sequence[bytes]) -> Receipt:
        """Store a batch."""
        ...

    async def aclose(self) -> None:
        """End what is open."""
        ...


@runtime_checkable
class NamedByUrl(Protocol):
    """A class of sinks that a URL can name. The class itself has both members, not its instances only."""

    schemes: tuple[str, ...]
    """What such URLs begin with, without ``://``."""

    def from_url(self, url: str, *, token: str | None = None) -> Sink:
        """Return a sink for a URL (a class method). Connects to nothing; raises `ConfigError`."""
        ...


@runtime_checkable
class HasUpkeep(Protocol):
    """A sink with work to be done every hour, which the worker and the ingestion service call."""

    async def upkeep(self) -> None:
        """Do the work; what is raised is logged, and it is called again an hour later."""
        ...


@runtime_checkable
class HasReadiness(Protocol):
    """A sink that can tell whether it would store a batch now; any other counts as ready."""

    async def ready(self) -> None:
        """Return if it would; raises `SinkError` that says what is in the way."""
        ...


@runtime_checkable
class KnowsVisitors(Protocol):
    """A sink that shares between processes how visitors are counted; with any other each process counts for itself."""

    async def visitor_key(self, day: date) -> bytes | None:
        """Return the random key of a day (UTC), the same for all who ask; None if there is none any more."""
        ...

    async def seen_visitors(self, visitors: Mapping[str, datetime]) -> Collection[str]:
        """Return those that were noted at most 30 minutes before the time that is given for each."""
        ...

    async def note_visitors(self, visitors: Mapping[str, datetime]) -> None:
        """Note when visitors were seen: those of the last half hour of a day, and whose visit goes on after it."""
        ...


@runtime_checkable
class NotesEventTypes(Protocol):
    """A sink whose rows are kept by the category of their type, and that is told the categories by other processes."""

    async def note_event_types(self, categories: Mapping[str, str]) -> None:
        """Note the category of each type."""
        ...


@runtime_checkable
class KnowsRetention(Protocol):
    """A sink that knows for how long rows are kept, which decides how old an event may be that is taken."""

    async def kept_types(self) -> Mapping[str | None, timedelta]:
        """Return for how long the rows of each type are kept; those of types that are not named, under None."""
        ...


class StoredSchema(msgspec.Struct, frozen=True):
    """What the data of a type look like, as the registry says."""

    event_type: str
    definition: str
    """JSON Schema."""
    needs_user: bool


@runtime_checkable
class KnowsSchemas(Protocol):
    """A sink with a registry of the schemas of events, which the ingestion service checks unknown types by."""

    async def schemas_fingerprint(self) -> str:
        """Return a text that differs from the one before if a schema has changed."""
        ...

    async def active_schemas(self) -> Sequence[StoredSchema]:
        """Return the schemas that events are checked by, one per type."""
        ...


@runtime_checkable
class TellsDuplicates(Protocol):
    """A sink whose receipts name each duplicate in ``duplicate_at``, and whose writes may overlap.

    The ingestion service groups the batches for it, and writes several groups at once.
    """

    tells_duplicates: ClassVar[bool]
    """True."""
