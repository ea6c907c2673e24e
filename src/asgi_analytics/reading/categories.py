"""Event categories: which types belong to one, as the filters of SQL need it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from asgi_analytics.events.base import Category, known_categories
from asgi_analytics.reading.statements import Statements

if TYPE_CHECKING:
    from asgi_analytics.reading.source import Snapshot

CategoryName = Category
OTHERWISE = "interaction"
"""The category of a type of which nothing is known."""

SQL = Statements("categories")


async def stored_categories(snapshot: Snapshot) -> Mapping[str, str]:
    """Return the category of each type: what the database knows, else what the classes here say."""
    return {**known_categories(), **dict(map(tuple, await snapshot.records(SQL["categories"])))}


def category_of(event_type: str, known: Mapping[str, str] | None = None) -> str:
    """Return the category of a type; without ``known`` what the classes say."""
    return (known_categories() if known is None else known).get(event_type, OTHERWISE)


def types_of(
    categories: Sequence[str] | None, event_types: Sequence[str] | None, known: Mapping[str, str] | None = None
) -> tuple[list[str] | None, list[str] | None]:
    """Return the types that two filters leave, as "only these" and "all but these"; null for any."""
    if categories is None:
        return (None if event_types is None else list(event_types)), None
    known = known_categories() if known is None else known
    if event_types is not None:
        return [name for name in event_types if known.get(name, OTHERWISE) in categories], None
    if OTHERWISE in categories:
        return None, sorted(name for name, category in known.items() if category not in categories)
    return sorted(name for name, category in known.items() if category in categories), None
