"""The middleware around bare ASGI applications: one event a request, whatever happens to it."""

from __future__ import annotations

from asgi_analytics import AnalyticsMiddleware
from asgi_analytics.testing import CapturedEvents
from tests.instrumentation.asgi_app import get, hello


async def test_a_request_is_one_event(analytics: CapturedEvents) -> None:
    sent = await get(AnalyticsMiddleware(hello, client=analytics.client), "/")

    [event] = analytics.of("api_request")
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert event.data["method"] == "GET"
    assert event.data["status_code"] == 200
    assert event.data["outcome"] == "ok"
    assert event.data["response_bytes"] == 5
    assert 0 <= event.data["ttfb_ms"] <= event.data["duration_ms"]
