"""The pages that people view. Durations are milliseconds."""

from __future__ import annotations

import msgspec

from asgi_analytics.reading.question import Limit, Text, question
from asgi_analytics.reading.ranges import DAY, Moment
from asgi_analytics.reading.source import Source
from asgi_analytics.reading.statements import Statements

SQL = Statements("pages")


class PageStats(msgspec.Struct, frozen=True):
    """One page in a range."""

    page: str
    """The route template, ``/tasks/{id}``."""
    page_views: int
    visitors: int
    """Distinct users, and visitors where there is no user."""
    entries: int
    """Sessions that began with it, as the exits of those that began in the range."""
    exits: int
    avg_visible_ms: float | None
    """Of each time that the page told; null if it never did, as without the script."""


@question("/pages")
async def list_pages(
    source: Source,
    *,
    limit: Limit = 100,
    start: Moment | None = None,
    end: Moment | None = None,
    timezone: str | None = None,
    service: Text | None = None,
) -> list[PageStats]:
    """Count the views and the distinct visitors of each page, and the sessions that began or ended with it.

    The most viewed come first. Days of time zones other than UTC need the raw rows.
    """
    split = source.range(start, end, timezone).buckets(None).split(DAY)
    async with source.snapshot() as snapshot:
        await snapshot.require_parts(split)
        return await snapshot.rows(PageStats, SQL["pages"], *split.bounds, service, snapshot.limit(limit))
