"""Metrics: counters, gauges, histograms and timers of the application."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from asgi_analytics.web.dashboard.asking import Page, Part
from asgi_analytics.web.dashboard.figures import count, percent
from asgi_analytics.web.dashboard.pages.base import PageKind, number, time
from asgi_analytics.web.dashboard.panels import Chart, Column, Line, Panel, Table, cell

NO_METRICS = "Count with client.metrics.counter(…), gauge, histogram or timer, and the metrics appear here."
PERIODS = {"hour": "hourly", "day": "daily", "week": "weekly"}
MOST_CHARTS = 12


def parts(page: Page) -> list[Part]:
    """Return the parts of the page."""
    return [
        Part("Metrics", metrics(page)),
        Part("Dashboard metrics", widgets(page)),
        Part("Realtime", realtime(page)),
    ]


async def metrics(page: Page) -> list[Panel]:
    """Return a chart for each metric, and all of them as a table."""
    name = page.view.text("name") or None
    told = await page.ask(
        "query_metric_aggregates", name=name, period_type=PERIODS[page.view.step], group_by=[] if name is None else None
    )
    by_name: dict[str, list[Any]] = defaultdict(list)
    for row in told.results:
        by_name[row.name].append(row)
    table = Table(
        title="Metrics",
        says=told.says,
        csv=told.csv,
        empty=NO_METRICS,
        columns=[
            Column("Metric"),
            Column("Calls", is_number=True),
            Column("Sum", is_number=True),
            Column("Least", is_number=True),
            Column("Greatest", is_number=True),
        ],
        rows=[
            [
                cell(metric, page.view.url("metrics", name=metric), is_code=True),
                number(sum(row.count for row in rows)),
                number(sum(row.sum or 0 for row in rows)),
                number(min((row.min for row in rows if row.min is not None), default=None)),
                number(max((row.max for row in rows if row.max is not None), default=None)),
            ]
            for metric, rows in sorted(by_name.items())
        ],
    )
    charts = [_chart(page, metric, rows) for metric, rows in sorted(by_name.items())[:MOST_CHARTS]]
    return [table, *charts]


def _chart(page: Page, name: str, rows: list[Any]) -> Chart:
    by_start: dict[Any, list[Any]] = defaultdict(list)
    for row in rows:
        by_start[row.period_start].append(row)
    labels = sorted(by_start)
    lone = all(len(found) == 1 for found in by_start.values())
    lines = [Line("Calls", [sum(row.count for row in by_start[at]) for at in labels], "events", "bar")]
    if lone and any(row.p50 is not None for row in rows):
        lines = [
            Line("p50", [by_start[at][0].p50 for at in labels], "time", "low"),
            Line("p90", [by_start[at][0].p90 for at in labels], "time", "line"),
            Line("p99", [by_start[at][0].p99 for at in labels], "time", "high"),
        ]
    unit = rows[0].unit or "calls"
    return Chart(title=name, unit=unit, labels=labels, lines=lines, step=page.view.step, zone_name=page.view.zone_name,
                 is_half=True)  # fmt: skip


async def widgets(page: Page) -> Table:
    """Return the numbers of the dashboard's own and of the application's."""
    told = await page.ask("get_dashboard_metrics")
    return Table(
        title="Dashboard metrics",
        says=told.says,
        csv=told.csv,
        empty="Set one with admin.dashboard.set_dashboard_metric(…).",
        columns=[
            Column("Widget"),
            Column("Metric"),
            Column("Value", is_number=True),
            Column("Before", is_number=True),
            Column("Change", is_number=True),
            Column("Updated", page.view.zone_name),
        ],
        rows=[
            [
                cell(row.widget_id),
                cell(row.metric_key, is_code=True),
                number(row.value),
                number(row.previous_value),
                number(row.change_percent, lambda n: percent(None if n is None else n / 100)),
                time(page, row.updated_at),
            ]
            for row in told.results
        ],
    )


async def realtime(page: Page) -> Table:
    """Return the numbers of this moment."""
    told = await page.ask("get_realtime_metrics")
    return Table(
        title="Realtime",
        says=told.says,
        csv=told.csv,
        empty="Set one with admin.dashboard.update_realtime_metric(…).",
        columns=[Column("Metric"), Column("Value"), Column("Window"), Column("Calculated", page.view.zone_name)],
        rows=[
            [
                cell(row.metric_key, is_code=True),
                cell(count(row.metric_value) if isinstance(row.metric_value, int | float) else str(row.metric_value)),
                cell(str(row.time_window)),
                time(page, row.calculated_at),
            ]
            for row in told.results
        ],
    )


PAGE = PageKind("metrics", "Metrics", parts)
