"""The driver contract over asyncpg: a connection, a pool, and SQLAlchemy's dialect."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from asgi_analytics.instrumentation.asyncpg import Instrumentation, instrument_asyncpg
from tests.instrumentation.queries.driver_contract import DriverContract


class _Instrumenting:
    undefined_table = "asyncpg.exceptions.UndefinedTableError"

    def __init__(self) -> None:
        self.handles: list[Instrumentation] = []

    def instrument(self, client: Any, **options: Any) -> Instrumentation:
        self.handles.append(instrument_asyncpg(client, **options))
        return self.handles[-1]

    def undo(self) -> None:
        for handle in self.handles:
            handle.uninstrument()


class ConnectionDriver(_Instrumenting):
    def __init__(self, connection: Any) -> None:
        super().__init__()
        self.connection = connection

    async def run(self, sql: str) -> object:
        return await self.connection.fetch(sql)

    async def in_transaction(self, sql: str) -> None:
        async with self.connection.transaction():
            await self.connection.execute(sql)


class TestConnection(DriverContract):
    @pytest.fixture
    async def driver(self, things: str) -> AsyncIterator[ConnectionDriver]:
        driver = ConnectionDriver(await asyncpg.connect(things))
        yield driver
        driver.undo()
        await driver.connection.close()


class PoolDriver(ConnectionDriver):
    async def in_transaction(self, sql: str) -> None:
        async with self.connection.acquire() as connection, connection.transaction():
            await connection.execute(sql)


class TestPoolThatWasThereBefore(DriverContract):
    @pytest.fixture
    async def driver(self, things: str) -> AsyncIterator[PoolDriver]:
        async with asyncpg.create_pool(things, min_size=1, max_size=2) as pool:
            driver = PoolDriver(pool)
            yield driver
            driver.undo()


class LatePoolDriver(PoolDriver):
    """Connects only when it is asked for something."""

    def __init__(self, dsn: str) -> None:
        super().__init__(None)
        self.dsn = dsn

    async def run(self, sql: str) -> object:
        async with asyncpg.create_pool(self.dsn, min_size=1, max_size=1) as pool:
            return await pool.fetch(sql)

    async def in_transaction(self, sql: str) -> None:
        pool = asyncpg.create_pool(self.dsn, min_size=1, max_size=1)
        async with pool, pool.acquire() as connection, connection.transaction():
            await connection.execute(sql)


class TestPoolThatCameAfter(DriverContract):
    @pytest.fixture
    async def driver(self, things: str) -> AsyncIterator[LatePoolDriver]:
        driver = LatePoolDriver(things)
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
        engine = asyncio_extension.create_async_engine(
            things.replace("postgresql://", "postgresql+asyncpg://"), pool_pre_ping=True
        )
        driver = SqlalchemyDriver(engine)
        yield driver
        driver.undo()
        await engine.dispose()
