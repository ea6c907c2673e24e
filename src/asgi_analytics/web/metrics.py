"""The OpenTelemetry metrics that every service has; they go nowhere unless the process has set up an SDK."""

from __future__ import annotations

from opentelemetry import metrics


class RequestMetrics:
    """The duration of each request, as ``analytics.<service>.request.duration``."""

    def __init__(self, service: str) -> None:
        self._requests = metrics.get_meter("asgi_analytics").create_histogram(
            f"analytics.{service}.request.duration", "s", "Time from a request's headers to its answer"
        )

    def answered(self, method: str, endpoint: str, status: int, seconds: float) -> None:
        """Count a request."""
        attributes: dict[str, str | int] = {
            "http.route": endpoint,
            "http.request.method": method,
            "http.response.status_code": status,
        }
        self._requests.record(seconds, attributes)
