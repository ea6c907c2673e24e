"""The service's own metrics, read by an OpenTelemetry SDK."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from asgi_analytics.web.ingestion import create_ingestion_app
from tests.web.ingestion.service import TellingSink, client, event


async def test_requests_events_and_writes_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = InMemoryMetricReader()
    monkeypatch.setattr(metrics, "get_meter", MeterProvider([reader]).get_meter)
    async with client(create_ingestion_app(sink=TellingSink())) as http:
        one = event()
        await http.post("/events/batch", json=[one, one, 5])
        await http.request("BREW", "/somewhere/secret")
    points: dict[str, dict[tuple[Any, ...], Any]] = {}
    data = reader.get_metrics_data()
    assert data is not None
    for metric in data.resource_metrics[0].scope_metrics[0].metrics:
        for point in metric.data.data_points:
            value = point.count if hasattr(point, "count") else point.value
            points.setdefault(metric.name, {})[tuple(sorted((point.attributes or {}).items()))] = value
    assert points["analytics.ingestion.events"] == {
        (("result", "stored"),): 1,
        (("result", "duplicate"),): 1,
        (("reason", "not an object"), ("result", "rejected")): 1,
    }
    assert points["analytics.ingestion.request.duration"] == {
        (("http.request.method", "POST"), ("http.response.status_code", 200), ("http.route", "/events/batch")): 1,
        (("http.request.method", "_OTHER"), ("http.response.status_code", 404), ("http.route", "-")): 1,
    }
    assert points["analytics.ingestion.write.duration"] == {(): 1}
    assert points["analytics.ingestion.write.events"] == {(): 1}
    [unpacked] = points["analytics.ingestion.bytes"].values()
    assert unpacked > 500
