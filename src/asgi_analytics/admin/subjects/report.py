"""What a request did: how many rows of which tables, and who else's rows quote the id."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec

from asgi_analytics.migrate.report import Store

Kind = Literal["export", "anonymise", "erase"]


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One row of ``analytics_subject_requests``."""

    id: UUID
    subject: str
    """HMAC-SHA256 of the user's UUID under the installation's key, in hex."""
    kind: Kind
    requested_at: datetime
    due_at: datetime
    completed_at: datetime | None
    """None while it is at work, or if it was interrupted: the same command goes on with it."""
    rows: dict[str, int]
    """How many rows there were, by table."""


class Mention(msgspec.Struct, frozen=True, kw_only=True):
    """A row that is not the person's and quotes the id. It is left as it is."""

    table: str
    timestamp: str | None
    """When it happened, or the bucket of an aggregate; as PostgreSQL writes it, in UTC."""
    id: str | None
    column: str
    """Where the id stands, with the way into JSON: ``data.notes[0]``."""


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """One row that holds the person."""

    table: str
    timestamp: str | None
    id: str | None
    row: msgspec.Raw
    """The row as a JSON object."""


class SubjectReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `erase` or `anonymise` did."""

    flavour: Store
    database: str
    schema: str
    request: Request
    mentions: tuple[Mention, ...]
    more_mentions: int
    """How many there are beyond those that are listed."""
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class SubjectExport(msgspec.Struct, frozen=True, kw_only=True):
    """All that is stored of a person."""

    user_id: UUID
    """The UUID that the rows have."""
    tables: dict[str, list[msgspec.Raw]]
    """The rows, as JSON objects, by table."""
    request: Request
    warnings: tuple[str, ...] = ()


class RequestsReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for, newest first."""

    flavour: Store
    database: str
    schema: str
    requests: tuple[Request, ...]
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
