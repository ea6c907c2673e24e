"""What people look for."""

from __future__ import annotations

from typing import Any, ClassVar

from asgi_analytics.events.base import Category, Event, UserId

__all__ = ["FilterApplied", "SearchPerformed"]


class SearchPerformed(Event):
    """Somebody searched. ``duration_ms`` is in milliseconds."""

    category: ClassVar[Category] = "interaction"

    query: str
    filters: dict[str, Any] | None = None
    result_count: int
    duration_ms: float | None = None
    user_id: UserId | None = None


class FilterApplied(Event):
    """Somebody narrowed a list."""

    category: ClassVar[Category] = "interaction"

    user_id: UserId | None = None
    filter: str
    value: str | None = None
    result_count: int | None = None
