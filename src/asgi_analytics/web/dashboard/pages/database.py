"""Database: the application's own queries, those that cost the most and those that are repeated."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from asgi_analytics.web.dashboard.asking import Page, Part
from asgi_analytics.web.dashboard.figures import duration
from asgi_analytics.web.dashboard.pages.base import PageKind, endpoint_cell, number, stat
from asgi_analytics.web.dashboard.panels import Column, Stats, Table, cell, shares

NO_QUERIES = "Call instrument_asyncpg(client), or its like for another driver, and the queries appear here."


def parts(page: Page) -> list[Part]:
    """Return the parts of the page."""
    return [Part("Queries", stats(page)), Part("Slow queries", slow(page)), Part("Repeated queries", repeated(page))]


async def stats(page: Page) -> Stats:
    """Return the numbers at the top, beside those of the period before."""
    asked = [page.ask("list_slow_queries", limit=100)]
    if page.view.compare:
        asked.append(page.ask("list_slow_queries", limit=100, **page.view.before()))
    told, *earlier = await asyncio.gather(*asked)
    calls, total, average, failed = _sums(told.results)
    before = _sums(earlier[0].results) if earlier else (None,) * 4
    events = page.view.url("events", type="database_query")
    return Stats(
        title="Queries",
        says="Of the 100 statements that cost the most.",
        stats=[
            stat("Queries", calls, told.says, before=before[0], href=events),
            stat("Time in all", total, "The durations of these queries together.", write=duration, before=before[1],
                 href=events, good=False),
            stat("On average", average, "Of these queries.", write=duration, before=before[2], href=events, good=False),
            stat("Failed", failed, "Queries that ended with an error.", before=before[3], href=events, good=False),
        ],
    )  # fmt: skip


def _sums(rows: Sequence[Any]) -> tuple[int, float, float | None, int]:
    """Return how often statements ran, how long in all and on average, in milliseconds, and how often they failed."""
    calls, total = sum(row.call_count for row in rows), sum(row.total_duration_ms for row in rows)
    return calls, total, total / calls if calls else None, sum(row.error_count for row in rows)


async def slow(page: Page, endpoint: str | None = None) -> Table:
    """Return the statements that cost the most, of all requests or of those to an endpoint."""
    told = await page.ask("list_slow_queries", endpoint=endpoint, limit=50 if endpoint is None else 20)
    rows = told.results
    return Table(
        title="Slow queries" if endpoint is None else "Its queries",
        says=told.says,
        csv=told.csv,
        empty=NO_QUERIES,
        columns=[
            Column("Statement"),
            Column("In all", is_number=True),
            Column("Calls", is_number=True),
            Column("Average", "ms", is_number=True),
            Column("p95", "ms", is_number=True),
            Column("Failed", is_number=True),
        ],
        rows=[
            [
                cell(
                    row.statement or row.fingerprint,
                    page.view.url("events", type="database_query", fingerprint=row.fingerprint)
                    if row.fingerprint
                    else None,
                    is_code=True,
                    share=share,
                    more=", ".join(row.endpoints[:3])
                    + (f" and {len(row.endpoints) - 3} more" if len(row.endpoints) > 3 else ""),
                ),
                number(row.total_duration_ms, duration),
                number(row.call_count),
                number(row.avg_duration_ms, _ms),
                number(row.p95_duration_ms, _ms),
                number(row.error_count),
            ]
            for row, share in zip(rows, shares([row.total_duration_ms for row in rows]), strict=True)
        ],
    )


async def repeated(page: Page) -> Table:
    """Return the endpoints whose requests repeat a query."""
    told = await page.ask("list_repeated_queries", limit=50)
    return Table(
        title="Repeated queries",
        says=told.says + " Many repeats of one statement are an N+1 problem: ask once for all rows instead.",
        csv=told.csv,
        empty=NO_QUERIES,
        columns=[
            Column("Endpoint"),
            Column("Most repeats", "in a request", is_number=True),
            Column("Queries", "per request", is_number=True),
            Column("Requests", is_number=True),
        ],
        rows=[
            [
                endpoint_cell(page, row.endpoint, row.method),
                number(row.max_db_repeats),
                number(row.avg_db_queries, lambda n: "–" if n is None else f"{n:,.1f}"),
                number(row.request_count),
            ]
            for row in told.results
        ],
    )


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:,.2f}" if value < 100 else f"{value:,.0f}"


PAGE = PageKind("database", "Database", parts)
