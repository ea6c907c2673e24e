"""What the fault tests share: an application that keeps saying things, and remembers what was accepted."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from asgi_analytics import AnalyticsClient, events
from tests.faults.balance import assert_balanced, assert_stored
from tests.kit.databases import Database
from tests.kit.fakes import eventually
from tests.sinks.conftest import discreet_log, impatient, rows

__all__ = ["Application", "StartApplication", "discreet_log", "impatient", "rows"]

PROJECT = UUID("0198c1a2-0000-7000-8000-000000000001")
TICKS_A_SECOND = 50


class Application:
    """Tracks events under ids of its own; ``accepted`` holds those for which ``track()`` returned True.

    ``at`` is its clock.
    """

    def __init__(self, client: AnalyticsClient) -> None:
        self.client = client
        self.accepted: list[UUID] = []
        self.refused = 0
        self.at: Callable[[], datetime] = lambda: datetime.now(UTC)
        self._id = uuid4()
        encoder = client._encoder
        encoder.mints, encoder.clock, encoder._new_id = False, lambda: self.at(), lambda: self._id

    def say(self, number: int = 1) -> None:
        """Track so many events, whatever becomes of them."""
        for _ in range(number):
            self._id = uuid4()
            if self.client.track(events.ProjectCreated(project_id=PROJECT, user_id=1, name="nobody's business")):
                self.accepted.append(self._id)
            else:
                self.refused += 1

    def capture(self, number: int = 1) -> None:
        """Track so many events as the middleware does: refused from 80 % full."""
        for _ in range(number):
            self._id = uuid4()
            request = events.ApiRequest(method="GET", status_code=200, duration_ms=1.0, outcome="ok")
            if self.client.intake.event(request):
                self.accepted.append(self._id)
            else:
                self.refused += 1

    async def stores_more(self, seconds: float = 10.0) -> None:
        """Return when more is stored than at the call; fails after some seconds."""
        stored = self.client.stats().stored
        await eventually(lambda: self.client.stats().stored > stored, seconds)

    async def assert_stored_in(self, database: Database, seconds: float = 20.0) -> None:
        """Fail unless all that was accepted is stored within some seconds, and the table holds exactly that."""
        assert await self.client.aflush(seconds)
        await assert_stored(self.client, database, self.accepted)

    async def keep_saying(self, a_second: int) -> None:
        """Track at a constant rate until cancelled, and look at the balance all the while."""
        begun, said = time.monotonic(), 0
        while True:
            due = int((time.monotonic() - begun) * a_second)
            self.say(due - said)
            said = due
            assert_balanced(self.client.stats())
            await asyncio.sleep(1 / TICKS_A_SECOND)

    @contextlib.asynccontextmanager
    async def busy(self, a_second: int = 500) -> AsyncIterator[None]:
        """Track at a constant rate inside the block; fails where a ``track()`` raised."""
        task = asyncio.create_task(self.keep_saying(a_second))
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


StartApplication = Callable[..., Application]


@pytest.fixture
async def start_application(discreet_log: None) -> AsyncIterator[StartApplication]:
    """Give ``start_application(dsn, **settings)``; what its worker logs is discreet."""
    made: list[AnalyticsClient] = []

    def start(dsn: str, **settings: Any) -> Application:
        settings = {"service": "shop", "flush_interval": 0.05, **settings}
        made.append(AnalyticsClient.from_url(dsn, **settings))
        return Application(made[-1])

    yield start
    for client in made:
        await client.aclose(5)


def assert_nobody_has_to_act(caplog: pytest.LogCaptureFixture) -> None:
    """Fail where an error was logged, which calls for somebody."""
    assert not [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
