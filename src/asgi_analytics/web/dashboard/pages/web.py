"""Web: visitors, the pages that they view, and where they come from."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from asgi_analytics.web.dashboard.asking import Page, Part
from asgi_analytics.web.dashboard.figures import duration, percent
from asgi_analytics.web.dashboard.pages.base import PageKind, number, stat
from asgi_analytics.web.dashboard.pages.overview import NO_VIEWS, visitors
from asgi_analytics.web.dashboard.panels import Cell, Column, Stats, Table, cell, shares

SOURCES = {
    "channel": "Channels",
    "referrer": "Referrers",
    "utm_source": "Sources",
    "utm_medium": "Media",
    "utm_campaign": "Campaigns",
}
DEVICES = {"device_type": "Devices", "browser": "Browsers", "os": "Systems"}
ENDS = {"landing_page": "Entry pages", "exit_page": "Exit pages"}
PLACES = {"country": "Countries"}
WAYS = timedelta(days=2)
"""How much of a range is looked at for the ways through the pages."""


def parts(page: Page) -> list[Part]:
    """Return the parts of the page."""
    return [
        Part("Visits", stats(page)),
        Part("Visitors", visitors(page)),
        Part("Pages", pages(page)),
        Part("Where visits come from", breakdown(page, "from", SOURCES), True),
        Part("Where they begin and end", breakdown(page, "ends", ENDS), True),
        Part("What they use", breakdown(page, "with", DEVICES), True),
        Part("Countries", breakdown(page, "in", PLACES), True),
        Part("Ways through the pages", ways(page)),
    ]


async def stats(page: Page) -> Stats:
    """Return the numbers at the top."""
    view = page.view
    asked = [page.ask("get_session_summary")]
    if view.compare:
        asked.append(page.ask("get_session_summary", **view.before()))
    told, *earlier = await asyncio.gather(*asked)
    found, old = told.results, earlier[0].results if earlier else None
    rows = view.url("sessions")

    def of(label: str, name: str, says: str, write: Any = None, *, good: bool | None = True, href: str = rows) -> Any:
        options = {} if write is None else {"write": write}
        before = None if old is None else getattr(old, name)
        return stat(label, getattr(found, name), says, before=before, href=href, good=good, **options)

    return Stats(
        title="Visits",
        csv=told.csv,
        stats=[
            of("Visitors", "visitors", "Distinct users, and visitors who are not known as one, of these sessions."),
            of("Sessions", "sessions", told.says),
            of("Page views", "page_views", "Of these sessions.", href=view.url("events", type="page_view")),
            of("Per session", "page_views_per_session", "Page views per session."),
            of("Duration", "median_duration_ms", "Half of the sessions are no longer than this.", duration),
            of("Bounce rate", "bounce_rate", "Sessions with one page view and nothing else, of those with a page view.",
               percent, good=False, href=view.url("sessions", is_bounce="true")),
        ],
    )  # fmt: skip


async def pages(page: Page) -> Table:
    """Return the pages by views."""
    told = await page.ask("list_pages", limit=50)
    rows = told.results
    return Table(
        title="Pages",
        says=told.says,
        csv=told.csv,
        empty=NO_VIEWS,
        columns=[
            Column("Page"),
            Column("Views", is_number=True),
            Column("Visitors", is_number=True),
            Column("Entries", is_number=True),
            Column("Exits", is_number=True),
            Column("Looked at", "on average", is_number=True),
        ],
        rows=[
            [
                cell(row.page, page.view.url("sessions", landing_page=row.page), is_code=True, share=share),
                number(row.page_views),
                number(row.visitors),
                number(row.entries, href=page.view.url("sessions", landing_page=row.page)),
                number(row.exits, href=page.view.url("sessions", exit_page=row.page)),
                number(row.avg_visible_ms, duration),
            ]
            for row, share in zip(rows, shares([row.page_views for row in rows]), strict=True)
        ],
    )


async def breakdown(page: Page, name: str, choices: dict[str, str]) -> Table:
    """Return the sessions by a value; ``name`` is the parameter of the URL that says by which."""
    by = page.view.text(name)
    if by not in choices:
        by = next(iter(choices))
    told = await page.ask("get_session_breakdown", by=by, limit=9)
    rows = told.results

    def first(value: str | None, share: float) -> Cell:
        if value is None:
            return Cell("none", None, share=share)
        if value == "other":
            return Cell("all others", value, share=share)
        return cell(value, page.view.url("sessions", **{by: value}), share=share)

    return Table(
        title=choices[by],
        is_half=True,
        says=told.says,
        csv=told.csv,
        empty=NO_VIEWS,
        tabs=[(label, page.view.here(**{name: one}), one == by) for one, label in choices.items()]
        if len(choices) > 1
        else (),
        columns=[
            Column(choices[by]),
            Column("Sessions", is_number=True),
            Column("Visitors", is_number=True),
            Column("Bounces", is_number=True),
        ],
        rows=[
            [first(row.value, share), number(row.sessions), number(row.visitors), number(row.bounce_rate, percent)]
            for row, share in zip(rows, shares([row.sessions for row in rows]), strict=True)
        ],
    )


async def ways(page: Page) -> Table:
    """Return the most frequent steps from one page or event to the next."""
    period = page.view.period
    is_long = period.end - period.start > WAYS
    # Paths are made of raw rows, and a week of them would make everyone wait for the rest of the page.
    told = await page.ask("query_paths", depth=4, limit=10, start=period.end - WAYS if is_long else None)
    links = sorted(told.results.links, key=lambda one: -one.count)[:15]
    return Table(
        title="Ways through the pages",
        says="Sessions that go from one page or event to the next, by the position in the session.",
        empty=NO_VIEWS,
        note="Of the last 2 days of the range." if is_long else "",
        columns=[Column("Step", is_number=True), Column("From"), Column("To"), Column("Sessions", is_number=True)],
        rows=[
            [
                number(int(one.source.partition(":")[0])),
                cell(one.source.partition(":")[2], is_code=True, share=share),
                cell(one.target.partition(":")[2], is_code=True),
                number(one.count),
            ]
            for one, share in zip(links, shares([one.count for one in links]), strict=True)
        ],
    )


PAGE = PageKind("web", "Web", parts)
