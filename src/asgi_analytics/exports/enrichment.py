"""What an event's type says of it: its category, and the field that names what it is about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asgi_analytics.events.base import Event, event_types, known_categories
from asgi_analytics.exports.session import SQL

OTHERWISE = "interaction"
"""The category of a type of which nothing is known."""


async def stored_categories(connection: Any) -> Mapping[str, str]:
    """Return the category of each type: what the database knows, else what the classes here say."""
    return {**known_categories(), **dict(map(tuple, await connection.fetch(SQL["categories"])))}


def entity_fields() -> dict[str, str | None]:
    """Return, for each known type, its first field that ends with ``_id``; None if it has none.

    Not ``user_id``, which is a column of its own.
    """
    return {tag: _entity_field(cls) for tag, cls in event_types().items()}


def _entity_field(cls: type[Event]) -> str | None:
    # Not by msgspec.structs.fields(), which reads the types too: a class whose types cannot be read would stop all.
    names = cls.__struct_encode_fields__
    return next((name for name in names if name.endswith("_id") and name not in ("user_id", "_id")), None)
