"""API: the endpoints with their traffic, durations and errors; and one of them with what its requests do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from asgi_analytics.reading import Filter, Step
from asgi_analytics.web.dashboard.asking import Page, Part
from asgi_analytics.web.dashboard.figures import duration, percent
from asgi_analytics.web.dashboard.pages import database, errors
from asgi_analytics.web.dashboard.pages.base import (
    PageKind,
    buckets,
    endpoint_cell,
    event_table,
    links,
    marks,
    number,
    placed,
    stat,
    summed,
    user_cell,
)
from asgi_analytics.web.dashboard.pages.overview import NO_REQUESTS
from asgi_analytics.web.dashboard.panels import Cell, Chart, Column, Line, Note, Stats, Table, shares

THRESHOLD = 500.0
"""Milliseconds within which a request satisfies."""
MOST = 100


def parts(page: Page) -> list[Part]:
    """Return the parts of the page: of all endpoints, or of the one that the URL names."""
    if endpoint := page.view.text("endpoint"):
        return [
            Part(endpoint, one_stats(page, endpoint)),
            Part("Durations", durations(page)),
            Part("Traffic", traffic(page)),
            Part("Its queries", database.slow(page, endpoint)),
            Part("Its errors", errors.groups(page, endpoint)),
            Part("Who calls it", callers(page, endpoint), True),
            Part("Its newest requests", newest(page, endpoint)),
        ]
    return [
        Part("Traffic", traffic(page)),
        Part("Durations", durations(page)),
        Part("Endpoints", endpoints(page)),
        Part("Slowest endpoints", slowest(page)),
        Part("Who calls", consumers(page)),
    ]


def _is(row: Any, page: Page, endpoint: str) -> bool:
    method = page.view.text("method")
    return row.endpoint == endpoint and (not method or row.method == method)


def _only(page: Page) -> dict[str, str]:
    """Return the endpoint and the method that the URL names, as arguments of a question."""
    return {name: text for name in ("endpoint", "method") if (text := page.view.text(name))}


async def traffic(page: Page) -> Chart:
    """Return the requests over time, by whether they failed, beside those of the period before."""
    only = _only(page)
    # By days where the chart has weeks, since those of the period before need not begin on Monday.
    step = "hour" if page.view.step == "hour" else "day"
    asked = [page.ask("get_latency_series", bucket=step, **only)]
    if page.view.compare:
        # The same question, since another one may be of one environment only.
        asked.append(page.ask("get_latency_series", bucket=step, **only, **page.view.before()))
    found, (told, *earlier) = await asyncio.gather(marks(page), asyncio.gather(*asked))
    rows = told.results
    labels = buckets(page)
    lines = [
        Line("Requests", summed(page, [(row.bucket, row.request_count) for row in rows]), "requests", "bar"),
        Line("4xx", summed(page, [(row.bucket, row.error_4xx_count) for row in rows]), "warnings"),
        Line("5xx", summed(page, [(row.bucket, row.error_5xx_count) for row in rows]), "errors"),
    ]
    if earlier:
        counts = [(row.bucket, row.request_count) for row in earlier[0].results]
        lines.append(Line("Requests, period before", summed(page, counts, before=True), "requests", "thin"))
    return Chart(
        title="Traffic",
        says="Requests in each " + page.view.step + "; failed are those answered with 400 or above.",
        csv=page.view.csv_of("Traffic"),
        empty="" if any(row.request_count for row in rows) else _nothing(page),
        unit="requests",
        labels=labels,
        lines=lines,
        links=links(page, "events", labels, type="api_request", endpoint=only.get("endpoint")),
        marks=found,
        step=page.view.step,
        zone_name=page.view.zone_name,
    )


async def durations(page: Page) -> Chart:
    """Return the percentiles of all requests over time, beside those of the period before."""
    only = _only(page)
    asked = [page.ask("get_latency_series", bucket=page.view.step, **only)]
    if page.view.compare:
        asked.append(page.ask("get_latency_series", bucket=page.view.step, **only, **page.view.before()))
    found, (told, *earlier) = await asyncio.gather(marks(page), asyncio.gather(*asked))
    labels = buckets(page)

    def percentile(field: str, rows: Sequence[Any], *, before: bool = False) -> list[float | None]:
        return placed(page, [(row.bucket, getattr(row, field)) for row in rows], before=before)

    lines = [
        Line("p50", percentile("p50_duration_ms", told.results), "time", "low"),
        Line("p95", percentile("p95_duration_ms", told.results), "time", "line"),
        Line("p99", percentile("p99_duration_ms", told.results), "time", "high"),
    ]
    if earlier:
        p95 = percentile("p95_duration_ms", earlier[0].results, before=True)
        lines.append(Line("p95, period before", p95, "time", "thin"))
    of_what = "this endpoint" if only else "all endpoints together"
    return Chart(
        title="Durations",
        says=f"How long half, 95 % and 99 % of the requests to {of_what} took at most in each {page.view.step}, within "
        "2 %. The band is from the half to 99 %.",
        csv=page.view.csv_of("Durations"),
        empty="" if any(row.request_count for row in told.results) else _nothing(page),
        unit="ms",
        labels=labels,
        lines=lines,
        links=links(page, "events", labels, type="api_request", endpoint=only.get("endpoint")),
        marks=found,
        step=page.view.step,
        zone_name=page.view.zone_name,
    )


def _nothing(page: Page) -> str:
    return "No request to this endpoint in this range." if page.view.text("endpoint") else NO_REQUESTS


async def endpoints(page: Page) -> Table:
    """Return all endpoints by traffic."""
    told, rated = await asyncio.gather(
        page.ask("get_endpoint_latency", bucket="all"), page.ask("get_apdex", threshold_ms=THRESHOLD)
    )
    apdex = {(row.endpoint, row.method): row.apdex for row in rated.results}
    rows = sorted(told.results, key=lambda row: -row.request_count)[:MOST]
    return Table(
        title="Endpoints",
        says=f"{told.says} Apdex: {rated.says[0].lower()}{rated.says[1:]} The threshold is {THRESHOLD:g} ms.",
        csv=told.csv,
        empty=NO_REQUESTS,
        note=f"The {MOST} busiest of {len(told.results)}" if len(told.results) > MOST else "",
        columns=[
            Column("Endpoint"),
            Column("Requests", is_number=True),
            Column("p50", "ms", is_number=True),
            Column("p95", "ms", is_number=True),
            Column("p99", "ms", is_number=True),
            Column("4xx", is_number=True),
            Column("5xx", is_number=True),
            Column("Failed", "of all", is_number=True),
            Column("Apdex", is_number=True),
        ],
        rows=[
            [
                endpoint_cell(page, row.endpoint, row.method, share=share, more=row.service),
                number(row.request_count),
                _ms(row.p50_duration_ms),
                _ms(row.p95_duration_ms),
                _ms(row.p99_duration_ms),
                number(row.error_4xx_count),
                number(row.error_5xx_count),
                number(row.error_rate, percent),
                _apdex(apdex.get((row.endpoint, row.method))),
            ]
            for row, share in zip(rows, shares([row.request_count for row in rows]), strict=True)
        ],
    )


def _ms(value: float | None) -> Cell:
    """Return a duration in one unit, so that a column can be compared at a glance."""
    return number(value, lambda ms: "–" if ms is None else f"{ms:,.1f}" if ms < 100 else f"{ms:,.0f}")


def _apdex(value: float | None) -> Cell:
    return number(value, lambda rate: "–" if rate is None else f"{rate:.2f}")


async def slowest(page: Page) -> Table:
    """Return the endpoints with the longest 99th percentile."""
    view = page.view
    told = await page.ask("get_slowest_endpoints", limit=10, start=view.period.start, end=view.period.end)
    return Table(
        title="Slowest endpoints",
        is_half=True,
        says=told.says,
        csv=told.csv,
        empty="No endpoint has 20 requests in this range.",
        columns=[
            Column("Endpoint"),
            Column("p99", "ms", is_number=True),
            Column("In all", title="The durations of all its requests together", is_number=True),
        ],
        rows=[
            [
                endpoint_cell(page, row.endpoint, row.method, share=share),
                _ms(row.p99_duration_ms),
                number(row.total_duration_ms, duration),
            ]
            for row, share in zip(told.results, shares([row.p99_duration_ms for row in told.results]), strict=True)
        ],
    )


async def consumers(page: Page) -> Table:
    """Return the users with the most requests."""
    told = await page.ask("get_api_consumers", limit=10)
    return Table(
        title="Who calls",
        is_half=True,
        says=told.says,
        csv=told.csv,
        empty="No request of a known user. Say who it is with set_user(…) in the application.",
        columns=[
            Column("User"),
            Column("Requests", is_number=True),
            Column("4xx", is_number=True),
            Column("5xx", is_number=True),
            Column("p95", "ms", is_number=True),
        ],
        rows=[
            [
                user_cell(page, row.user_id, share=share),
                number(row.request_count),
                number(row.error_4xx_count),
                number(row.error_5xx_count),
                _ms(row.p95_duration_ms),
            ]
            for row, share in zip(told.results, shares([row.request_count for row in told.results]), strict=True)
        ],
    )


async def one_stats(page: Page, endpoint: str) -> Stats | Note:
    """Return the numbers of one endpoint, beside those of the period before."""
    only = _only(page)
    asked = [
        page.ask("get_latency_series", bucket="all", **only),
        page.ask("get_apdex", threshold_ms=THRESHOLD),
    ]
    if page.view.compare:
        asked.append(page.ask("get_latency_series", bucket="all", **only, **page.view.before()))
    told, rated, *earlier = await asyncio.gather(*asked)
    [found] = told.results
    old = earlier[0].results[0] if earlier else None
    title = f"{page.view.text('method')} {endpoint}".strip()
    if not found.request_count:
        return Note(title=title, text="No request to this endpoint in this range. Choose a longer one.")
    apdex = next((row.apdex for row in rated.results if _is(row, page, endpoint)), None)
    events = page.view.url("events", type="api_request", endpoint=endpoint)
    return Stats(
        title=title,
        stats=[
            stat("Requests", found.request_count, told.says, before=old and old.request_count, href=events),
            *(
                stat(name, getattr(found, field), told.says, write=duration, before=old and getattr(old, field),
                     good=False)
                for name, field in (("p50", "p50_duration_ms"), ("p95", "p95_duration_ms"), ("p99", "p99_duration_ms"))
            ),
            stat("Failed", found.error_rate, "Answered with 500 or above, of all.", write=percent,
                 before=old and old.error_rate, href=events, good=False),
            stat("Apdex", apdex, rated.says, write=lambda rate: "–" if rate is None else f"{rate:.2f}"),
        ],
    )  # fmt: skip


async def callers(page: Page, endpoint: str) -> Table:
    """Return the users with the most requests to an endpoint."""
    step = Step("api_request", [Filter("data.endpoint", "exact", endpoint)])
    told = await page.ask("query_trends", series=[step], interval="month", breakdown="user_id", limit=10)
    rows = told.results.series
    return Table(
        title="Who calls it",
        says="Requests to this endpoint by user, the most first.",
        csv=told.csv,
        empty="No request in this range.",
        columns=[Column("User"), Column("Requests", is_number=True)],
        rows=[
            [
                user_cell(page, row.breakdown_value, share=share)
                if row.breakdown_value not in (None, "other")
                else Cell("all others" if row.breakdown_value else "not known", row.breakdown_value, share=share),
                number(row.count),
            ]
            for row, share in zip(rows, shares([row.count for row in rows]), strict=True)
            if row.count
        ],
    )


async def newest(page: Page, endpoint: str) -> Table:
    """Return the newest requests to an endpoint."""
    told = await page.ask("query_events", event_types=["api_request"], endpoint=endpoint, limit=10)
    everything = page.view.url("events", type="api_request", endpoint=endpoint)
    return event_table(page, told, "Its newest requests", href=everything)


PAGE = PageKind("api", "API", parts)
