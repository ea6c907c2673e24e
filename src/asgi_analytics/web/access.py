"""The access log: one line and one measurement per request, without a path, a header, a body or a token."""

from __future__ import annotations

import logging
import re
import time
from typing import TYPE_CHECKING, cast

from asgi_analytics.log import failure, log_problem

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from asgi_analytics.web.metrics import RequestMetrics

access_log = logging.getLogger("asgi_analytics.access")

_KEY = "asgi_analytics.request_log"

_PROBES = ("/health", "/ready")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
_HOST = re.compile(r"[0-9A-Za-z.:%_-]{1,100}")
"""What a client's address looks like. A server that trusts X-Forwarded-For takes any text for one."""


class RequestLog:
    """What the log says of one request: the endpoint, the status (499 without an answer), and counts by name."""

    def __init__(self) -> None:
        self.endpoint = "-"
        self.status = 499
        self.counts: dict[str, int] = {}


def request_log(request: Request, endpoint: str) -> RequestLog:
    """Name the endpoint of a request in the log, and return the rest of what the log will say."""
    log = cast("RequestLog", request.scope[_KEY])
    log.endpoint = endpoint
    return log


class AccessLog:
    """Middleware that logs and measures each request. ``failed`` is the answer if the application raises."""

    def __init__(self, app: ASGIApp, *, metrics: RequestMetrics, failed: Response) -> None:
        self.app = app
        self.metrics = metrics
        self.failed = failed
        self._problem = object()  # this application's own in the log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Watch one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        log = scope[_KEY] = RequestLog()
        start = time.perf_counter()
        is_answered = False

        async def watched(message: Message) -> None:
            nonlocal is_answered
            if message["type"] == "http.response.start":
                is_answered = True
                log.status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception as error:
            if is_answered:  # nothing is left but to break the connection
                raise
            # Not left to the server, which would log a traceback, whose last line may quote an event.
            reason = failure(error)
            log_problem((self._problem, reason), "a request failed: %s", reason, level=logging.ERROR)
            await self.failed(scope, receive, watched)
        finally:
            seconds = time.perf_counter() - start
            method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
            self.metrics.answered(method, log.endpoint, log.status, seconds)
            # A load balancer asks the probes every second.
            level = logging.DEBUG if log.endpoint in _PROBES and log.status < 400 else logging.INFO
            if access_log.isEnabledFor(level):
                client = (scope.get("client") or ("",))[0] or "-"
                counts = "".join(f" {name}={count}" for name, count in log.counts.items())
                access_log.log(
                    level,
                    "%s %s %d client=%s%s duration_ms=%.1f",
                    method,
                    log.endpoint,
                    log.status,
                    client if _HOST.fullmatch(client) else "?",
                    counts,
                    seconds * 1000,
                )
