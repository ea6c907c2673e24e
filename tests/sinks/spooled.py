"""Clients with a spool that is quick to try again, and the folders that they make."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from asgi_analytics import AnalyticsClient, events
from asgi_analytics.errors import TransientError
from asgi_analytics.sinks import spool
from tests.kit.fakes import until

ID = UUID("0198c1a2-0000-7000-8000-000000000001")
TASK = events.TaskStarted(task_id=ID, user_id=ID)
AWAY = TransientError("the sink is away")

Spooled = Callable[..., AnalyticsClient]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "LAST_BACKOFF", 0.05)
    monkeypatch.setattr(spool, "LOOK_SECONDS", 0.005)


@pytest.fixture
def spooled(tmp_path: Path) -> Iterator[Spooled]:
    """Give ``spooled(sink)``: a client that writes to the sink, with a spool in ``tmp_path / "spool"``."""
    made: list[AnalyticsClient] = []

    def make_client(sink: Any, **settings: Any) -> AnalyticsClient:
        usual: dict[str, Any] = {
            "queue_size": 200,
            "batch_size": 10,
            "flush_interval": 0.05,
            "spool": tmp_path / "spool",
        }
        client = AnalyticsClient.from_url("memory://", service="shop", **(usual | settings))
        client._delivery.host.sink = sink  # type: ignore[union-attr]
        made.append(client)
        return client

    yield make_client
    for client in made:
        client.close(1)


def track(client: AnalyticsClient, number: int) -> None:
    """Track so many events at the pace of the worker."""
    for _ in range(number):
        until(lambda: len(client._queue.items) < client.settings.queue_size - 1)
        assert client.track(TASK)


def folders(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "spool").iterdir())
