"""Bring the aggregates up to date."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec


class Refreshed(msgspec.Struct, frozen=True):
    """One view, brought up to date over a range."""

    view: str
    start: datetime | None
    end: datetime | None
    duration_ms: float


async def refresh(connection: Any, since: datetime | None = None, until: datetime | None = None) -> list[Refreshed]:
    """Refresh what is pending, or a range; there are no aggregates yet."""
    return []
