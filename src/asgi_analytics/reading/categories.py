"""Event categories: which types belong to one, as the filters of SQL need it."""

from __future__ import annotations

from collections.abc import Sequence

from asgi_analytics.events.base import Category, known_categories

CategoryName = Category
OTHERWISE = "interaction"
"""The category of a type whose class is not known here."""


def category_of(event_type: str) -> str:
    """Return the category of a type."""
    return known_categories().get(event_type, OTHERWISE)


def types_of(
    categories: Sequence[str] | None, event_types: Sequence[str] | None
) -> tuple[list[str] | None, list[str] | None]:
    """Return the types that two filters leave, as "only these" and "all but these"; null for any."""
    if categories is None:
        return (None if event_types is None else list(event_types)), None
    known = known_categories()
    if event_types is not None:
        return [name for name in event_types if known.get(name, OTHERWISE) in categories], None
    if OTHERWISE in categories:
        return None, sorted(name for name, category in known.items() if category not in categories)
    return sorted(name for name, category in known.items() if category in categories), None
