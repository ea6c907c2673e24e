"""Errors: the groups of application errors; and one of them with its stack, users and occurrences."""

from __future__ import annotations

import asyncio

from asgi_analytics.web.dashboard.asking import Page, Part
from asgi_analytics.web.dashboard.pages.base import (
    PageKind,
    buckets,
    endpoint_cell,
    links,
    marks,
    number,
    stat,
    time,
    user_cell,
)
from asgi_analytics.web.dashboard.panels import Chart, Code, Column, Line, Panel, Stats, Table, cell

NO_ERRORS = "No application error in this range. AnalyticsMiddleware captures those that requests end with."


def parts(page: Page) -> list[Part]:
    """Return the parts of the page: of all groups, or of the one that the URL names."""
    if fingerprint := page.view.text("fingerprint"):
        return [Part("This error", group(page, fingerprint))]
    return [Part("Errors", chart(page)), Part("Groups", groups(page))]


async def chart(page: Page) -> Chart:
    """Return the errors over time."""
    told, found = await asyncio.gather(
        page.ask(
            "query_trends", series=["application_error"], interval=page.view.step, compare=page.view.compare
        ),
        marks(page),
    )  # fmt: skip
    labels = buckets(page)
    series = told.results.series
    lines = [Line("Errors", series[0].data[: len(labels)], "errors", "bar")]
    if page.view.compare:
        lines.append(Line("Errors, period before", series[1].data[: len(labels)], "errors", "thin"))
    return Chart(
        title="Errors",
        says="Application errors in each " + page.view.step + ".",
        csv=told.csv,
        empty="" if series[0].count else NO_ERRORS,
        unit="errors",
        labels=labels,
        lines=lines,
        links=links(page, "events", labels, type="application_error"),
        marks=found,
        step=page.view.step,
        zone_name=page.view.zone_name,
    )


async def groups(page: Page, endpoint: str | None = None) -> Table:
    """Return the groups of errors, or those of an endpoint."""
    told = await page.ask("list_error_groups", limit=100 if endpoint is None else 1000)
    rows = [row for row in told.results if endpoint is None or row.endpoint == endpoint]
    return Table(
        title="Groups" if endpoint is None else "Its errors",
        says=told.says,
        csv=told.csv if endpoint is None else page.view.csv_of("Its errors"),
        empty=NO_ERRORS,
        columns=[
            Column("Error"),
            Column("Trend", "per day"),
            Column("Errors", is_number=True),
            Column("Users", is_number=True),
            Column("Endpoint"),
            Column("Last seen", page.view.zone_name),
            Column("Handled"),
        ],
        rows=[
            [
                cell(
                    row.error_type,
                    page.view.url("errors", fingerprint=row.fingerprint) if row.fingerprint else None,
                    more=(row.sample_error_message or "")[:200],
                ),
                cell("", spark=tuple(row.trend)),
                number(row.error_count),
                number(row.affected_users),
                endpoint_cell(page, row.endpoint),
                time(page, row.last_seen_at),
                cell({True: "yes", False: "no", None: None}[row.handled]),
            ]
            for row in rows
        ],
    )


async def group(page: Page, fingerprint: str) -> list[Panel]:
    """Return one group of errors."""
    told = await page.ask("get_error_group", fingerprint=fingerprint, bucket="hour" if _is_short(page) else "day")
    found = told.results
    view = page.view
    labels = [at for at in view.period.buckets("hour" if _is_short(page) else "day").labels if at <= view.now]
    events = view.url("events", type="application_error", fingerprint=fingerprint)
    return [
        Stats(
            title=found.error_type or "Error",
            note=found.sample_error_message or "",
            stats=[
                stat("Errors", found.error_count, told.says, href=events),
                stat("Users", found.affected_users, "Distinct users whom it met.", href=events),
                stat("First seen", None, "In this range.", write=lambda _: time(page, found.first_seen_at).text),
                stat("Last seen", None, "In this range.", write=lambda _: time(page, found.last_seen_at).text),
            ],
        ),
        Chart(
            title="When",
            says="Errors of this group over time.",
            unit="errors",
            labels=labels,
            lines=[Line("Errors", found.trend[: len(labels)], "errors", "bar")],
            step="hour" if _is_short(page) else "day",
            zone_name=view.zone_name,
        ),
        Code(
            title="Stack",
            says="Of the newest error, the innermost frame first.",
            empty="" if found.stack else "The newest error has no stack.",
            lines=[
                (str(frame.get("function", "–")), f"{frame.get('file', '–')}:{frame.get('line', '–')}")
                for frame in found.stack[:100]
            ],
        ),
        Table(
            title="Newest occurrences",
            says="The newest 20 errors of this group.",
            columns=[
                Column("Time", view.zone_name),
                Column("Message"),
                Column("User"),
                Column("Trace"),
                Column("Service"),
            ],
            rows=[
                [
                    time(page, one.timestamp),
                    cell((one.error_message or "")[:300]),
                    user_cell(page, one.user_id),
                    cell(
                        one.trace_id, view.url("events", trace_id=one.trace_id) if one.trace_id else None, is_code=True
                    ),
                    cell(one.service),
                ]
                for one in found.occurrences
            ],
            next=events,
        ),
    ]


def _is_short(page: Page) -> bool:
    return page.view.step == "hour"


PAGE = PageKind("errors", "Errors", parts)
