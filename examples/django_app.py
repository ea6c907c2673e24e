"""Django under ASGI, in one file: its routes, its user, and the exceptions that it answers by itself.

shows:   AnalyticsMiddleware around get_asgi_application(), templates as Django writes them
needs:   nothing: without ANALYTICS_URL the events stay in memory
install: pip install asgi-analytics django uvicorn
run:     ANALYTICS_URL=postgresql://… uvicorn django_app:application
see:     curl localhost:8000/years/2026/; curl localhost:8000/broken/; then
         SELECT * FROM analytics_errors_hourly

Django has no lifespan. Under uvicorn what was tracked in the last flush_interval before a SIGTERM is written only
where something else ends the process in order (gunicorn does), or with flush_interval=0.
"""

from __future__ import annotations

import os

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


urlpatterns = [path("years/<int:year>/", year), path("broken/", broken)]

application = AnalyticsMiddleware(get_asgi_application(), client=client)
