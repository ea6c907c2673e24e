"""Open connections: what a URL asks of the driver, whether a pooler stands in between, and waiting for the server."""

from __future__ import annotations

import asyncio
import ssl
import time
from typing import TYPE_CHECKING, Any, Protocol

import asyncpg

from asgi_analytics.database import blocks
from asgi_analytics.database.failures import DRIVER_ERRORS, explain
from asgi_analytics.errors import AnalyticsError, ConfigError, MigrationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from asgi_analytics.database.url import DatabaseUrl

ANSWER_WITHIN = 10.0
"""Seconds in which a server must answer a connection attempt."""

LEAST_ANSWER = 1.0
"""Seconds for the last attempt of a wait that is over."""

ROUNDS = 20
"""How often two connections compare their server processes: on a busy pooler a single look may miss that they share."""

CONNECT_ERRORS = (ValueError, *DRIVER_ERRORS)
"""What an attempt to connect may raise."""

SQL = blocks.load("asgi_analytics.database", "connection.sql")


class Connection(Protocol):
    """What is used of an asyncpg connection, or of one that a pool lends."""

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        """Run statements and return the last one's status."""
        ...

    async def fetch(self, query: str, *args: Any, timeout: float | None = None) -> Sequence[Any]:
        """Return all rows."""
        ...

    async def fetchrow(self, query: str, *args: Any, timeout: float | None = None) -> Any:
        """Return the first row, or None."""
        ...

    async def fetchval(self, query: str, *args: Any, timeout: float | None = None) -> Any:
        """Return the first value of the first row, or None."""
        ...

    def transaction(self) -> AbstractAsyncContextManager[object]:
        """Return a transaction, or a savepoint inside one, as a context manager."""
        ...

    def is_in_transaction(self) -> bool:
        """Tell whether a transaction is open."""
        ...

    def is_closed(self) -> bool:
        """Tell whether the connection has ended."""
        ...

    def get_server_pid(self) -> int:
        """Return the number of the server process, as told when the connection was opened."""
        ...

    def terminate(self) -> None:
        """End the connection without a word to the server."""
        ...


class NoConnection(MigrationError):
    """The database cannot be reached, or does not let this client in."""


def driver_options(url: DatabaseUrl) -> dict[str, Any]:
    """Return what ``asyncpg.connect`` and ``asyncpg.create_pool`` are to be called with for a URL."""
    options: dict[str, Any] = {"dsn": url.dsn}
    if url.trusts_system:
        options["ssl"] = ssl.create_default_context()
    if not url.prepares:
        options["statement_cache_size"] = 0
    return options


async def is_direct(connection: Connection, timeout: float | None = None) -> bool:
    """Tell whether the connection leads to the server itself, not to a pooler."""
    query = SQL["is_direct"].replace("{pid}", str(int(connection.get_server_pid() or 0)))
    return await connection.execute(query, timeout=timeout) == "SELECT 1"


async def shares_sessions(connection: Connection, other: Connection) -> bool:
    """Tell whether the pooler behind two connections gives a server session to both of them in turn.

    Then nothing that belongs to a session lasts from one transaction to the next. A pooler that is too busy to answer
    counts as one that shares.
    """
    process = SQL["server_process"]
    try:
        async with asyncio.timeout(ANSWER_WITHIN):
            for _ in range(ROUNDS):
                mine = await connection.fetchval(process)
                async with other.transaction():  # takes what `connection` has just given back, if it has
                    theirs = await other.fetchval(process)
                    if theirs == mine or await connection.fetchval(process) != mine:
                        return True
    except TimeoutError:
        return True
    return False


async def connect(url: DatabaseUrl, deadline: float | None, tell: Callable[[str], None]) -> Any:
    """Return a connection of a command.

    A server that is away is asked again until the deadline (monotonic), and once more then; None asks once. ``tell``
    gets a line when there is something to wait for. Raises `NoConnection` or `ConfigError`.
    """
    pause = 0.1
    within = ANSWER_WITHIN
    told = False
    while True:
        try:
            return await asyncpg.connect(
                **{**driver_options(url), "statement_cache_size": 0},  # a pooler would mix up prepared statements
                timeout=within,
                server_settings={"application_name": "analytics-migrate"},
            )
        except CONNECT_ERRORS as exc:
            left = 0.0 if deadline is None else deadline - time.monotonic()
            if explain(exc, url).kind != "transient" or left <= 0:
                raise command_error(exc, url) from (None if isinstance(exc, ValueError) else exc)  # may quote the URL
            if not told:
                told = True
                tell(f"no server yet for {url}; waiting for it")
        await asyncio.sleep(min(pause, left))
        pause = min(pause * 1.5, 1.0)
        assert deadline is not None
        within = min(ANSWER_WITHIN, max(LEAST_ANSWER, deadline - time.monotonic()))


def command_error(exc: BaseException, url: DatabaseUrl | None) -> AnalyticsError:
    """Return the error with which a command ends: one line, without a secret."""
    failure = explain(exc, url)
    cure = failure.cure
    if failure.is_lost:
        cure = "run again; nothing half-done stays"
    elif failure.kind == "transient" and failure.about == "connection":
        cure = f"{cure or 'try again'}, or use --wait SECONDS"
    text = f"{failure.cause}: {cure}" if cure else failure.cause
    if failure.about == "url":
        return ConfigError(text)
    if failure.about == "connection":
        return NoConnection(text)
    return MigrationError(f"{url}: {text}" if url is not None else text)
