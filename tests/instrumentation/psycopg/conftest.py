"""A database with one table, connections to it, and the client whose events are looked at."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest

from asgi_analytics.instrumentation.psycopg import instrument_psycopg
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
        handle = instrument_psycopg(captured.client)
        yield captured
        handle.uninstrument()


@pytest.fixture
def connection(dsn: str, captured: CapturedEvents) -> Iterator[psycopg.Connection[Any]]:
    """Give a connection outside of a transaction."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("TRUNCATE t")
        connection.execute("INSERT INTO t SELECT n, 'name ' || n FROM generate_series(1, 5) n")
        captured.clear()
        yield connection


@pytest.fixture
async def async_connection(
    connection: psycopg.Connection[Any], dsn: str
) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as async_connection:
        yield async_connection
