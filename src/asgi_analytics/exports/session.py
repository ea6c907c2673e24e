"""The connection of a run: to the database itself, with the lock of one export."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg

from asgi_analytics.database import blocks
from asgi_analytics.database.connection import (
    ANSWER_WITHIN,
    CONNECT_ERRORS,
    driver_options,
    is_direct,
    shares_sessions,
)
from asgi_analytics.database.failures import explain
from asgi_analytics.database.names import checked, quoted
from asgi_analytics.database.url import read_dsn
from asgi_analytics.errors import AnalyticsError, OperatorError, SinkError, TransientError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asgi_analytics.database.url import DatabaseUrl

SQL = blocks.load("asgi_analytics.exports", "exports.sql")

COMMAND_SECONDS = 600.0
"""Until the answer to a statement is given up."""

RIGHTS = "as the owner run analytics-migrate roles --exporter NAME, and connect as a member of that role"


@asynccontextmanager
async def open_session(database_url: str, schema: str | None) -> AsyncIterator[Any]:
    """Give a connection to the tables. Errors of the driver leave it as `TransientError` or `OperatorError`."""
    url = read_dsn(database_url)
    connection: Any = None
    try:
        connection = await _connect(url)
        if not await is_direct(connection, timeout=ANSWER_WITHIN):
            await _demand_session(connection, url)
        named = schema if schema is not None else url.schema
        path = f"{quoted(checked(named, 'schema'))}, pg_temp" if named else None
        if path is None:
            path = await connection.fetchval("SELECT current_setting('search_path')")
        await connection.fetchrow(SQL["settings"], path)
        if not await connection.fetchval(SQL["installed"]):
            raise OperatorError("the tables are missing: run analytics-migrate all, and check the search_path")
        yield connection
    except AnalyticsError:
        raise  # some are ValueErrors too
    except CONNECT_ERRORS as error:
        raise explained(error, url) from (None if isinstance(error, ValueError) else error)
    finally:
        if connection is not None:
            with contextlib.suppress(*CONNECT_ERRORS):
                await connection.close(timeout=2)
            if not connection.is_closed():
                connection.terminate()


async def _connect(url: DatabaseUrl) -> Any:
    return await asyncpg.connect(
        **driver_options(url),
        timeout=ANSWER_WITHIN,
        command_timeout=COMMAND_SECONDS,
        server_settings={"application_name": "analytics-export"},
    )


async def _demand_session(connection: Any, url: DatabaseUrl) -> None:
    """Raise if a pooler gives the session to others between two transactions: the lock would go with it."""
    other = await _connect(url)
    try:
        if await shares_sessions(connection, other):
            raise OperatorError(f"{url} is behind a transaction pooler: an export needs the URL of the database itself")
    finally:
        await other.close(timeout=2)


def explained(error: BaseException, url: DatabaseUrl | None) -> SinkError:
    """Return what an error of the driver means for an export."""
    failure = explain(error, url, rights=RIGHTS, may_quote=False)
    if failure.kind == "transient":
        return TransientError(failure.text)
    return OperatorError(failure.text)


@asynccontextmanager
async def export_lock(connection: Any, name: str, wait: float) -> AsyncIterator[None]:
    """Hold the lock of an export inside the block; `TransientError` if another process has it for ``wait`` seconds."""
    digest = hashlib.sha256(
        f"asgi-analytics export {await connection.fetchval('SELECT current_schema()')} {name}".encode()
    ).digest()
    number = int.from_bytes(digest[:8], "big", signed=True)
    deadline = time.monotonic() + wait
    pause = 0.02
    while not await connection.fetchval(SQL["try_lock"], number):
        if time.monotonic() >= deadline:
            raise TransientError(f"another process runs the export {name}")
        await asyncio.sleep(pause)
        pause = min(2 * pause, 0.5)
    try:
        yield
    finally:
        with contextlib.suppress(*CONNECT_ERRORS):
            await connection.fetchval(SQL["unlock"], number)
