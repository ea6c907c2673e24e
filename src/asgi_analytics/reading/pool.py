"""The pool of a reader that was made from a URL: it opens and closes with the reader."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Any

import asyncpg

from asgi_analytics.database.url import read_dsn
from asgi_analytics.errors import NoConnection

ACQUIRE_TIMEOUT = 10.0
"""Seconds until a connection must be there, whether the pool opens one or waits for one."""


class UrlPool:
    """Up to ``connections`` connections to the database of a URL, each made when it is needed.

    ``patience`` is how many seconds closing waits for the questions that run. Raises `ConfigError`.
    """

    def __init__(self, url: str, connections: int, patience: float) -> None:
        self.url = read_dsn(url)
        self._connections = connections
        self._patience = patience
        self._pool: asyncpg.Pool[Any] | None = None

    async def open(self) -> None:
        """Make the pool, and no connection yet: it works while the database is away."""
        if self._pool is None:
            self._pool = await asyncpg.create_pool(
                self.url.dsn,
                min_size=0,
                max_size=self._connections,
                timeout=ACQUIRE_TIMEOUT,
                # A pooler gives each transaction another connection, which has not prepared what this one has.
                statement_cache_size=0,
                reset=_keep,  # nothing outlives a transaction, so a round trip per question is saved
                server_settings={"application_name": "asgi-analytics-reader"},
            )

    async def aclose(self) -> None:
        """Close the connections, after the questions that run on them."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            try:
                async with asyncio.timeout(self._patience):
                    await pool.close()
            except TimeoutError:
                pool.terminate()  # the server says nothing

    def acquire(self, *, timeout: float | None) -> AbstractAsyncContextManager[Any]:
        """Take a connection for a block, as that of asyncpg's pool does. Raises `NoConnection` unless it is open."""
        if self._pool is None:
            raise NoConnection("the reader is not open: use async with AnalyticsReader.from_url(url) as reader")
        context: AbstractAsyncContextManager[Any] = self._pool.acquire(timeout=timeout)
        return context


async def _keep(connection: asyncpg.Connection[Any]) -> None:
    """Leave a connection as it is."""
