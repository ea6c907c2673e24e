"""The states that the aggregates of a database can be in, whatever kind of database it is."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from asgi_analytics.admin import refresh as servers
from tests.kit.sqlite import SqliteConnection
from tests.schema import happenings


async def refresh(connection: Any) -> None:
    """Compute all aggregates, but for their newest buckets."""
    if isinstance(connection, SqliteConnection):
        connection.fill()
    else:
        await servers.refresh(connection)


async def keep_fresh(connection: Any, database: Any) -> None:
    """Do what happens by itself within a day."""
    if isinstance(connection, SqliteConnection):
        connection.fill()
    else:
        await happenings.keep_fresh(connection, database)


async def lose(connection: Any, database: Any, older_than: datetime) -> None:
    """Drop raw events."""
    if isinstance(connection, SqliteConnection):
        connection.lose(older_than)
    else:
        await happenings.lose(connection, database, older_than)
