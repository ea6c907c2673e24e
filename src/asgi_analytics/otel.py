"""OpenTelemetry's instruments, written as metrics: an exporter for the SDK's `PeriodicExportingMetricReader`.

Needs the extra ``otel``.
"""

from __future__ import annotations

from collections import Counter as BinCounter
from typing import TYPE_CHECKING, Any

from asgi_analytics.client import checked_client
from asgi_analytics.encoding.metric_record import Sums, bin_of
from asgi_analytics.errors import MissingExtra
from asgi_analytics.log import failure, log_problem

try:
    from opentelemetry.sdk.metrics import (
        Counter,
        Histogram,
        ObservableCounter,
        ObservableGauge,
        ObservableUpDownCounter,
        UpDownCounter,
    )
    from opentelemetry.sdk.metrics.export import (
        AggregationTemporality,
        ExponentialHistogramDataPoint,
        HistogramDataPoint,
        MetricExporter,
        MetricExportResult,
        MetricsData,
        NumberDataPoint,
        Sum,
    )
    from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation
except ImportError:
    raise MissingExtra("opentelemetry-sdk", "otel") from None

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asgi_analytics.client import AnalyticsClient
    from asgi_analytics.pipeline.series import MetricType

BUCKETS = 640
"""So many buckets of exponential histograms are kept: 4 orders of magnitude in steps of 1.5 %."""


class AnalyticsMetricExporter(MetricExporter):
    """Writes what the instruments of an OpenTelemetry SDK measured, through a client.

    Give it to a `PeriodicExportingMetricReader`. Counters are written as their increments since the last export, and
    as counters; gauges and what goes up and down as gauges; histograms as histograms, for which the SDK keeps
    exponential buckets. Attributes become tags; those that are no str, int or bool are written as text. The bound of
    series and the rules for names and tags are those of `Metrics`. Raises `ConfigError` for a wrong client.
    """

    def __init__(self, client: AnalyticsClient) -> None:
        self._client = checked_client(client)
        delta, cumulative = AggregationTemporality.DELTA, AggregationTemporality.CUMULATIVE
        super().__init__(
            preferred_temporality={
                Counter: delta,
                ObservableCounter: delta,
                Histogram: delta,
                UpDownCounter: cumulative,
                ObservableUpDownCounter: cumulative,
                ObservableGauge: cumulative,
            },
            preferred_aggregation={Histogram: ExponentialBucketHistogramAggregation(max_size=BUCKETS)},
        )

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        """Record the points of one collection; what cannot be written is dropped and counted by the client."""
        try:
            for scoped in (scope for resource in metrics_data.resource_metrics for scope in resource.scope_metrics):
                for metric in scoped.metrics:
                    for kind, attributes, sums in _points(metric.data):
                        self._client._series.add(kind, metric.name, metric.unit or None, _tags(attributes), sums)
        except Exception as error:
            log_problem(__name__, "metrics of OpenTelemetry were not written: %s", failure(error))
            return MetricExportResult.FAILURE
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Flush the client, within the time."""
        return self._client.flush(timeout_millis / 1000)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Do nothing: the client stays open for the events of the application."""


def _tags(attributes: Any) -> dict[str, Any]:
    return {
        str(name): value if isinstance(value, str | int) else str(value) for name, value in (attributes or {}).items()
    }


def _points(data: Any) -> Iterator[tuple[MetricType, Any, Sums]]:
    """Return the type, the attributes and the sums of each point that has something to say."""
    is_delta = getattr(data, "aggregation_temporality", None) == AggregationTemporality.DELTA
    for point in data.data_points:
        if isinstance(point, NumberDataPoint):
            value = float(point.value)
            if isinstance(data, Sum) and is_delta:
                if value:
                    yield "counter", point.attributes, Sums(1, value, value, value, value, None)
            else:
                bins = BinCounter([bin_of(value)]) if abs(value) <= 1e300 else BinCounter[int]()
                yield "gauge", point.attributes, Sums(1, value, value, value, value, bins)
        elif point.count and is_delta:
            bins = _bins(point)
            mean = point.sum / point.count
            least = point.min if abs(point.min) <= 1e300 else mean
            most = point.max if abs(point.max) <= 1e300 else mean
            yield "histogram", point.attributes, Sums(point.count, point.sum, least, most, most, bins)


def _bins(point: HistogramDataPoint | ExponentialHistogramDataPoint) -> BinCounter[int]:
    """Return the bins of a histogram's buckets: each bucket counts as its middle, but within the least and greatest."""
    bins: BinCounter[int] = BinCounter()

    def add(value: float, count: int) -> None:
        if count:
            bins[bin_of(max(point.min, min(point.max, value)))] += count

    if isinstance(point, ExponentialHistogramDataPoint):
        base = 2.0 ** (2.0**-point.scale)
        add(0.0, point.zero_count)
        for sign, buckets in ((1, point.positive), (-1, point.negative)):
            for place, count in enumerate(buckets.bucket_counts, buckets.offset):
                if count:
                    add(sign * 2 * base ** (place + 1) / (base + 1), count)
        return bins
    bounds = [point.min, *point.explicit_bounds, point.max]
    for place, count in enumerate(point.bucket_counts):
        low, high = max(bounds[place], point.min), min(bounds[place + 1], point.max)
        add((low + high) / 2, count)
    return bins
