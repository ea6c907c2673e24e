"""What a few people did, written in a line, and how far they came in a funnel."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from asgi_analytics.reading import AnalyticsReader
from asgi_analytics.reading.steps import Step
from tests.reading.happened import Event

MIDNIGHT = datetime(2026, 10, 25, tzinfo=UTC)
ME = UUID(int=1)
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


def happened(at: datetime, event_type: str, user: UUID | None = ME, session: str | None = None, **data: Any) -> Event:
    return Event(uuid4(), at, event_type, "shop", user, session, data, {"environment": "production"})


def minutes(number: float) -> timedelta:
    return timedelta(minutes=number)


def story(text: str, unit: timedelta = MINUTE, user: UUID = ME, session: str | None = None) -> list[Event]:
    """Return the events of ``a0 b1 c5``: a type, and when it happened, counted in units from midnight."""
    return [happened(MIDNIGHT + int(word[1:]) * unit, word[0], user, session) for word in text.split()]


async def ask(reader: AnalyticsReader, steps: Sequence[str | Step], **options: Any) -> list[tuple[int, int]]:
    """Return how many reached each step, and how many are still on their way."""
    around = {"start": MIDNIGHT - timedelta(days=3), "end": MIDNIGHT + timedelta(days=3)}
    found = await reader.query_funnel(steps, **{**around, **options})
    return [(step.count, step.in_progress) for step in found.steps]


async def counts(reader: AnalyticsReader, steps: Sequence[str | Step], **options: Any) -> list[int]:
    return [count for count, _ in await ask(reader, steps, **options)]
