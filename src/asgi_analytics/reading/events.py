"""The events themselves: filtered, newest first, page by page."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec

from asgi_analytics.encoding.users import user_uuid
from asgi_analytics.errors import InvalidQuery
from asgi_analytics.events.base import EnrichedEvent, named_data
from asgi_analytics.reading.categories import CategoryName, stored_categories, types_of
from asgi_analytics.reading.question import MOST_TEXTS, Text, Texts, User, question
from asgi_analytics.reading.ranges import Moment
from asgi_analytics.reading.source import MOST_ROWS, Source
from asgi_analytics.reading.statements import Statements

SQL = Statements("events")

ENTITY = re.compile(r"[a-z][a-z0-9_]{0,60}")
PageSize = Annotated[int, msgspec.Meta(ge=1, le=1000)]
Categories = Annotated[list[CategoryName], msgspec.Meta(min_length=1, max_length=MOST_TEXTS)]


class Events(msgspec.Struct, frozen=True):
    """One page of events."""

    events: list[EnrichedEvent]
    total: int | None
    """Of all pages: exact up to 10,000, null beyond."""
    limit: int
    has_more: bool
    next: str | None
    """The ``cursor`` of the next page; null on the last one."""


@question("/events")
async def query_events(
    source: Source,
    *,
    event_types: Texts | None = None,
    event_categories: Categories | None = None,
    user_id: User | None = None,
    session_id: Text | None = None,
    entity_type: Text | None = None,
    entity_id: User | None = None,
    fingerprint: Text | None = None,
    endpoint: Text | None = None,
    trace_id: Text | None = None,
    limit: PageSize = 50,
    cursor: Text | None = None,
    start: Moment | None = None,
    end: Moment | None = None,
    timezone: str | None = None,
    service: Text | None = None,
    environment: Text | None = None,
) -> Events:
    """List the events of the range that match all filters, newest first.

    ``entity_type="task"`` finds the events that have a ``task_id``, and with ``entity_id`` those of that task. A page
    follows the one whose ``next`` is given as its ``cursor``; nothing is shown twice or skipped while events come in.
    """
    if entity_id is not None and entity_type is None:
        raise InvalidQuery("entity_type", "must be given with entity_id, for instance task")
    if entity_type is not None and ENTITY.fullmatch(entity_type) is None:
        raise InvalidQuery("entity_type", "must be a name in snake_case, for instance task")
    asked = source.range(start, end, timezone)
    others = (
        None if user_id is None else user_uuid(user_id)[0],
        session_id,
        None if entity_type is None else f"{entity_type}_id",
        None if entity_id is None else str(entity_id),
        fingerprint,
        endpoint,
        trace_id,
        service,
        environment,
    )
    after = (None, None) if cursor is None else _position(cursor)
    async with source.snapshot() as snapshot:
        known = None if event_categories is None else await stored_categories(snapshot)
        filters = (asked.start, asked.end, *types_of(event_categories, event_types, known), *others)
        rows = await snapshot.records(SQL["page"], *filters, *after, limit + 1)
        [(total,)] = await snapshot.records(SQL["total"], *filters)
    events = [event_of(*row) for row in rows[:limit]]
    has_more = len(rows) > limit
    return Events(
        events=events,
        total=total if total <= MOST_ROWS else None,
        limit=limit,
        has_more=has_more,
        next=_cursor(events[-1]) if has_more else None,
    )


def event_of(
    event_id: Any,
    event_type: str,
    timestamp: datetime,
    service: str,
    data: str,
    user_id: Any,
    session_id: str | None,
    context: str | None,
) -> EnrichedEvent:
    """Return the event of a row: what was written by hand may have anything for data and context."""
    fields = msgspec.json.decode(data)
    known = msgspec.json.decode(context) if context is not None else None
    return EnrichedEvent(
        event_id=UUID(int=event_id.int),
        event_type=event_type,
        timestamp=timestamp.astimezone(UTC),
        service=service,
        data=named_data(event_type, fields) if isinstance(fields, dict) else {},
        user_id=None if user_id is None else UUID(int=user_id.int),
        session_id=session_id,
        context=known if isinstance(known, dict) else None,
    )


def _cursor(event: EnrichedEvent) -> str:
    text = f"{event.timestamp.isoformat()}/{event.event_id}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _position(cursor: str) -> tuple[datetime, UUID]:
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
        moment, _, event_id = text.partition("/")
        timestamp = datetime.fromisoformat(moment)
        if timestamp.utcoffset() is None:
            raise ValueError
        return timestamp, UUID(event_id)
    except ValueError:  # a UnicodeError and a binascii.Error are ones too
        raise InvalidQuery("cursor", "must be the next of the page before") from None
