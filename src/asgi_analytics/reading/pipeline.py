"""How the pipeline is: what arrived last, what was refused, what is behind, and what the database holds."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from asgi_analytics.reading.question import Text, question
from asgi_analytics.reading.ranges import DAY, HOUR, floor
from asgi_analytics.reading.source import Source
from asgi_analytics.reading.statements import Statements

SQL = Statements("pipeline")
MINUTE = timedelta(minutes=1)


class DeadLetters(msgspec.Struct, frozen=True):
    """The events that were rejected for one reason."""

    reason: str
    count: int
    last_received_at: datetime


class PendingView(msgspec.Struct, frozen=True):
    """A view whose complete hours or days are not all up to date."""

    view: str
    since: datetime


class Due(msgspec.Struct, frozen=True):
    """Whole days of a category whose raw rows are still there although their time is over."""

    category: str
    keep_days: int
    """How long they are kept."""
    days: int
    events: int
    """Of these days, as the aggregates count them."""
    due_since: datetime
    """When the time of the first of these days was over. More than a day ago, something keeps them from being dropped:
    nobody does the hourly upkeep, views are behind, or an export needs the rows."""


class DatabaseState(msgspec.Struct, frozen=True):
    """What database it is, and what the events weigh in it."""

    flavour: str
    """timescaledb, postgresql or sqlite."""
    postgresql_version: str
    """On SQLite, that of SQLite."""
    timescaledb_version: str | None
    size_bytes: int | None
    """Of the raw rows with their indexes."""
    compressed_size_bytes: int | None
    """Of the part that was turned into columns; null where there is none."""


class ExportHealth(msgspec.Struct, frozen=True):
    """One export to a warehouse."""

    name: str
    events_behind: int
    """Committed and not copied yet, without those of a backfill."""
    seconds_behind: float
    """No event waits for longer."""
    dead_letters: int
    """Refused by the warehouse, and kept."""
    last_batch_at: datetime | None
    """When the newest batch of the last 30 days was begun."""
    last_error: str | None
    """Of the newest batch; null when it is stored."""


class PipelineHealth(msgspec.Struct, frozen=True):
    """The state of the pipeline at its end, the database."""

    newest_event_at: datetime | None
    events_last_minute: int
    dead_letters: list[DeadLetters]
    """The most frequent reason first."""
    pending: list[PendingView]
    """The one that is furthest behind first."""
    database: DatabaseState
    oldest_event_at: datetime | None
    due: list[Due]
    """What is to be dropped; the longest overdue first."""
    exports: list[ExportHealth]
    """By name; none on SQLite."""


@question("/pipeline")
async def get_pipeline_health(source: Source, *, service: Text | None = None) -> PipelineHealth:
    """Count the events of the last minute and the dead letters, and tell which views are behind and which rows due."""
    now = source.now()
    async with source.snapshot() as snapshot:
        [(newest, last_minute, oldest)] = await snapshot.records(SQL["health"], now - MINUTE, now, service)
        complete: tuple[datetime, ...] = ()
        moment: tuple[datetime, ...] = ()
        if snapshot.dialect == "sqlite":
            flavour, complete, moment = "database", (floor(now - HOUR, HOUR), floor(now - HOUR, DAY)), (now,)
        else:
            [(is_plain,)] = await snapshot.records(SQL["is_filled"])
            flavour = "database_plain" if is_plain else "database_timescaledb"
        return PipelineHealth(
            newest_event_at=newest,
            events_last_minute=last_minute,
            dead_letters=await snapshot.rows(DeadLetters, SQL["dead_letters"], service),
            pending=await snapshot.rows(PendingView, SQL["pending"], *complete),
            database=await snapshot.row(DatabaseState, SQL[flavour]),
            oldest_event_at=oldest,
            due=await snapshot.rows(_due, SQL["due"], *moment),
            exports=[] if snapshot.dialect == "sqlite" else await snapshot.rows(ExportHealth, SQL["exports"]),
        )


def _due(category: str, keep: timedelta, days: int, events: int, due_since: datetime) -> Due:
    return Due(category=category, keep_days=keep.days, days=days, events=events, due_since=due_since)
