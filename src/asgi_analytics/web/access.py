"""What the service tells of itself: a line for each request, and OpenTelemetry metrics; no payload and no token."""

from __future__ import annotations

import logging
import re
import time
from collections import Counter
from typing import TYPE_CHECKING

from opentelemetry import metrics

from asgi_analytics.log import failure, log_problem
from asgi_analytics.web import problem

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

access_log = logging.getLogger("asgi_analytics.access")

KEY = "asgi_analytics.ingestion"
"""Where in the scope the endpoint finds the `Seen` of its request."""


class Seen:
    """What became of one request."""

    def __init__(self) -> None:
        self.endpoint = "-"
        self.status = 499
        self.bytes = self.events = self.stored = self.duplicates = 0
        self.rejected: Counter[str] = Counter()


class Figures:
    """The service's metrics, ``analytics.ingestion.*``; nothing without an OpenTelemetry SDK."""

    def __init__(self) -> None:
        meter = metrics.get_meter("asgi_analytics")
        self._requests = meter.create_histogram(
            "analytics.ingestion.request.duration", "s", "Time from a request's headers to its answer"
        )
        self._bytes = meter.create_counter("analytics.ingestion.bytes", "By", "Unpacked bytes of the batches")
        self._events = meter.create_counter(
            "analytics.ingestion.events", "{event}", "Events by what became of them: stored, duplicate, rejected"
        )
        self._writes = meter.create_histogram("analytics.ingestion.write.duration", "s", "Time of a database write")
        self._written = meter.create_histogram("analytics.ingestion.write.events", "{event}", "Events in one write")

    def answered(self, method: str, seen: Seen, seconds: float) -> None:
        """Count a request."""
        attributes: dict[str, str | int] = {
            "http.route": seen.endpoint,
            "http.request.method": method,
            "http.response.status_code": seen.status,
        }
        self._requests.record(seconds, attributes)
        if seen.bytes:
            self._bytes.add(seen.bytes)
        if seen.stored:
            self._events.add(seen.stored, {"result": "stored"})
        if seen.duplicates:
            self._events.add(seen.duplicates, {"result": "duplicate"})
        for reason, number in seen.rejected.items():
            self._events.add(number, {"result": "rejected", "reason": reason})

    def wrote(self, events: int, seconds: float, error: str | None) -> None:
        """Count a write to the database."""
        self._writes.record(seconds, {"error.type": error} if error else {})
        self._written.record(events)


class AccessLog:
    """Logs and counts each request. Paths, queries, headers and bodies are the caller's: none of them is repeated."""

    def __init__(self, app: ASGIApp, figures: Figures) -> None:
        self.app = app
        self.figures = figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Watch one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        seen = scope[KEY] = Seen()
        start = time.perf_counter()
        is_answered = False

        async def watched(message: Message) -> None:
            nonlocal is_answered
            if message["type"] == "http.response.start":
                is_answered = True
                seen.status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception as error:
            if is_answered:  # nothing is left but to break the connection
                raise
            # Not left to the server, which would log a traceback, whose last line may quote an event.
            said = failure(error)
            log_problem((id(self), said), "a request failed: %s", said, level=logging.ERROR)
            await problem.failed()(scope, receive, watched)
        finally:
            seconds = time.perf_counter() - start
            method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
            self.figures.answered(method, seen, seconds)
            # A balancer asks for these every second.
            level = logging.DEBUG if seen.endpoint in _QUIET and seen.status < 400 else logging.INFO
            if access_log.isEnabledFor(level):
                client = (scope.get("client") or ("",))[0] or "-"
                access_log.log(
                    level,
                    "%s %s %d client=%s bytes=%d events=%d stored=%d duplicates=%d rejected=%d duration_ms=%.1f",
                    method,
                    seen.endpoint,
                    seen.status,
                    client if _HOST.fullmatch(client) else "?",
                    seen.bytes,
                    seen.events,
                    seen.stored,
                    seen.duplicates,
                    seen.rejected.total(),
                    seconds * 1000,
                )


_HOST = re.compile(r"[0-9A-Za-z.:%_-]{1,100}")
"""What can be a client's address. A server that believes X-Forwarded-For takes any text for one: figures of its own."""

_QUIET = ("/health", "/ready")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
