"""The pages, in the order of the menu: one module for each."""

from __future__ import annotations

from asgi_analytics.web.dashboard.pages import (
    api,
    database,
    errors,
    events,
    funnels,
    metrics,
    overview,
    pipeline,
    retention,
    sessions,
    user,
    web,
)

PAGES = [
    overview.PAGE,
    api.PAGE,
    errors.PAGE,
    database.PAGE,
    web.PAGE,
    sessions.PAGE,
    funnels.PAGE,
    retention.PAGE,
    events.PAGE,
    user.PAGE,
    metrics.PAGE,
    pipeline.PAGE,
]
