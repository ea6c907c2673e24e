"""Quart: the rule of a blueprint as the endpoint, and a background task that fails after the answer.

shows:   AnalyticsMiddleware around asgi_app, set_session, an error that is none of the request's
needs:   nothing: without ANALYTICS_URL the events stay in memory
install: pip install asgi-analytics quart hypercorn
run:     ANALYTICS_URL=postgresql://… hypercorn examples/quart_app:app
see:     curl localhost:8000/mail/ann; then
         SELECT event_type, data FROM analytics_events ORDER BY timestamp DESC LIMIT 2
"""

from __future__ import annotations

import os

from quart import Blueprint, Quart, current_app, request

from asgi_analytics import AnalyticsClient, AnalyticsMiddleware, set_session

client = AnalyticsClient.from_url(os.environ.get("ANALYTICS_URL", "memory://"), service="mail")
mail = Blueprint("mail", __name__, url_prefix="/mail")


@mail.get("/<name>")
async def send(name: str) -> str:
    set_session(request.cookies.get("session"))
    current_app.add_background_task(deliver, name)
    return f"mail to {name} is on its way"


async def deliver(name: str) -> None:
    raise ConnectionRefusedError("the post office is closed")


app = Quart(__name__)
app.register_blueprint(mail)
app.asgi_app = AnalyticsMiddleware(app.asgi_app, client=client)  # type: ignore[method-assign]  # as Quart's docs say
