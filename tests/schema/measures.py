"""Times, amounts and groups of events, of which the views are computed once more."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from tests.schema.happenings import Happened

Rows = list[dict[str, Any]]


def day_of(event: Happened) -> datetime:
    return event.timestamp.replace(hour=0, minute=0, second=0, microsecond=0)


def hour_of(event: Happened) -> datetime:
    return event.timestamp.replace(minute=0, second=0, microsecond=0)


def quarter_of(event: Happened) -> datetime:
    return hour_of(event) + timedelta(minutes=event.timestamp.minute // 15 * 15)


def half_hour_of(event: Happened) -> datetime:
    return hour_of(event) + timedelta(minutes=event.timestamp.minute // 30 * 30)


def amount(value: Any) -> float | None:
    """Return a measured amount, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e100:
        return None
    return float(value)


def average(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def total(values: Sequence[float]) -> float | None:
    return math.fsum(values) if values else None


def percentile(values: Sequence[float], q: float) -> float | None:
    """Interpolate as percentile_cont does."""
    if not values:
        return None
    ordered = sorted(values)
    rank = q * (len(ordered) - 1)
    low, high = ordered[math.floor(rank)], ordered[math.ceil(rank)]
    return low + (high - low) * (rank - math.floor(rank))


def amounts(events: Iterable[Happened], field: str) -> list[float]:
    found = (amount(event.data.get(field)) for event in events)
    return [value for value in found if value is not None]


def users(events: Iterable[Happened]) -> int:
    return len({event.user_id for event in events if event.user_id})


def grouped(events: Iterable[Happened], key: Callable[[Happened], tuple[Any, ...]]) -> dict[Any, list[Happened]]:
    groups = defaultdict(list)
    for event in events:
        groups[key(event)].append(event)
    return groups


def count(events: Iterable[Happened], *types: str, success: bool | None = None) -> int:
    return sum(e.event_type in types and (success is None or e.data.get("success") is success) for e in events)
