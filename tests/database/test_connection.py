"""Connecting: what a URL asks for, and waiting for a server that is away."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest

from asgi_analytics.database import connection as module
from asgi_analytics.database.connection import NoConnection, connect, driver_options, is_direct
from asgi_analytics.database.url import read_dsn
from tests.kit.databases import Database, free_port
from tests.kit.proxy import Proxy


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """Give the time of each attempt to connect, and how long it may take; all are refused."""
    made: list[tuple[float, float]] = []

    async def refuse(*args: object, timeout: float, **options: object) -> None:
        made.append((time.monotonic(), timeout))
        raise ConnectionRefusedError

    monkeypatch.setattr(asyncpg, "connect", refuse)
    return made


async def wait(seconds: float | None) -> list[str]:
    told: list[str] = []
    deadline = None if seconds is None else time.monotonic() + seconds
    url = read_dsn(f"postgresql://db:{free_port()}/shop")
    with pytest.raises(NoConnection, match="no server answers"):
        await connect(url, deadline, told.append)
    return told


@pytest.mark.parametrize("seconds", [0.3, 1.0, 2.2])
async def test_a_wait_uses_all_its_time_and_asks_once_more_at_the_end(
    attempts: list[tuple[float, float]], seconds: float
) -> None:
    begun = time.monotonic()
    [told] = await wait(seconds)
    assert "waiting for it" in told
    assert attempts[-1][0] - begun >= seconds
    assert all(at - begun < seconds for at, _ in attempts[:-1])


@pytest.mark.parametrize("seconds", [None, 0.0])
async def test_without_a_wait_there_is_one_attempt_that_has_time(
    attempts: list[tuple[float, float]], seconds: float | None
) -> None:
    assert await wait(seconds) == []
    assert [timeout for _, timeout in attempts] == [module.ANSWER_WITHIN]


async def test_no_attempt_takes_much_longer_than_the_wait(attempts: list[tuple[float, float]]) -> None:
    await wait(0.5)
    assert [timeout for _, timeout in attempts][1:] == [module.LEAST_ANSWER] * (len(attempts) - 1)


async def test_what_does_not_pass_by_itself_is_not_waited_for(database: Database) -> None:
    url = read_dsn(database.cluster.dsn(database.name, "postgres", "wr0ng"))
    with pytest.raises(NoConnection, match="wrong user or password"):
        await asyncio.wait_for(connect(url, time.monotonic() + 3600, lambda _: None), 30)


async def test_a_direct_connection_is_known_from_one_through_a_proxy_that_pools_nothing(
    database: Database, make_proxy: Callable[..., Proxy]
) -> None:
    for dsn in (database.dsn, make_proxy(database).dsn):
        connection = await connect(read_dsn(dsn), None, lambda _: None)
        assert await is_direct(connection)
        await connection.close()


@pytest.mark.parametrize(
    ("query", "options"),
    [
        ("", {}),
        ("?statement_cache_size=0", {"statement_cache_size": 0}),
        ("?prepared_statement_cache_size=0", {"statement_cache_size": 0}),
        ("?pgbouncer=true", {"statement_cache_size": 0}),
        ("?statement_cache_size=50", {}),
    ],
)
def test_a_url_that_asks_for_no_prepared_statements_gets_none(query: str, options: dict[str, Any]) -> None:
    assert driver_options(read_dsn(f"postgresql://db/shop{query}")) == {"dsn": "postgresql://db/shop", **options}


def test_the_authorities_of_the_system_are_used_if_the_url_asks_for_them() -> None:
    options = driver_options(read_dsn("postgresql://db/shop?sslrootcert=system"))
    assert options["ssl"].verify_mode == ssl.CERT_REQUIRED
    assert options["ssl"].check_hostname
