"""A database with one table, a connection to it, and the client whose events are looked at."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest

from asgi_analytics.instrumentation.asyncpg import instrument_asyncpg
from asgi_analytics.testing import CapturedEvents, capture_events
from tests.kit.databases import query
from tests.kit.servers import Servers


@pytest.fixture(scope="module")
def dsn(servers: Servers) -> Iterator[str]:
    server = servers.shared("postgresql")
    name = server.create()
    query(server.dsn(name), "CREATE TABLE t (id int PRIMARY KEY, name text)")
    query(server.dsn(name), "CREATE TYPE mood AS ENUM ('fine', 'so so')")
    yield server.dsn(name)
    server.drop(name)


@pytest.fixture
def captured() -> Iterator[CapturedEvents]:
    with capture_events() as captured:
        handle = instrument_asyncpg(captured.client)
        yield captured
        handle.uninstrument()


@pytest.fixture
async def connection(dsn: str, captured: CapturedEvents) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(dsn)
    await connection.execute("TRUNCATE t")
    await connection.execute("INSERT INTO t SELECT n, 'name ' || n FROM generate_series(1, 5) n")
    captured.clear()
    yield connection
    await connection.close()
