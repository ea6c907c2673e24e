"""Keep connections for work that is done again and again: from a URL, or from a pool of the application."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg

from asgi_analytics.database.connection import driver_options, is_direct
from asgi_analytics.database.failures import DRIVER_ERRORS, LostTwice, explain
from asgi_analytics.database.url import DatabaseUrl
from asgi_analytics.errors import AnalyticsError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from asyncpg.pool import PoolConnectionProxy

T = TypeVar("T")

CONNECT_TIMEOUT = 10.0
COMMAND_TIMEOUT = 30.0
CLOSE_TIMEOUT = 1.0
"""Seconds for a connection to open, for a statement that names no time of its own, and for all of them to close."""

READ_ONLY = "25006"
"""What a server says that has become a standby."""


class ConnectionKeeper:
    """Lends connections, and keeps those of a URL open in between.

    A URL's connections are opened when they are first needed, ``size`` at most, and belong to the event loop that runs
    then; another loop gets others. They work behind a transaction pooler too. A pool of the application stays the
    application's: nothing is set on its connections, and it is never closed.
    """

    def __init__(self, target: asyncpg.Pool[Any] | DatabaseUrl, *, size: int = 2) -> None:
        self._url = target if isinstance(target, DatabaseUrl) else None
        self._given = None if isinstance(target, DatabaseUrl) else target
        self._size = size
        self._pool: asyncpg.Pool[Any] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._kept: list[PoolConnectionProxy[Any]] = []
        self._acquiring = 0
        self._is_pooled = False

    async def run(self, work: Callable[[PoolConnectionProxy[Any]], Awaitable[T]]) -> T:
        """Do some work on a connection and return its result; if the connection is lost, once more on a fresh one.

        The work has to be safe to repeat. Raises what the work raises, or `LostTwice`.
        """
        try:
            async with self.connection() as connection:
                return await self._do(work, connection)
        except _Lost:
            await self._forget_idle()
        try:
            async with self.connection() as connection:
                return await self._do(work, connection)
        except _Lost as error:
            raise LostTwice(str(error.__cause__)) from error.__cause__

    async def _do(
        self, work: Callable[[PoolConnectionProxy[Any]], Awaitable[T]], connection: PoolConnectionProxy[Any]
    ) -> T:
        try:
            return await work(connection)
        except AnalyticsError:
            raise  # the work has decided already
        except Exception as error:
            failure = explain(error)
            if failure.sqlstate == READ_ONLY:
                # A primary that was replaced may live on as a standby, and keep its connections: a new one is led to
                # where the name points now.
                _terminate(connection)
            is_slow = failure.is_slow or isinstance(error, TimeoutError)
            if is_slow or not (failure.is_lost or _has_ended(connection)):
                raise
            _terminate(connection)
            raise _Lost from error

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[PoolConnectionProxy[Any]]:
        """Lend a connection for the block."""
        if self._given is not None:
            connection = await self._given.acquire(timeout=CONNECT_TIMEOUT)
            try:
                yield connection
            finally:
                await _release(self._given, connection)
            return
        pool = await self._open()
        # The connections of the last blocks are kept at hand: to get one from the pool costs a tenth of a write.
        connection = await self._take_kept(pool) or await self._acquire(pool)
        try:
            yield connection
        except BaseException:
            await _release(pool, connection)
            raise
        if self._pool is pool and not self._acquiring:
            self._kept.append(connection)
        else:
            await _release(pool, connection)

    async def aclose(self) -> None:
        """Close the connections of a URL, within a second; the next use opens others."""
        pool, self._pool = self._pool, None
        kept, self._kept = self._kept, []
        if pool is None or self._loop is not asyncio.get_running_loop():
            return
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                for connection in kept:
                    await _release(pool, connection)
                await pool.close()
        except DRIVER_ERRORS:
            pool.terminate()

    async def _open(self) -> asyncpg.Pool[Any]:
        loop = asyncio.get_running_loop()
        if self._pool is None or self._loop is not loop:
            # A pool belongs to one loop; that of a loop which has ended can only be left, not closed.
            self._loop, self._kept = loop, []
            assert self._url is not None
            self._pool = await asyncpg.create_pool(
                **driver_options(self._url),
                min_size=0,
                max_size=self._size,
                timeout=CONNECT_TIMEOUT,
                command_timeout=COMMAND_TIMEOUT,
                connect=self._connect,
                reset=_leave_as_it_is,  # nothing here changes a connection, so a round trip is saved
                server_settings={"application_name": "asgi-analytics"},
            )
        return self._pool

    async def _connect(self, *args: Any, **options: Any) -> Any:
        """Open a connection, without prepared statements if there is a pooler in between.

        A pooler hands a session from client to client between two transactions, and with it the names of prepared
        statements. Without them each statement takes a second round trip, a fifth of a small write: direct connections
        keep them.
        """
        if self._is_pooled:
            options["statement_cache_size"] = 0
        connection = await asyncpg.connect(*args, **options)
        if options.get("statement_cache_size") == 0:
            return connection
        try:
            if await is_direct(connection, timeout=CONNECT_TIMEOUT):
                return connection
        except BaseException:
            connection.terminate()
            raise
        await connection.close(timeout=CLOSE_TIMEOUT)
        self._is_pooled = True
        return await asyncpg.connect(*args, **{**options, "statement_cache_size": 0})

    async def _take_kept(self, pool: asyncpg.Pool[Any]) -> PoolConnectionProxy[Any] | None:
        while self._kept:
            connection = self._kept.pop()
            if not _has_ended(connection):
                return connection
            await _release(pool, connection)
        return None

    async def _acquire(self, pool: asyncpg.Pool[Any]) -> PoolConnectionProxy[Any]:
        self._acquiring += 1
        try:
            connection: PoolConnectionProxy[Any] = await pool.acquire(timeout=CONNECT_TIMEOUT)
            is_lost = _has_ended(connection)
        except TimeoutError:
            self._leave(pool)
            raise
        finally:
            self._acquiring -= 1
        if is_lost:
            self._leave(pool)
            raise asyncpg.InterfaceError("the connection ended while it was opened")
        return connection

    async def _forget_idle(self) -> None:
        """Use no other connection that is open now: what ended one of them has probably ended them all."""
        for connection in self._kept:
            _terminate(connection)
        if self._pool is not None:
            await self._pool.expire_connections()

    def _leave(self, pool: asyncpg.Pool[Any]) -> None:
        """Let the next block open a new pool.

        asyncpg's loses the place of a connection that the server ends between its opening and its first use, and lends
        none when all places are lost.
        """
        if self._pool is pool:
            self._pool, self._kept = None, []
        pool.terminate()


class _Lost(Exception):
    """The connection was lost during the work; the ``__cause__`` says how."""


async def _release(pool: asyncpg.Pool[Any], connection: PoolConnectionProxy[Any]) -> None:
    """Give a connection back, which ends what was begun on it, or the connection.

    How that goes wrong is not what went wrong, nor does it undo what went well. A connection that the server ends at
    this moment is free already when its pool comes to it, which asyncpg calls an internal error.
    """
    with contextlib.suppress(*DRIVER_ERRORS):
        await pool.release(connection)


def _has_ended(connection: PoolConnectionProxy[Any]) -> bool:
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:  # a lent connection that ends goes back to its pool by itself
        return True


def _terminate(connection: PoolConnectionProxy[Any]) -> None:
    with contextlib.suppress(asyncpg.InterfaceError):
        connection.terminate()


async def _leave_as_it_is(connection: object) -> None:
    """Reset nothing when a connection returns to the pool."""
