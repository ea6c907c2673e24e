"""The OpenTelemetry metrics of the ingestion service, ``analytics.ingestion.*``, beside those of its requests."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from opentelemetry import metrics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asgi_analytics.sinks.base import Rejected


class IngestionMetrics:
    """Count what arrives, what becomes of it, and the writes; this does nothing without an OpenTelemetry SDK."""

    def __init__(self) -> None:
        meter = metrics.get_meter("asgi_analytics")
        self._bytes = meter.create_counter("analytics.ingestion.bytes", "By", "Bytes of the batches, uncompressed")
        self._events = meter.create_counter(
            "analytics.ingestion.events", "{event}", "Events by what became of them: stored, duplicate, rejected"
        )
        self._writes = meter.create_histogram("analytics.ingestion.write.duration", "s", "Time of a database write")
        self._written = meter.create_histogram("analytics.ingestion.write.events", "{event}", "Events in one write")

    def received(self, size: int) -> None:
        """Count the bytes of a batch."""
        if size:
            self._bytes.add(size)

    def settled(self, stored: int, duplicates: int, rejected: Sequence[Rejected]) -> None:
        """Count what became of a batch."""
        if stored:
            self._events.add(stored, {"result": "stored"})
        if duplicates:
            self._events.add(duplicates, {"result": "duplicate"})
        for reason, number in Counter(one.reason for one in rejected).items():
            self._events.add(number, {"result": "rejected", "reason": reason})

    def wrote(self, events: int, seconds: float, error: str | None) -> None:
        """Count a write to the database; ``error`` is the type of the exception if it failed."""
        self._writes.record(seconds, {"error.type": error} if error else {})
        self._written.record(events)
