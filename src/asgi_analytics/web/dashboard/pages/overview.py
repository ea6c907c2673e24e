"""Overview: how the application is, at a glance."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from asgi_analytics.web.dashboard.asking import Page, Part
from asgi_analytics.web.dashboard.figures import percent
from asgi_analytics.web.dashboard.pages.base import (
    PageKind,
    buckets,
    endpoint_cell,
    links,
    marks,
    number,
    stat,
)
from asgi_analytics.web.dashboard.panels import Chart, Column, Line, Stats, Table, cell, shares

NO_REQUESTS = "Add AnalyticsMiddleware to the application, and its requests appear here."
NO_VIEWS = "Count page views with AnalyticsMiddleware(…, page_views=PageViews()), and the pages appear here."


def parts(page: Page) -> list[Part]:
    """Return the parts of the page."""
    return [
        Part("At a glance", stats(page)),
        Part("Requests", requests(page)),
        Part("Visitors", visitors(page)),
        Part("Busiest endpoints", endpoints(page), True),
        Part("Most viewed pages", pages(page), True),
        Part("Most frequent errors", errors(page), True),
        Part("Most used features", features(page), True),
    ]


async def stats(page: Page) -> Stats:
    """Return the numbers at the top."""
    view = page.view
    asked = [
        page.ask("get_endpoint_latency", bucket="all"),
        page.ask("get_session_summary"),
        page.ask(
            "query_trends", series=["api_request", "application_error"], interval=view.step, compare=view.compare
        ),
        page.ask("get_overview_stats"),
    ]  # fmt: skip
    if view.compare:
        asked += [
            page.ask("get_endpoint_latency", bucket="all", **view.before()),
            page.ask("get_session_summary", **view.before()),
        ]
    latency, sessions, trends, overview, *earlier = await asyncio.gather(*asked)
    requests, rate = requests_of(latency.results)
    requests_before = rate_before = old = None
    errors, errors_before = trends.results.series[1].count, None
    if earlier:
        latency_before, sessions_before = earlier
        requests_before, rate_before = requests_of(latency_before.results)
        old, errors_before = sessions_before.results, trends.results.series[3].count
    found, people = sessions.results, overview.results
    web, failed = view.url("web"), "Requests answered with 500 or above, of all."
    return Stats(
        title="At a glance",
        stats=[
            stat("Requests", requests, latency.says, before=requests_before, href=view.url("api")),
            stat("Failed requests", rate, failed, write=percent, before=rate_before, href=view.url("api"), good=False),
            stat("Errors", errors, "Events of the type application_error.", before=errors_before,
                 href=view.url("errors"), good=False),
            stat("Visitors", found.visitors, sessions.says, before=old and old.visitors, href=web, good=True),
            stat("Page views", found.page_views, sessions.says, before=old and old.page_views, href=web, good=True),
            stat("Bounce rate", found.bounce_rate, "Of the sessions that have a page view.", write=percent,
                 before=old and old.bounce_rate, href=view.url("sessions", is_bounce="true"), good=False),
            stat("Active today", people.active_users_today, overview.says, href=view.url("events", range="today")),
            stat("Active, 7 days", people.active_users_week, overview.says, href=view.url("retention", range="7d")),
            stat("Active, 30 days", people.active_users_month, overview.says, href=view.url("retention", range="30d")),
        ],
    )  # fmt: skip


def requests_of(rows: Sequence[Any]) -> tuple[int, float | None]:
    """Return how many requests there were, and which part of them failed."""
    requests = sum(row.request_count for row in rows)
    return requests, sum(row.error_5xx_count for row in rows) / requests if requests else None


async def requests(page: Page) -> Chart:
    """Return how many requests there were over time, beside those of the period before."""
    told, found = await asyncio.gather(
        page.ask(
            "query_trends", series=["api_request", "application_error"], interval=page.view.step,
            compare=page.view.compare,
        ),
        marks(page),
    )  # fmt: skip
    labels = buckets(page)
    series = told.results.series
    lines = [
        Line("Requests", series[0].data[: len(labels)], "requests", "bar"),
        Line("Errors", series[1].data[: len(labels)], "errors", "bar"),
    ]
    if page.view.compare:
        lines.append(Line("Requests, period before", series[2].data[: len(labels)], "requests", "thin"))
    return Chart(
        title="Requests",
        says="Requests to the application, and application errors, in each " + page.view.step + ".",
        csv=told.csv,
        empty="" if series[0].count else NO_REQUESTS,
        unit="requests",
        labels=labels,
        lines=lines,
        links=links(page, "api", labels),
        marks=found,
        step=page.view.step,
        zone_name=page.view.zone_name,
    )


async def visitors(page: Page) -> Chart:
    """Return how many people and sessions there were over time."""
    asked = [page.ask("get_session_series", bucket=page.view.step)]
    if page.view.compare:
        asked.append(page.ask("get_session_series", bucket=page.view.step, **page.view.before()))
    told, *earlier = await asyncio.gather(*asked)
    labels = buckets(page)
    rows = told.results[: len(labels)]
    lines = [
        Line("Visitors", [row.visitors for row in rows], "visitors"),
        Line("Sessions", [row.active_sessions for row in rows], "sessions"),
    ]
    if earlier:
        before = [row.visitors for row in earlier[0].results[: len(labels)]]
        lines.append(Line("Visitors, period before", before, "visitors", "thin"))
    return Chart(
        title="Visitors",
        says=told.says,
        csv=told.csv,
        empty="" if any(row.active_sessions for row in rows) else NO_VIEWS,
        unit="people and sessions",
        labels=labels,
        lines=lines,
        links=links(page, "web", labels),
        step=page.view.step,
        zone_name=page.view.zone_name,
    )


async def endpoints(page: Page) -> Table:
    """Return the endpoints with the most requests."""
    told = await page.ask("get_endpoint_latency", bucket="all")
    rows = sorted(told.results, key=lambda row: -row.request_count)[:8]
    return Table(
        title="Busiest endpoints",
        is_half=True,
        says=told.says,
        csv=told.csv,
        empty=NO_REQUESTS,
        columns=[Column("Endpoint"), Column("Requests", is_number=True), Column("Failed", is_number=True)],
        rows=[
            [
                endpoint_cell(page, row.endpoint, row.method, share=share),
                number(row.request_count),
                number(row.error_rate, percent),
            ]
            for row, share in zip(rows, shares([row.request_count for row in rows]), strict=True)
        ],
        next=page.view.url("api"),
    )


async def pages(page: Page) -> Table:
    """Return the pages with the most views."""
    told = await page.ask("list_pages", limit=8)
    rows = told.results
    return Table(
        title="Most viewed pages",
        is_half=True,
        says=told.says,
        csv=told.csv,
        empty=NO_VIEWS,
        columns=[Column("Page"), Column("Views", is_number=True), Column("Visitors", is_number=True)],
        rows=[
            [
                cell(row.page, page.view.url("sessions", landing_page=row.page), is_code=True, share=share),
                number(row.page_views),
                number(row.visitors),
            ]
            for row, share in zip(rows, shares([row.page_views for row in rows]), strict=True)
        ],
        next=page.view.url("web"),
    )


async def errors(page: Page) -> Table:
    """Return the groups of errors with the most errors."""
    told = await page.ask("list_error_groups", limit=8)
    rows = told.results
    return Table(
        title="Most frequent errors",
        is_half=True,
        says=told.says,
        csv=told.csv,
        empty="No application error in this range. Errors are captured by AnalyticsMiddleware.",
        columns=[Column("Error"), Column("Errors", is_number=True), Column("Users", is_number=True)],
        rows=[
            [
                cell(
                    row.error_type,
                    page.view.url("errors", fingerprint=row.fingerprint) if row.fingerprint else None,
                    share=share,
                    more=(row.sample_error_message or "")[:120],
                ),
                number(row.error_count),
                number(row.affected_users),
            ]
            for row, share in zip(rows, shares([row.error_count for row in rows]), strict=True)
        ],
        next=page.view.url("errors"),
    )


async def features(page: Page) -> Table:
    """Return the features with the most uses."""
    told = await page.ask("top_features", limit=8)
    rows = told.results
    return Table(
        title="Most used features",
        is_half=True,
        says=told.says,
        csv=told.csv,
        empty="Track what people do with client.track(…), and each kind of event appears here.",
        columns=[
            Column("Feature"),
            Column("Uses", is_number=True),
            Column("Users", is_number=True),
            Column("Succeeded", is_number=True),
        ],
        rows=[
            [
                cell(row.feature_name, page.view.url("events", type=row.feature_name), is_code=True, share=share),
                number(row.usage_count),
                number(row.unique_users),
                number(row.success_rate, percent),
            ]
            for row, share in zip(rows, shares([row.usage_count for row in rows]), strict=True)
        ],
        next=page.view.url("events"),
    )


PAGE = PageKind("", "Overview", parts)
