"""What ``track()`` costs its caller, and what a queued event weighs.

Compares, interleaved in one process: a struct with an id and a time appended to a bounded deque (the least that any
such tool can do), ``client.track(TaskCreated(...))`` with construction, identity, time, context and encoding, and an
OpenTelemetry log record emitted through a batch processor.

Run: python benchmarks/tracking.py
Needs: opentelemetry-sdk
Goals: track() at most 4.5 times the struct; at least 5 times cheaper than the log record; at most 400 bytes an event.
"""

from __future__ import annotations

import gc
import os
import statistics
import sys
import time
import tracemalloc
import warnings
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec

sys.path.insert(0, str(Path(__file__).parent.parent))

from asgi_analytics import AnalyticsClient, Event, events
from benchmarks.goals import at_least, at_most

ROUNDS = 61
EVENTS = 2_000

TASK, USER = uuid4(), uuid4()


class Row(msgspec.Struct):
    """The least that a tool for events could queue."""

    event_id: bytes
    timestamp: datetime
    task_id: UUID
    user_id: UUID
    command: str


def struct_appended() -> tuple[Callable[[], Any], Callable[[], Any]]:
    queue: deque[Row] = deque(maxlen=10_000)
    random, at = os.urandom(4096), 0

    def new_id() -> bytes:
        nonlocal random, at
        if at >= 4096:
            random, at = os.urandom(4096), 0
        at += 16
        return random[at - 16 : at]

    def one() -> None:
        queue.append(Row(new_id(), datetime.now(UTC), TASK, USER, "build"))

    return one, queue.clear


def track() -> tuple[Callable[[], Any], Callable[[], Any]]:
    client = AnalyticsClient(service="shop", environment="production", queue_size=EVENTS + 1)
    task_created = events.TaskCreated

    def one() -> None:
        client.track(task_created(task_id=TASK, user_id=USER, command="build"))

    def clear() -> None:
        assert not client.stats().dropped.total()
        batch = client._ledger.take(EVENTS + 1, 1 << 40)
        client._ledger.settle(batch, duplicates=0, rejected=[])

    return one, clear


def log_record() -> tuple[Callable[[], Any], Callable[[], Any]]:
    warnings.simplefilter("ignore")
    from opentelemetry._logs import LogRecord, SeverityNumber
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter, LogRecordExportResult

    class Nowhere(LogRecordExporter):
        def export(self, batch: Any) -> Any:
            return LogRecordExportResult.SUCCESS

        def shutdown(self) -> None:
            pass

        def force_flush(self, timeout_millis: int = 0) -> bool:
            return True

    provider = LoggerProvider()
    provider.add_log_record_processor(
        BatchLogRecordProcessor(Nowhere(), max_queue_size=EVENTS + 1, schedule_delay_millis=3_600_000)
    )
    logger = provider.get_logger("shop")

    def one() -> None:
        logger.emit(
            LogRecord(
                timestamp=time.time_ns(),
                severity_number=SeverityNumber.INFO,
                event_name="task_created",
                attributes={"task_id": str(TASK), "user_id": str(USER), "command": "build"},
            )
        )

    return one, lambda: provider.force_flush()


class Paged(Event):
    """An event of about 250 bytes: less than the envelope and one short field cannot be."""

    n: int


def bytes_per_queued_event(make: Callable[[int], Event]) -> tuple[float, float]:
    """Return what a queued event weighs, and how many bytes its JSON has."""
    client = AnalyticsClient(service="s", queue_size=EVENTS + 1)
    client.track(make(0))
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(EVENTS):
        client.track(make(number))
    gc.collect()
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return used / EVENTS, len(client._queue.items[-1])


def main() -> None:
    contestants = {"struct appended": struct_appended(), "track()": track(), "OpenTelemetry log": log_record()}
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(ROUNDS):
        for name, (one, clear) in contestants.items():
            clear()
            began = time.process_time_ns()
            for _ in range(EVENTS):
                one()
            times[name].append((time.process_time_ns() - began) / EVENTS / 1000)
    medians = {name: statistics.median(values) for name, values in times.items()}
    least = medians["struct appended"]
    python = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    print(f"CPython {python}, msgspec {version('msgspec')}, opentelemetry-sdk {version('opentelemetry-sdk')}")
    print()
    print("| one event, caller's CPU | median µs | fastest µs | × struct |")
    print("|---|---|---|---|")
    for name, median in medians.items():
        print(f"| {name} | {median:.2f} | {min(times[name]):.2f} | {median / least:.2f} |")
    ours = medians["track()"]
    print()
    at_most("track(), in structs appended to a deque", ours / least, 4.5)
    at_least("an OpenTelemetry log record, in track()s", medians["OpenTelemetry log"] / ours, 5)
    made: tuple[Callable[[int], Event], ...] = (
        lambda number: Paged(n=number),
        lambda number: events.TaskCreated(task_id=TASK, user_id=USER, command="build"),
    )
    for make in made:
        memory, size = bytes_per_queued_event(make)
        print(f"a queued event whose JSON has {size:.0f} bytes takes {memory:.0f} bytes")
        if make is made[0]:
            at_most("bytes of memory for a queued event of 250 or some more", memory, 400)


if __name__ == "__main__":
    main()
