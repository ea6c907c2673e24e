"""No framework: an application of plain ASGI says itself what its endpoints are called, and who asks.

shows:   AnalyticsMiddleware with endpoint, user_id and session_id as functions of the scope
needs:   nothing: without ANALYTICS_URL the events stay in memory
install: pip install asgi-analytics uvicorn
run:     ANALYTICS_URL=postgresql://… uvicorn --app-dir examples bare_asgi_app:app
see:     curl localhost:8000/echo/hello; then
         SELECT user_id, session_id, data FROM analytics_events ORDER BY timestamp DESC LIMIT 1
"""

from __future__ import annotations

import os
from typing import Any

from asgi_analytics import AnalyticsClient, AnalyticsMiddleware

client = AnalyticsClient.from_url(os.environ.get("ANALYTICS_URL", "memory://"), service="echo")


async def echo(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    found = scope["path"].startswith("/echo/")
    await send({"type": "http.response.start", "status": 200 if found else 404, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].removeprefix("/echo/").encode() if found else b""})


def endpoint(scope: Any) -> str | None:
    """Name the route, never the path: what is said here is grouped by."""
    return "/echo/{words}" if scope["path"].startswith("/echo/") else None


def header(name: bytes) -> Any:
    def read(scope: Any) -> str | None:
        return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), None)

    return read


app = AnalyticsMiddleware(
    echo, client=client, endpoint=endpoint, user_id=header(b"x-customer"), session_id=header(b"x-session")
)
