"""Cursors from their start to their end."""

from __future__ import annotations

from typing import Any


async def iterate(connection: Any, sql: str, *args: Any, stop_at: int | None = None, **options: Any) -> int:
    number = 0
    async with connection.transaction():
        async for _ in connection.cursor(sql, *args, **options):
            number += 1
            if number == stop_at:
                break
    return number


async def open_cursor(connection: Any, sql: str, *args: Any) -> None:
    async with connection.transaction():
        await connection.cursor(sql, *args)
