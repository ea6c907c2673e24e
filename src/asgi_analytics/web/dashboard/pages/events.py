"""Events: the rows themselves, filtered, newest first."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from datetime import datetime

from asgi_analytics.web.dashboard.asking import Page, Part, Told
from asgi_analytics.web.dashboard.pages.base import PageKind, buckets, event_table, links, number, summed
from asgi_analytics.web.dashboard.panels import Chart, Column, Form, Line, Table, cell, shares

FILTERS = ("user_id", "session_id", "endpoint", "fingerprint", "trace_id", "entity_type", "entity_id")
STEPS = {"hour": "hourly", "day": "daily", "week": "weekly"}
NO_EVENTS = "No event matches. Choose a longer range, or fewer filters."


def parts(page: Page) -> list[Part]:
    """Return the parts of the page."""
    shown = [Part("Filters", form(page)), Part("Events", rows(page))]
    if not any(page.view.text(name) for name in FILTERS):  # which aggregates do not know
        shown.insert(1, Part("Over time", over_time(page)))
    return [*shown, Part("By type", types(page))]


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


async def _aggregations(page: Page, **period: datetime) -> Told:
    """Return the events by type and hour, day or week."""
    return await page.ask("query_aggregations", aggregation_type=STEPS[page.view.step], **period)


async def over_time(page: Page) -> Chart:
    """Return the events of the chosen types over time, beside those of the period before."""
    chosen, category = _types(page), page.view.text("category")

    def counts(told: Told, *, before: bool = False) -> list[float]:
        pairs = [
            (row.time_bucket, row.metrics.count)
            for row in told.results.aggregations
            if (not chosen or row.event_type in chosen) and category in ("", row.event_category)
        ]
        return summed(page, pairs, before=before)

    asked = [_aggregations(page)]
    if page.view.compare:
        asked.append(_aggregations(page, **page.view.before()))
    told, *earlier = await asyncio.gather(*asked)
    lines = [Line("Events", counts(told), "events", "bar")]
    if earlier:
        lines.append(Line("Events, period before", counts(earlier[0], before=True), "events", "thin"))
    labels = buckets(page)
    return Chart(
        title="Over time",
        says=told.says,
        csv=page.view.csv_of("Over time"),
        empty="" if any(lines[0].values) else NO_EVENTS,
        unit="events",
        labels=labels,
        lines=lines,
        links=links(page, "events", labels, type=chosen, category=category),
        step=page.view.step,
        zone_name=page.view.zone_name,
    )


async def types(page: Page) -> Table:
    """Return how many events of each type there are."""
    told = await _aggregations(page)
    counts: Counter[tuple[str, str]] = Counter()
    for row in told.results.aggregations:
        counts[row.event_type, row.event_category] += row.metrics.count
    found = counts.most_common(100)
    return Table(
        title="By type",
        says="Events of the range by type, whatever the filters above are.",
        csv=page.view.csv_of("By type"),
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
