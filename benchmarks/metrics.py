"""What a call of a metric costs its caller, and what a flush of many series costs the application.

Compares, interleaved in one process, a counter and a histogram with two tags: ours, OpenTelemetry's SDK and
prometheus-client; and ``track()``. The cost is CPU, and has all that the calls cause in the caller's thread: every
256th folds. Then 10,000 series with histograms of 20 bins each are sent, and become JSON, in steps between which others
get a turn. Of a step, too, the CPU is measured: how long others wait for it depends on what else runs.

Run: python benchmarks/metrics.py
Needs: opentelemetry-sdk, prometheus-client
Goals: counter() and histogram() at most 1.5 times track(), and cheaper than those of the two others; 10,000 series
sent in at most 100 ms of CPU; no step, to send or to write, of more than 5 ms.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

sys.path.insert(0, str(Path(__file__).parent.parent))

from asgi_analytics import AnalyticsClient, events
from asgi_analytics.encoding.metric_record import MetricRecord
from asgi_analytics.worker.worker import LINES_AT_ONCE
from benchmarks.goals import at_least, at_most

ROUNDS = 61
CALLS = 2_048
SERIES = 10_000
FLUSHES = 9

TASK, USER = uuid4(), uuid4()


def ours() -> dict[str, Callable[[], Any]]:
    client = AnalyticsClient(service="shop", environment="production", queue_size=CALLS + 1)
    metrics, task_created = client.metrics, events.TaskCreated

    def track() -> None:
        client.track(task_created(task_id=TASK, user_id=USER, command="build"))

    def clear() -> None:
        assert not client.stats().dropped.total()
        batch = client._ledger.take(CALLS + 1, 1 << 40)
        client._ledger.settle(batch, duplicates=0, rejected=[])

    return {
        "clear": clear,
        "track()": track,
        "counter()": lambda: metrics.counter("orders", 1, route="/orders/{id}", method="POST"),
        "histogram()": lambda: metrics.histogram("duration", 12.5, route="/orders/{id}", method="POST"),
    }


def opentelemetry() -> dict[str, Callable[[], Any]]:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    meter = MeterProvider([InMemoryMetricReader()]).get_meter("shop")
    counter, histogram = meter.create_counter("orders"), meter.create_histogram("duration")
    return {
        "OpenTelemetry counter": lambda: counter.add(1, {"route": "/orders/{id}", "method": "POST"}),
        "OpenTelemetry histogram": lambda: histogram.record(12.5, {"route": "/orders/{id}", "method": "POST"}),
    }


def prometheus() -> dict[str, Callable[[], Any]]:
    import prometheus_client

    counter = prometheus_client.Counter("orders", "Orders", ["route", "method"])
    histogram = prometheus_client.Histogram("duration", "Duration", ["route", "method"])
    return {
        "prometheus-client counter": lambda: counter.labels(route="/orders/{id}", method="POST").inc(),
        "prometheus-client histogram": lambda: histogram.labels(route="/orders/{id}", method="POST").observe(12.5),
    }


def calls() -> None:
    contestants = ours() | opentelemetry() | prometheus()
    clear = contestants.pop("clear")
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(ROUNDS):
        for name, one in contestants.items():
            clear()
            began = time.process_time_ns()
            for _ in range(CALLS):
                one()
            times[name].append((time.process_time_ns() - began) / CALLS / 1000)
    medians = {name: statistics.median(values) for name, values in times.items()}
    print("| one call, caller's CPU | median µs | fastest µs | × track() |")
    print("|---|---|---|---|")
    for name, median in medians.items():
        print(f"| {name} | {median:.2f} | {min(times[name]):.2f} | {median / medians['track()']:.2f} |")
    print()
    for kind in ("counter", "histogram"):
        at_most(f"{kind}(), in track()s", medians[f"{kind}()"] / medians["track()"], 1.5)
        for peer in ("OpenTelemetry", "prometheus-client"):
            at_least(f"{peer}'s {kind}, in {kind}()s", medians[f"{peer} {kind}"] / medians[f"{kind}()"], 1)


def flushes() -> None:
    client = AnalyticsClient(service="shop", queue_size=2 * SERIES, metrics_series=SERIES)
    made: list[float] = []
    written: list[float] = []
    steps: list[float] = []
    for _ in range(FLUSHES):
        for value in range(20):
            for number in range(SERIES):
                client.metrics.histogram("duration", 1.5**value, number=number)
        client.stats()
        gc.collect()
        sending, longest = client._series.send(), 0.0
        began = cpu = time.thread_time()
        while True:
            try:
                next(sending)
            except StopIteration:
                break
            longest, cpu = max(longest, time.thread_time() - cpu), time.thread_time()
        made.append(time.thread_time() - began)
        batch = client._ledger.take(2 * SERIES, 1 << 40)
        assert len(batch) == SERIES
        assert isinstance(batch[0], MetricRecord)
        began, place = time.thread_time(), 0
        while place < len(batch):
            cpu = time.thread_time()
            place = client._ledger.write_lines(batch, place, LINES_AT_ONCE)
            longest = max(longest, time.thread_time() - cpu)
        written.append(time.thread_time() - began)
        steps.append(longest)
        client._ledger.settle(batch, duplicates=0, rejected=[])
    send, write, step = (1000 * statistics.median(values) for values in (made, written, steps))
    print(f"{SERIES:,} series: {send:.0f} ms to send, {write:.0f} ms to write as JSON; the longest step {step:.1f} ms")
    at_most("ms of CPU to send 10,000 series", send, 100)
    at_most("ms of the longest step", step, 5)


def main() -> None:
    python = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    peers = ", ".join(f"{name} {version(name)}" for name in ("opentelemetry-sdk", "prometheus-client"))
    print(f"CPython {python}, {peers}")
    print()
    calls()
    flushes()


if __name__ == "__main__":
    main()
