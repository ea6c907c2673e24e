"""Random metrics as a client would send them, the values that they were made of, and a client that keeps its rows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime
from random import Random
from typing import Any, NamedTuple

import pytest

from asgi_analytics import AnalyticsClient
from asgi_analytics.encoding.ids import next_number
from asgi_analytics.encoding.metric_record import MetricRecord, Series
from asgi_analytics.encoding.metric_values import sums_of
from asgi_analytics.encoding.records import Source

SERVICES = ("shop", "forge")


class Measured(NamedTuple):
    """What was recorded of one series in one interval."""

    at: datetime
    metric_type: str
    name: str
    service: str
    tags: dict[str, Any]
    values: list[float]

    def line(self) -> bytes:
        """Return what a client would send."""
        unit = "ms" if self.metric_type == "timer" else None
        series = Series(self.metric_type, self.name, unit, self.tags)
        sums = sums_of(self.values, series, [])
        assert sums is not None
        time = int(self.at.timestamp() * 1_000_000) * 1000
        source = Source.of(self.service, None, None)
        return MetricRecord(source, 0, time, next_number(), None, None, None, None, series, sums).line()


def measured(random: Random, at: datetime) -> Measured:
    """Return some values of one of few series."""
    kind = random.choice(("counter", "gauge", "histogram", "timer"))
    tags: dict[str, Any] = {"route": random.choice(("/a", "/b")), "status": random.choice((200, 500))}
    if random.random() < 0.2:
        tags = {}
    if kind == "counter":
        values = [float(random.randint(-3, 9)) for _ in range(random.randint(1, 20))]
    elif kind == "gauge":
        values = [random.uniform(-50, 50) for _ in range(random.randint(1, 5))]
    else:
        values = [random.choice((0.0, random.lognormvariate(3, 2))) for _ in range(random.randint(1, 30))]
    return Measured(at, kind, f"{kind}.{random.choice('ab')}", random.choice(SERVICES), tags, values)


def percentile(values: list[float], q: float) -> float:
    """Return what percentile_cont does."""
    ordered, rank = sorted(values), q * (len(values) - 1)
    low, high = ordered[math.floor(rank)], ordered[math.ceil(rank)]
    return low + (high - low) * (rank - math.floor(rank))


def is_close(found: float | None, values: list[float], q: float) -> bool:
    """Tell whether a percentile is within 2 % of the values at the ranks around it."""
    ordered, rank = sorted(values), q * (len(values) - 1)
    ends = ordered[math.floor(rank)], ordered[math.ceil(rank)]
    room = 0.02 * max(map(abs, ends)) if min(ends) < 0 < max(ends) else 0.02 * abs(percentile(values, q))
    return found is not None and abs(found - percentile(values, q)) <= room + 1e-9


@pytest.fixture
def client() -> Iterator[AnalyticsClient]:
    """Give a client with a sink in memory."""
    client = AnalyticsClient.from_url("memory://", service="shop", flush_interval=3600)
    yield client
    client.close()


def stored(client: AnalyticsClient) -> list[dict[str, Any]]:
    """Return the data of all rows."""
    assert client.flush(30)
    return [event.data for event in client.sink.events]
