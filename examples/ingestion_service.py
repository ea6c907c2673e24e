"""Events by HTTP: an application that stores them, and one that must not reach the database and sends them.

shows:   create_ingestion_app mounted beside a route of one's own, a token, a client whose URL is http://
needs:   PostgreSQL or TimescaleDB with the analytics tables (analytics-migrate all), DATABASE_URL
install: pip install 'asgi-analytics[server,http]'
run:     uvicorn --app-dir examples --factory ingestion_service:make_app --port 8094      and, in another terminal,
         python examples/ingestion_service.py
see:     the figures that the second command prints; SELECT * FROM analytics_events
"""

from __future__ import annotations

import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from asgi_analytics import AnalyticsClient, Event
from asgi_analytics.web.ingestion import create_ingestion_app

TOKEN = os.environ.get("ANALYTICS_TOKEN", "development")
URL = os.environ.get("ANALYTICS_URL", "http://127.0.0.1:8094/analytics")


class ParcelPacked(Event):
    parcel_id: int
    grams: float


async def home(request: Request) -> Response:
    return PlainTextResponse("Send events to /analytics/events/batch\n")


def make_app() -> Starlette:
    # Nothing is connected here: that happens at the first batch.
    ingestion = create_ingestion_app(database_url=os.environ["DATABASE_URL"], tokens=[TOKEN])
    return Starlette(routes=[Route("/", home), Mount("/analytics", app=ingestion)])


def main() -> None:
    client = AnalyticsClient.from_url(URL, service="warehouse", token=TOKEN)
    for parcel in range(100):
        client.track(ParcelPacked(parcel_id=parcel, grams=250.0 + parcel))
    client.close()  # waits until the service has answered for each event, at most close_timeout seconds
    stats = client.stats()
    print(f"stored {stats.stored}, duplicates {stats.duplicates}, rejected {dict(stats.rejected)}")
    if stats.abandoned:
        print(f"{stats.abandoned} events were left: {stats.last_error}")


if __name__ == "__main__":
    main()
