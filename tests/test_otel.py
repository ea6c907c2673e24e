"""OpenTelemetry's instruments as metrics: increments, last values and distributions."""

from __future__ import annotations

from random import Random

import pytest

from asgi_analytics import AnalyticsClient
from asgi_analytics.encoding.metric_record import GROWTH, MIDDLE
from asgi_analytics.errors import ConfigError

sdk = pytest.importorskip("opentelemetry.sdk.metrics")


def test_what_instruments_measure_is_written() -> None:
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    from asgi_analytics.otel import AnalyticsMetricExporter

    client = AnalyticsClient.from_url("memory://", service="shop")
    reader = PeriodicExportingMetricReader(AnalyticsMetricExporter(client), export_interval_millis=3_600_000)
    provider = sdk.MeterProvider([reader], shutdown_on_exit=False)
    meter, random = provider.get_meter("shop"), Random(3)
    counter, open_orders = meter.create_counter("orders", "{order}"), meter.create_up_down_counter("open")
    duration = meter.create_histogram("duration", "ms")
    values: list[list[float]] = []
    for _ in range(2):
        counter.add(3, {"country": "DE", "share": 0.5})
        counter.add(4, {"country": "DE", "share": 0.5})
        open_orders.add(5)
        values.append([random.lognormvariate(3, 1) for _ in range(500)])
        for value in values[-1]:
            duration.record(value)
        provider.force_flush()
    assert client.flush(10)
    rows = [event.data for event in client.sink.events]
    orders = [row for row in rows if row["name"] == "orders"]
    assert [(row["metric_type"], row["sum"], row["unit"], row["tags"]) for row in orders] == [
        ("counter", 7.0, "{order}", {"country": "DE", "share": "0.5"})
    ] * 2
    assert [(row["metric_type"], row["last"]) for row in rows if row["name"] == "open"] == [
        ("gauge", 5.0),
        ("gauge", 10.0),
    ]
    for row, measured in zip([row for row in rows if row["name"] == "duration"], values, strict=True):
        assert (row["count"], row["min"], row["max"]) == (500, min(measured), max(measured))
        assert row["sum"] == pytest.approx(sum(measured))
        binned = [number for number, count in zip(row["bins"], row["counts"], strict=True) for _ in range(count)]
        middles = [2 * GROWTH ** (number - MIDDLE) / (GROWTH + 1) for number in binned]
        assert middles == pytest.approx(sorted(measured), rel=0.03)
    provider.shutdown()
    client.close()


def test_a_wrong_client_is_refused() -> None:
    from asgi_analytics.otel import AnalyticsMetricExporter

    with pytest.raises(ConfigError, match="use an AnalyticsClient"):
        AnalyticsMetricExporter("client")  # type: ignore[arg-type]
