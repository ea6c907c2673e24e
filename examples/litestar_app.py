"""Litestar: its own middleware list is enough, for 404s and for the exceptions that Litestar answers by itself.

shows:   DefineMiddleware(AnalyticsMiddleware, …), a WebSocket, an exception that nobody handles
needs:   nothing: without ANALYTICS_URL the events stay in memory
install: pip install asgi-analytics litestar uvicorn
run:     ANALYTICS_URL=postgresql://… uvicorn --app-dir examples litestar_app:app
see:     curl localhost:8000/rooms/7; curl localhost:8000/broken; curl localhost:8000/nowhere; then
         SELECT * FROM analytics_api_latency_hourly
"""

from __future__ import annotations

import os
from typing import Any

from litestar import Litestar, Request, WebSocket, get, websocket
from litestar.middleware import DefineMiddleware

from asgi_analytics import AnalyticsClient, AnalyticsMiddleware

client = AnalyticsClient.from_url(os.environ.get("ANALYTICS_URL", "memory://"), service="rooms")


@get("/rooms/{room:int}")
async def room(request: Request[Any, Any, Any]) -> dict[str, int]:
    return {"room": request.path_params["room"]}


@get("/broken")
async def broken() -> None:
    raise RuntimeError("the roof leaks")


@websocket("/rooms/{room:int}/chat")
async def chat(socket: WebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    while True:
        await socket.send_text(await socket.receive_text())


app = Litestar(
    [room, broken, chat],
    middleware=[DefineMiddleware(AnalyticsMiddleware, client=client)],
)
