"""The driver contract over psycopg 3: sync and async connections, pools, and SQLAlchemy's dialect."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import psycopg
import psycopg_pool
import pytest

from asgi_analytics.instrumentation.psycopg import Instrumentation, instrument_psycopg
from tests.instrumentation.queries.driver_contract import DriverContract


class _Instrumenting:
    undefined_table = "psycopg.errors.UndefinedTable"

    def __init__(self) -> None:
        self.handles: list[Instrumentation] = []

    def instrument(self, client: Any, **options: Any) -> Instrumentation:
        self.handles.append(instrument_psycopg(client, **options))
        return self.handles[-1]

    def undo(self) -> None:
        for handle in self.handles:
            handle.uninstrument()


class ConnectionDriver(_Instrumenting):
    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        super().__init__()
        self.connection = connection

    async def run(self, sql: str) -> object:
        return self.connection.execute(sql.encode()).fetchall()

    async def in_transaction(self, sql: str) -> None:
        with self.connection.transaction():
            self.connection.execute(sql.encode())


class TestConnection(DriverContract):
    @pytest.fixture
    async def driver(self, things: str) -> AsyncIterator[ConnectionDriver]:
        with psycopg.connect(things, autocommit=True) as connection:
            driver = ConnectionDriver(connection)
            yield driver
            driver.undo()


class AsyncConnectionDriver(_Instrumenting):
    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        super().__init__()
        self.connection = connection

    async def run(self, sql: str) -> object:
        async with self.connection.cursor() as cursor:
            await cursor.execute(sql.encode())
            return await cursor.fetchall()

    async def in_transaction(self, sql: str) -> None:
        async with self.connection.transaction():
            await self.connection.execute(sql.encode())


class TestAsyncConnection(DriverContract):
    @pytest.fixture
    async def driver(self, things: str) -> AsyncIterator[AsyncConnectionDriver]:
        async with await psycopg.AsyncConnection.connect(things, autocommit=True) as connection:
            driver = AsyncConnectionDriver(connection)
            yield driver
            driver.undo()


class PoolDriver(_Instrumenting):
    """A pool that checks each connection, and runs a reset callback."""

    def __init__(self, pool: psycopg_pool.AsyncConnectionPool[Any]) -> None:
        super().__init__()
        self.pool = pool

    async def run(self, sql: str) -> object:
        async with self.pool.connection() as connection:
            return await (await connection.execute(sql.encode())).fetchall()

    async def in_transaction(self, sql: str) -> None:
        async with self.pool.connection() as connection:
            await connection.execute(sql.encode())


class TestPool(DriverContract):
    @pytest.fixture
    async def driver(self, things: str) -> AsyncIterator[PoolDriver]:
        async def reset(connection: psycopg.AsyncConnection[Any]) -> None:
            await connection.execute("SET search_path = public")
            await connection.commit()

        check = psycopg_pool.AsyncConnectionPool.check_connection
        pool = psycopg_pool.AsyncConnectionPool(things, min_size=1, max_size=2, check=check, reset=reset, open=False)
        async with pool:
            driver = PoolDriver(pool)
            yield driver
            driver.undo()


class SqlalchemyDriver(_Instrumenting):
    def __init__(self, engine: Any) -> None:
        super().__init__()
        self.engine = engine

    async def run(self, sql: str) -> object:
        from sqlalchemy import text

        async with self.engine.connect() as connection:
            return (await connection.execute(text(sql))).all()

    async def in_transaction(self, sql: str) -> None:
        from sqlalchemy import text

        async with self.engine.begin() as connection:
            await connection.execute(text(sql))


class TestSqlalchemy(DriverContract):
    @pytest.fixture
    async def driver(self, things: str) -> AsyncIterator[SqlalchemyDriver]:
        asyncio_extension = pytest.importorskip("sqlalchemy.ext.asyncio")
        engine = asyncio_extension.create_async_engine(things.replace("postgresql://", "postgresql+psycopg://"))
        driver = SqlalchemyDriver(engine)
        yield driver
        driver.undo()
        await engine.dispose()
