"""Events: the rows themselves, filtered, newest first."""

from __future__ import annotations

import re
from collections import Counter

from asgi_analytics.web.dashboard.asking import Page, Part
from asgi_analytics.web.dashboard.pages.base import PageKind, event_table, number
from asgi_analytics.web.dashboard.panels import Column, Form, Table, cell, shares

FILTERS = ("user_id", "session_id", "endpoint", "fingerprint", "trace_id", "entity_type", "entity_id")
NO_EVENTS = "No event matches. Choose a longer range, or fewer filters."


def parts(page: Page) -> list[Part]:
    """Return the parts of the page."""
    return [Part("Filters", form(page)), Part("Events", rows(page)), Part("By type", types(page))]


def _types(page: Page) -> list[str]:
    return [one for text in page.view.texts("type") for one in re.split(r"[\s,]+", text) if one]


async def form(page: Page) -> Form:
    """Return the filters."""
    view = page.view
    values = {"type": ", ".join(_types(page)), "category": view.text("category")}
    values |= {name: view.text(name) for name in FILTERS}
    return Form(title="Filters", template="events.html", values=values)


async def rows(page: Page) -> Table:
    """Return the events that match the filters of the URL."""
    view = page.view
    filters = {name: view.text(name) or None for name in FILTERS}
    told = await page.ask(
        "query_events",
        event_types=_types(page) or None,
        event_categories=[view.text("category")] if view.text("category") else None,
        limit=50,
        cursor=view.text("cursor") or None,
        **filters,
    )
    return event_table(page, told, "Events", empty=NO_EVENTS)


async def types(page: Page) -> Table:
    """Return how many events of each type there are."""
    told = await page.ask("query_aggregations", aggregation_type="daily")
    counts: Counter[tuple[str, str]] = Counter()
    for row in told.results.aggregations:
        counts[row.event_type, row.event_category] += row.metrics.count
    found = counts.most_common(100)
    return Table(
        title="By type",
        says="Events of the range by type, whatever the filters above are.",
        csv=told.csv,
        empty="No event in this range. Add AnalyticsMiddleware to the application, or call client.track(…).",
        columns=[Column("Type"), Column("Category"), Column("Events", is_number=True)],
        rows=[
            [
                cell(name, page.view.url("events", type=name), is_code=True, share=share),
                cell(category, page.view.url("events", category=category)),
                number(events),
            ]
            for ((name, category), events), share in zip(found, shares([n for _, n in found]), strict=True)
        ],
    )


PAGE = PageKind("events", "Events", parts)
