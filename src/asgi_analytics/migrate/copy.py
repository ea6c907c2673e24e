"""Move from SQLite to PostgreSQL: copy all rows, without a gap, and go on after an interruption where it was.

Events are read in the order in which they were stored, and written by the sink of the target, which leaves those that
are there already. What is stored meanwhile comes last, so the application may run until the end.
"""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from asgi_analytics.database.blocks import load
from asgi_analytics.database.connection import command_error, connect
from asgi_analytics.database.names import quoted
from asgi_analytics.database.sqlite.connection import open_connection, transaction
from asgi_analytics.database.sqlite.failures import explain
from asgi_analytics.database.sqlite.times import from_text
from asgi_analytics.database.sqlite.url import is_sqlite, read_sqlite_url
from asgi_analytics.database.url import read_dsn
from asgi_analytics.errors import ConfigError, MigrationError, SinkError
from asgi_analytics.events.base import METRIC
from asgi_analytics.sinks.timescale import TimescaleSink

if TYPE_CHECKING:
    from collections.abc import Callable

SQL = load("asgi_analytics.migrate", "copy.sql")
BATCH = 2_000
"""Events of one write."""
TELL_EACH = 100_000
"""After so many events a line tells how many are left."""


class CopyReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `copy` did; what was copied before counts among ``known``."""

    source: str
    target: str
    events: int
    known: int
    """Events that the target had already."""
    rejected: int
    """Events that the target refused; they are among its dead letters."""
    metrics: int
    others: dict[str, int]
    """Rows of dead letters, traits, funnels and numbers of dashboards."""
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def _silent(text: str) -> None:
    """Say nothing."""


async def copy(source: str, target: str, *, tell: Callable[[str], None] | None = None) -> CopyReport:
    """Copy all rows of an SQLite database to PostgreSQL, whose schema ``analytics-migrate all`` has made.

    ``tell`` gets a line now and then that says how much is left.

    May be interrupted and run again at any time: it goes on where it was. Aggregates are not copied: those of events
    that were dropped stay behind, and the others are computed again by ``analytics-migrate refresh``. Raises
    `ConfigError` for a URL, and `MigrationError` if one of the databases is away or has no tables.
    """
    if not is_sqlite(source):
        raise ConfigError("--from is no SQLite database: expected sqlite:///analytics.db")
    if is_sqlite(target):
        raise ConfigError("--to is SQLite too: copy the file, or give postgresql://…")
    url, place = read_sqlite_url(source), read_dsn(target)
    name = hashlib.sha256(f"{place.place} {place.schema}".encode()).hexdigest()
    sink = TimescaleSink(target)
    try:
        await sink.ready()
        with closing(open_connection(url, "rw", busy_seconds=60.0)) as connection:
            # Before the first row of a type, so that none is dropped too early.
            await sink.note_event_types(dict(connection.execute(SQL["categories"]).fetchall()))
            events = await _copy_events(connection, sink, name, tell or _silent)
            metrics = await _copy_metrics(connection, sink)
            others = await _copy_others(connection, target)
    except SinkError as error:
        raise MigrationError(f"{place}: {error}; what was copied stays, run this again to go on") from error
    except (sqlite3.Error, FileNotFoundError) as error:
        raise MigrationError(explain(error, url).text) from error
    finally:
        await sink.aclose()
    return CopyReport(
        source=str(url),
        target=str(place),
        events=events[0],
        known=events[1],
        rejected=events[2],
        metrics=metrics,
        others=others,
        notes=(
            "Next: analytics-migrate refresh with the new database, then let the application use it, and run this once "
            "more for what came in meanwhile",
        ),
    )


async def _copy_events(
    connection: sqlite3.Connection, sink: TimescaleSink, name: str, tell: Callable[[str], None]
) -> tuple[int, int, int]:
    row = connection.execute(SQL["copied_until"], (name,)).fetchone()
    until = 0 if row is None else row[0]
    copied = known = rejected = 0
    while rows := await asyncio.to_thread(_read, connection, SQL["events"], (until, BATCH)):
        receipt = await sink.write([_line(row) for row in rows])
        copied += len(rows) - receipt.duplicates - len(receipt.rejected)
        known += receipt.duplicates
        rejected += len(receipt.rejected)
        until = rows[-1][0]
        # After the target has them: an interruption before this only asks it once more.
        with transaction(connection):
            connection.execute(SQL["note_copied"], (name, until))
        if (copied + known) // TELL_EACH > (copied + known - len(rows)) // TELL_EACH:
            tell(f"events copied: {copied + known}; left: {connection.execute(SQL['left'], (until,)).fetchone()[0]}")
    return copied, known, rejected


async def _copy_metrics(connection: sqlite3.Connection, sink: TimescaleSink) -> int:
    at = ("", "")
    number = 0
    while rows := await asyncio.to_thread(_read, connection, SQL["metrics"], (*at, BATCH)):
        receipt = await sink.write([_metric_line(row) for row in rows])
        number += len(rows) - receipt.duplicates - len(receipt.rejected)
        at = (rows[-1][1], rows[-1][0])
    return number


async def _copy_others(source: sqlite3.Connection, target: str) -> dict[str, int]:
    url = read_dsn(target)
    prefix = "" if url.schema is None else f"{quoted(url.schema)}."
    connection = await connect(url, None, _silent)
    try:
        numbers = {}
        conversions: tuple[tuple[str, Callable[[Any], tuple[Any, ...]]], ...] = (
            ("dead_letters", lambda row: (UUID(row[0]), from_text(row[1]), *row[2:])),
            ("traits", lambda row: (UUID(row[0]), row[1], row[2], _moment(row[3]), from_text(row[4]), row[5])),
            ("funnels", lambda row: (UUID(row[0]), *row[1:4], timedelta(seconds=row[4]), from_text(row[5]))),
            ("dashboard", lambda row: (*row[:4], from_text(row[4]))),
        )
        for name, convert in conversions:
            rows = [convert(row) for row in source.execute(SQL[name])]
            await connection.executemany(SQL[f"write_{name}"].format(schema=prefix), rows)
            numbers[name] = len(rows)
        return numbers
    except Exception as error:
        raise command_error(error, url) from error
    finally:
        await connection.close()


def _read(connection: sqlite3.Connection, sql: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    return connection.execute(sql, values).fetchall()


def _line(row: tuple[Any, ...]) -> bytes:
    """Return the line of an event, as ``track()`` made it."""
    _, event_id, timestamp, event_type, service, user_id, session_id, data, context = row
    members = {
        "event_id": event_id,
        "event_type": event_type,
        "timestamp": timestamp,
        "service": service,
        "user_id": user_id,
        "session_id": session_id,
        "data": msgspec.Raw(data.encode()),
    }
    if context is not None:
        members["context"] = msgspec.Raw(context.encode())
    return msgspec.json.encode(members)


def _metric_line(row: tuple[Any, ...]) -> bytes:
    event_id, timestamp, name, metric_type, unit, service, tags, count, total, least, most, last, histogram = row
    data: dict[str, Any] = {"name": name, "metric_type": metric_type, "unit": unit, "tags": msgspec.Raw(tags.encode())}
    data |= {"count": count, "sum": total, "min": least, "max": most, "last": last}
    if histogram is not None:
        bins = sorted((int(one), number) for one, number in msgspec.json.decode(histogram).items())
        data |= {"bins": [one for one, _ in bins], "counts": [number for _, number in bins]}
    members = {"event_id": event_id, "event_type": METRIC, "timestamp": timestamp, "service": service, "data": data}
    return msgspec.json.encode(members)


def _moment(text: str | None) -> Any:
    return None if text is None else from_text(text)
