"""Counters, gauges, histograms and timers: `AnalyticsClient.metrics`, and the metrics that the package predefines."""

from __future__ import annotations

from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Self, TypeVar

import msgspec

from asgi_analytics.observed import Call, observed
from asgi_analytics.pipeline.series import MetricType

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from asgi_analytics.pipeline.series import SeriesTable

__all__ = ["Metric", "Metrics", "Timer", "active_users", "api_request", "database_query", "missions_created"]

F = TypeVar("F", bound="Callable[..., Any]")

MILLISECONDS = "ms"


class Metric(msgspec.Struct, frozen=True):
    """One value of a metric, to be recorded by `Metrics.record`."""

    metric_type: MetricType
    name: str
    value: float
    unit: str | None = None
    tags: dict[str, str | int | bool] = {}


class Metrics:
    """Records metrics of one client: from any thread, any loop, no loop, or a signal handler.

    A call makes no row. What was recorded of one name, type, unit and tags is one series, and becomes one row every
    ``metrics_interval`` seconds, at each flush and at the close. A row holds what was recorded since the one before.

    A name is a text of 1 to 255 characters. There are at most 20 tags, whose values are texts of at most 1,000
    characters, integers of 64 bits, or booleans. Values are numbers from -1e300 to 1e300. What is not so is dropped,
    and counted in ``stats().dropped["invalid"]``; with ``strict`` it raises `EventNotAccepted`. Otherwise nothing here
    raises or waits.
    """

    def __init__(self, series: SeriesTable) -> None:
        self._series = series
        self._calls = series.calls
        self._record = series.calls.append
        self._next_order = series.next_order

    def counter(self, /, name: str, value: float = 1, *, unit: str | None = None, **tags: str | int | bool) -> None:
        """Add to a counter. A negative value takes away from it."""
        self._record(("counter", name, value, unit, tags, 0))
        if len(self._calls) > self._series.fold_at:
            self._series.fold()

    def gauge(self, /, name: str, value: float, *, unit: str | None = None, **tags: str | int | bool) -> None:
        """Set a gauge, which keeps its last value."""
        self._record(("gauge", name, value, unit, tags, self._next_order()))
        if len(self._calls) > self._series.fold_at:
            self._series.fold()

    def histogram(self, /, name: str, value: float, *, unit: str | None = None, **tags: str | int | bool) -> None:
        """Record a value of which the distribution is wanted; percentiles are within 2 %."""
        self._record(("histogram", name, value, unit, tags, 0))
        if len(self._calls) > self._series.fold_at:
            self._series.fold()

    def timing(self, /, name: str, ms: float, **tags: str | int | bool) -> None:
        """Record a duration in milliseconds that was measured elsewhere, as a timer."""
        self._record(("timer", name, ms, MILLISECONDS, tags, 0))
        if len(self._calls) > self._series.fold_at:
            self._series.fold()

    def timer(self, /, name: str, **tags: str | int | bool) -> Timer:
        """Return what measures a block, as ``with`` or ``async with``, or each call of a function, as a decorator.

        What ends in an exception is measured too. Of a generator, the time that its consumer takes is left out.
        """
        return Timer(self, name, tags)

    def record(self, metric: Metric) -> None:
        """Record one of the predefined metrics, or a `Metric` of your own."""
        order = self._next_order() if metric.metric_type == "gauge" else 0
        self._record((metric.metric_type, metric.name, metric.value, metric.unit, dict(metric.tags), order))
        if len(self._calls) > self._series.fold_at:
            self._series.fold()


class Timer:
    """Measures blocks and calls. Blocks may be nested; tasks that run at the same time need a timer each."""

    def __init__(self, metrics: Metrics, name: str, tags: dict[str, Any]) -> None:
        self._metrics = metrics
        self._name = name
        self._tags = tags
        self._begun: list[int] = []

    def __enter__(self) -> Self:
        """Begin to measure."""
        self._begun.append(perf_counter_ns())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Record the time; what the block raised goes on."""
        self.record(perf_counter_ns() - self._begun.pop())

    async def __aenter__(self) -> Self:
        """Begin to measure."""
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Record the time; what the block raised goes on."""
        self.__exit__(kind, error, trace)

    def __call__(self, function: F) -> F:
        """Measure each call of a function: a plain or an async one, or a generator of either kind."""
        return observed("a duration", lambda *_: _TimedCall(self))(function)

    def record(self, nanoseconds: int) -> None:
        """Record a time."""
        self._metrics.record(Metric("timer", self._name, nanoseconds / 1e6, MILLISECONDS, self._tags))


class _TimedCall(Call):
    def __init__(self, timer: Timer) -> None:
        self._timer = timer
        self._spent = self._entered = 0

    def entered(self) -> None:
        self._entered = perf_counter_ns()

    def left(self) -> None:
        self._spent += perf_counter_ns() - self._entered

    def returned(self, result: Any) -> None:
        self._timer.record(self._spent)

    def raised(self, error: BaseException) -> None:
        self._timer.record(self._spent)


def api_request(endpoint: str, duration_ms: float, status: int) -> Metric:
    """Return the duration of an API request, tagged by endpoint and status."""
    return Metric("timer", "api_request", duration_ms, MILLISECONDS, {"endpoint": endpoint, "status": status})


def active_users(count: int) -> Metric:
    """Return how many users are active."""
    return Metric("gauge", "active_users", count)


def missions_created() -> Metric:
    """Return that a mission was created."""
    return Metric("counter", "missions_created", 1)


def database_query(query_type: str, duration_ms: float) -> Metric:
    """Return the duration of a database query, tagged by its type."""
    return Metric("timer", "database_query", duration_ms, MILLISECONDS, {"query_type": query_type})
