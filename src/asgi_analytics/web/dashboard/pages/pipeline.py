"""Pipeline: whether events arrive, what was refused, what is behind, and what the database holds."""

from __future__ import annotations

from asgi_analytics.web.dashboard.asking import Page, Part
from asgi_analytics.web.dashboard.figures import duration, size
from asgi_analytics.web.dashboard.pages.base import PageKind, number, stat, time
from asgi_analytics.web.dashboard.panels import Column, Panel, Stats, Table, cell


def parts(page: Page) -> list[Part]:
    """Return the parts of the page."""
    return [Part("Pipeline", pipeline(page))]


async def pipeline(page: Page) -> list[Panel]:
    """Return the state of the pipeline."""
    told = await page.ask("get_pipeline_health")
    found, view = told.results, page.view
    database = found.database
    behind = None if found.newest_event_at is None else max((view.now - found.newest_event_at).total_seconds(), 0)
    versions = f"{'SQLite' if database.flavour == 'sqlite' else 'PostgreSQL'} {database.postgresql_version}"
    if database.timescaledb_version:
        versions = f"TimescaleDB {database.timescaledb_version} on {versions}"
    return [
        Stats(
            title="Pipeline",
            note=versions,
            stats=[
                stat("Since newest event", behind, "How long ago it happened.",
                     href=view.url("events", range="today"),
                     write=lambda n: "none" if n is None else duration(n * 1000)),
                stat("In the last minute", found.events_last_minute, "Events that happened in the last 60 seconds.",
                     href=view.url("events", range="24h")),
                stat("Dead letters", sum(one.count for one in found.dead_letters),
                     "Events that the database refused; they are kept in analytics_dead_letters."),
                stat("Views behind", len(found.pending), "Views whose complete hours or days are not up to date."),
                stat("Size", database.size_bytes, "Of the events with their indexes.", write=size),
                stat("Compressed", database.compressed_size_bytes, "Of the part that was turned into columns.",
                     write=size),
                stat("Oldest event", None, "Of those that are kept.",
                     write=lambda _: time(page, found.oldest_event_at).text[:10]),
            ],
        ),
        Table(
            title="Dead letters",
            says="Events that were refused for what they contain, by reason.",
            empty="None: every event that came was stored.",
            columns=[Column("Reason"), Column("Events", is_number=True), Column("Last received", view.zone_name)],
            rows=[
                [cell(one.reason), number(one.count), time(page, one.last_received_at)] for one in found.dead_letters
            ],
        ),
        Table(
            title="Views that are behind",
            says="They read the raw rows from this time on, so that numbers are right, but slower to come.",
            empty="None: all views are up to date.",
            columns=[Column("View"), Column("Since", view.zone_name)],
            rows=[[cell(one.view, is_code=True), time(page, one.since)] for one in found.pending],
        ),
        Table(
            title="Rows that are due",
            says="Their time is over: the hourly upkeep drops them within a day. What is counted of them stays.",
            empty="None: no row is kept for longer than its category says.",
            columns=[Column("Category"), Column("Kept for days", is_number=True), Column("Days due", is_number=True),
                     Column("Events", is_number=True), Column("Due since", view.zone_name)],
            rows=[[cell(one.category), number(one.keep_days), number(one.days), number(one.events),
                   time(page, one.due_since)] for one in found.due],
        ),
        Table(
            title="Exports",
            says="Copies to warehouses: what is committed and not copied yet, and the error of the newest batch.",
            empty="None: analytics-export init makes one.",
            columns=[Column("Export"), Column("Events behind", is_number=True), Column("Behind for", is_number=True),
                     Column("Dead letters", is_number=True), Column("Newest batch", view.zone_name), Column("Error")],
            rows=[[cell(one.name), number(one.events_behind), cell(duration(one.seconds_behind * 1000)),
                   number(one.dead_letters), time(page, one.last_batch_at), cell(one.last_error or "none")]
                  for one in found.exports],
        ),
    ]  # fmt: skip


PAGE = PageKind("pipeline", "Pipeline", parts)
