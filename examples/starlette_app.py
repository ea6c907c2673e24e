"""Starlette: every request by its template, mounts included, and a domain event with its user.

shows:   AnalyticsMiddleware by add_middleware, exclude, set_user, a mounted application, client.track
needs:   nothing: without ANALYTICS_URL the events stay in memory
install: pip install asgi-analytics starlette uvicorn
run:     ANALYTICS_URL=postgresql://… uvicorn --app-dir examples starlette_app:app
see:     curl localhost:8000/shops/berlin/lamps/7; then
         SELECT event_type, user_id, data FROM analytics_events ORDER BY timestamp DESC LIMIT 2
"""

from __future__ import annotations

import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route

from asgi_analytics import AnalyticsClient, AnalyticsMiddleware, Event, set_user

client = AnalyticsClient.from_url(os.environ.get("ANALYTICS_URL", "memory://"), service="lamps")


class LampSeen(Event):
    shop: str
    lamp: int
    user_id: str | None = None


async def lamp(request: Request) -> Response:
    if name := request.headers.get("x-customer"):
        set_user(name)  # from here on it is in the request's event, and in what the request tracks
    client.track(LampSeen(shop=request.path_params["shop"], lamp=request.path_params["lamp"]))
    return JSONResponse({"lamp": request.path_params["lamp"]})


async def health(request: Request) -> Response:
    return PlainTextResponse("ok")


app = Starlette(
    routes=[Route("/health", health), Mount("/shops/{shop}", routes=[Route("/lamps/{lamp:int}", lamp)])],
)
app.add_middleware(AnalyticsMiddleware, client=client, exclude=["/health"])
