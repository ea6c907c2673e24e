"""The record of a ``DatabaseQuery``: every query that is kept makes one."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from asgi_analytics.encoding.records import Record
from asgi_analytics.encoding.text import clean_text
from asgi_analytics.events.captured import DatabaseQuery


class QueryData(msgspec.Struct, gc=False, omit_defaults=True):
    """The fields of a ``DatabaseQuery``."""

    query_type: str
    duration_ms: float
    outcome: str
    table: str | None = None
    statement: str | None = None
    fingerprint: str | None = None
    rows_affected: int | None = None
    error_type: str | None = None
    sqlstate: str | None = None
    endpoint: str | None = None


class QueryRecord(Record, gc=False):
    """One query."""

    query_type: str
    table: str | None
    statement: str | None
    """Without literals; None if the text is not to be captured."""
    fingerprint: str
    duration: int
    """In microseconds."""
    rows_affected: int | None
    outcome: str
    error_type: str | None
    sqlstate: str | None
    endpoint: str | None

    event_type: ClassVar[str] = "database_query"

    def data(self) -> QueryData:
        """Return what becomes the ``data`` of the line."""
        return QueryData(
            self.query_type,
            self.duration / 1000,
            self.outcome,
            self.table,
            self.statement,
            self.fingerprint,
            self.rows_affected,
            None if self.error_type is None else clean_text(self.error_type),
            self.sqlstate,
            None if self.endpoint is None else clean_text(self.endpoint),
        )

    def event(self) -> DatabaseQuery:
        """Return the event."""
        return DatabaseQuery(**msgspec.structs.asdict(self.data()))
