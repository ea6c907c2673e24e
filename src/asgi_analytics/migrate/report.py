"""What a run did and what is left: the values that `migrate`, `status` and `dry_run` return."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Literal

import msgspec

from asgi_analytics.database.flavour import Flavour
from asgi_analytics.migrate.files import Phase

if TYPE_CHECKING:
    from asgi_analytics.migrate.files import MigrationFile
    from asgi_analytics.migrate.plan import Applied

Store = Flavour | Literal["sqlite"]
"""What a schema is installed for: a flavour of PostgreSQL, or SQLite."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step, applied or pending."""

    version: int
    name: str
    phase: Phase
    description: str
    applied_at: datetime | None = None
    duration_ms: float | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The state of an installation: of `migrate`, ``applied`` is what this run did; of `status`, all that was done."""

    flavour: Store
    """What it is installed for."""
    database: str
    """``TimescaleDB 2.29.2 on PostgreSQL 18.6``; for SQLite its version and the file."""
    schema: str
    applied: tuple[Step, ...] = ()
    pending: tuple[Step, ...] = ()
    warnings: tuple[str, ...] = ()
    """What the operator should do about the server."""
    notes: tuple[str, ...] = ()
    """What is as it should be and yet worth knowing."""
    sql: str | None = None
    """Of `dry_run`: a script for psql that does what the run would do."""


def pending_step(file: MigrationFile, duration_ms: float | None = None) -> Step:
    """Return a step that was not applied, or was just now in so many milliseconds."""
    return Step(
        version=file.version,
        name=file.name,
        phase=file.phase,
        description=file.description,
        duration_ms=duration_ms,
    )


def applied_step(row: Applied, description: str) -> Step:
    """Return a step that the ledger has."""
    return Step(
        version=row.version,
        name=row.name,
        phase=row.phase,
        description=description,
        applied_at=row.applied_at,
        duration_ms=row.duration_ms,
    )
