"""Django under ASGI, in one file: its routes, its user, and the exceptions that it answers by itself.

shows:   AnalyticsMiddleware around get_asgi_application(), templates as Django writes them, a last flush on SIGTERM
needs:   nothing: without ANALYTICS_URL the events stay in memory
install: pip install asgi-analytics django uvicorn
run:     ANALYTICS_URL=postgresql://… uvicorn --app-dir examples django_app:application
see:     curl localhost:8000/years/2026/; curl localhost:8000/broken/; then
         SELECT * FROM analytics_errors_hourly

Django has no lifespan, and uvicorn, alone or below gunicorn, dies by SIGTERM before any exit hook of Python: what was
tracked since the last write would be lost. `with_lifespan` is what it needs to be written.
"""

from __future__ import annotations

import os
from typing import Any

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

from asgi_analytics import AnalyticsClient, AnalyticsMiddleware

settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="an example", ROOT_URLCONF=__name__)
django.setup()

client = AnalyticsClient.from_url(os.environ.get("ANALYTICS_URL", "memory://"), service="almanac")


async def year(request: HttpRequest, year: int) -> HttpResponse:
    return HttpResponse(f"the year {year}")


def broken(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("the calendar is torn")


def with_lifespan(app: Any) -> Any:
    """Answer the server's lifespan, which Django does not: its end is when the last events are written."""

    async def run(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})

    return run


urlpatterns = [path("years/<int:year>/", year), path("broken/", broken)]

application = AnalyticsMiddleware(with_lifespan(get_asgi_application()), client=client)
