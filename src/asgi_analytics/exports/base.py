"""What a warehouse is: the protocol, the table that it gets, and how it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

from asgi_analytics.errors import AnalyticsError

if TYPE_CHECKING:
    from collections.abc import Sequence

TABLE = "platform_events"
"""The table, or folder, that the events are copied to."""

Kind = Literal["text", "integer", "json", "timestamp"]


class Column(NamedTuple):
    """A column of the copied table."""

    name: str
    kind: Kind
    is_required: bool = False


Schema = tuple[Column, ...]

SCHEMA: Schema = (
    Column("event_id", "text", True),
    Column("event_type", "text", True),
    Column("event_category", "text", True),
    Column("user_id", "text"),
    Column("user_role", "text"),
    Column("user_tenure_days", "integer"),
    Column("entity_type", "text"),
    Column("entity_id", "text"),
    Column("event_data", "json", True),
    Column("metadata", "json"),
    Column("source", "text", True),
    Column("timestamp", "timestamp", True),
    Column("session_id", "text"),
    Column("geo_location", "json"),
    Column("device_info", "json"),
    Column("ingested_at", "timestamp", True),
)
"""The columns of the copied table, in their order. JSON is a text, times are aware and in UTC."""

PLACE = {column.name: place for place, column in enumerate(SCHEMA)}
"""Where a column stands in a row."""

Row = tuple[Any, ...]
"""The values of `SCHEMA`, in its order."""


class Refused(AnalyticsError):
    """The warehouse refuses what rows of a batch contain, and has stored none of the batch.

    ``places`` are those of the rows, from 0, as far as it tells; without them the batch is sent in halves. The message
    holds no value of a row.
    """

    def __init__(self, message: str, places: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.places = tuple(sorted(places))


@runtime_checkable
class Warehouse(Protocol):
    """A place that events are copied to. Constructing it connects to nothing.

    The methods block, and are called in a thread, one at a time; any may be the first. They raise `TransientError` to
    be called again soon, `OperatorError` to be called again later, with an error in the log; any other exception counts
    as the latter.
    """

    max_rows: ClassVar[int]
    """The most rows of a batch."""

    def prepare(self, schema: Schema) -> None:
        """Make the table, or the columns that it lacks. Nothing is ever dropped, and it may be repeated."""
        ...

    def load(self, batch: Sequence[Row], token: str) -> None:
        """Store a batch whole, and return when it can be read; raises `Refused` too.

        A batch that comes again with its token has the same rows, but for those erased meanwhile, and is stored once:
        an answer may have been lost.
        """
        ...

    def erase(self, user_ids: Sequence[str]) -> int:
        """Delete the rows of these users; return how many. It may be repeated."""
        ...

    def close(self) -> None:
        """End what is open; it may be called twice, and the warehouse may be used again afterwards."""
        ...


@runtime_checkable
class NamedByUrl(Protocol):
    """A class of warehouses that a URL can name."""

    schemes: tuple[str, ...]
    """What such URLs begin with, without ``://``."""

    def from_url(self, url: str) -> Warehouse:
        """Return a warehouse for a URL (a class method). Connects to nothing; raises `ConfigError`."""
        ...
