"""The table ``funnel_conversions`` of SQLite: who went through the funnels that are kept by name, and how far."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import TYPE_CHECKING, Any

import msgspec

from asgi_analytics.database.blocks import load
from asgi_analytics.database.sqlite.connection import open_connection, transaction
from asgi_analytics.database.sqlite.times import to_text
from asgi_analytics.database.sqlite.url import SqliteUrl, read_sqlite_url
from asgi_analytics.errors import InvalidQuery
from asgi_analytics.reading import AnalyticsReader

if TYPE_CHECKING:
    from collections.abc import Sequence

SQL = load("asgi_analytics.admin", "conversions.sql")
MOST = 10_000
"""Attempts of each funnel, the latest ones."""
TIMEOUT = 300.0
"""Seconds of one question."""


async def fill_conversions(url: str) -> None:
    """Replace what the table says of each funnel by its latest attempts of the last 30 days; nothing without funnels.

    Raises `ReadError`.
    """
    file = read_sqlite_url(url)
    funnels = await asyncio.to_thread(_funnels, file)
    if not funnels:
        return
    async with AnalyticsReader.from_url(url, statement_timeout=TIMEOUT) as reader:
        for funnel_id, name in funnels:
            try:
                attempts = await reader.query_funnel_conversions(name, limit=MOST)
            except InvalidQuery:
                continue  # somebody has put it in by hand, without steps perhaps; it costs the refresh nothing
            await asyncio.to_thread(_replace, file, funnel_id, attempts)


def _funnels(file: SqliteUrl) -> list[tuple[str, str]]:
    with closing(open_connection(file)) as connection:
        return connection.execute(SQL["funnels"]).fetchall()


def _replace(file: SqliteUrl, funnel_id: str, attempts: Sequence[Any]) -> None:
    rows = [
        (
            funnel_id,
            None if attempt.user_id is None else str(attempt.user_id),
            attempt.session_id,
            to_text(attempt.started_at),
            None if attempt.completed_at is None else to_text(attempt.completed_at),
            attempt.current_step,
            attempt.completed,
            msgspec.json.encode([to_text(moment) for moment in attempt.step_timestamps]).decode(),
        )
        for attempt in attempts
    ]
    with closing(open_connection(file)) as connection, transaction(connection):
        connection.execute(SQL["forget"], (funnel_id,))
        connection.executemany(SQL["write"], rows)
