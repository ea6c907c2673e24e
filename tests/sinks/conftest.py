"""What the tests of the database sink share."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest

from asgi_analytics import AnalyticsClient, events
from tests.kit.databases import PASSWORD, Database

ID = UUID("0198c1a2-0000-7000-8000-000000000001")
Connect = Callable[[str], AnalyticsClient]
Rows = Callable[..., Awaitable[list[dict[str, Any]]]]


@pytest.fixture
def rows(database: Database) -> Rows:
    """Give ``await rows(table)``: all rows as dicts, by event name or id."""

    async def read(table: str = "analytics_events", order: str = "id") -> list[dict[str, Any]]:
        connection = await database.connect()
        return [dict(row) for row in await connection.fetch(f"SELECT * FROM {table} ORDER BY {order}")]

    return read


@pytest.fixture
async def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry soon: these tests wait for real retries."""
    monkeypatch.setattr("asgi_analytics.worker.worker.LAST_BACKOFF", 0.1)
    monkeypatch.setattr("asgi_analytics.worker.worker.OPERATOR_BACKOFF", 0.05)
    monkeypatch.setattr("asgi_analytics.worker.worker.LAST_OPERATOR_BACKOFF", 0.1)


@pytest.fixture
def discreet_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail where the package, at any level, logs a password or the value of an event."""
    caplog.set_level(logging.DEBUG)
    yield
    records = [record for phase in ("setup", "call", "teardown") for record in caplog.get_records(phase)]
    ours = "\n".join(record.getMessage() for record in records if record.name == "asgi_analytics")
    assert PASSWORD not in ours
    assert quote(PASSWORD, safe="") not in ours
    assert "nobody" not in ours


@pytest.fixture
async def connect(impatient: None, discreet_log: None) -> AsyncIterator[Connect]:
    """Give ``connect(dsn)``: a client with a worker of its own; what it logs is discreet."""
    made: list[AnalyticsClient] = []

    def connect(dsn: str) -> AnalyticsClient:
        made.append(AnalyticsClient.from_url(dsn, service="shop", flush_interval=0.05, strict=True))
        return made[-1]

    yield connect
    for client in made:
        await client.aclose(5)


def say(client: AnalyticsClient, number: int = 1) -> None:
    for _ in range(number):
        client.track(events.ProjectCreated(project_id=ID, user_id=1, name="nobody's business"))
