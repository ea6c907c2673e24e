"""What a run did and what is left: the values that `migrate`, `status` and `dry_run` return."""

from __future__ import annotations

from datetime import datetime

import msgspec

from asgi_analytics.database.flavour import Flavour
from asgi_analytics.migrate.files import Phase


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

    flavour: Flavour
    """What it is installed for."""
    database: str
    """``TimescaleDB 2.29.2 on PostgreSQL 18.6``."""
    schema: str
    applied: tuple[Step, ...] = ()
    pending: tuple[Step, ...] = ()
    warnings: tuple[str, ...] = ()
    """What the operator should do about the server."""
    notes: tuple[str, ...] = ()
    """What is as it should be and yet worth knowing."""
    sql: str | None = None
    """Of `dry_run`: a script for psql that does what the run would do."""
