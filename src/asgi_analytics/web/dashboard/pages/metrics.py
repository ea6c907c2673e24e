"""Metrics: counters, gauges, histograms and timers of the application."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from asgi_analytics.web.dashboard.asking import Page, Part
from asgi_analytics.web.dashboard.figures import count, percent
from asgi_analytics.web.dashboard.pages.base import PageKind, buckets, number, placed, summed, time
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
    how: dict[str, Any] = {
        "name": name,
        "period_type": PERIODS[page.view.step],
        "group_by": [] if name is None else None,
    }
    asked = [page.ask("query_metric_aggregates", **how)]
    if page.view.compare:
        asked.append(page.ask("query_metric_aggregates", **how, **page.view.before()))
    told, *earlier = await asyncio.gather(*asked)
    by_name = _by_name(told.results)
    before = _by_name(earlier[0].results) if earlier else {}
    table = Table(
        title="Metrics",
        says=told.says,
        csv=page.view.csv_of("Metrics"),
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
    charts = [_chart(page, metric, rows, before.get(metric, ())) for metric, rows in sorted(by_name.items())]
    return [table, *charts[:MOST_CHARTS]]


def _by_name(rows: Sequence[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        found[row.name].append(row)
    return found


def _chart(page: Page, name: str, rows: Sequence[Any], before: Sequence[Any]) -> Chart:
    has_percentiles = any(row.p50 is not None for row in rows)
    if has_percentiles and _is_one_series(rows):

        def percentile(field: str, rows: Sequence[Any], *, before: bool = False) -> list[float | None]:
            return placed(page, [(row.period_start, getattr(row, field)) for row in rows], before=before)

        says = "What half, 90 % and 99 % of the values were at most, within 2 %. The band is from the half to 99 %."
        lines = [
            Line("p50", percentile("p50", rows), "time", "low"),
            Line("p90", percentile("p90", rows), "time", "line"),
            Line("p99", percentile("p99", rows), "time", "high"),
        ]
        if before and _is_one_series(before):
            lines.append(Line("p90, period before", percentile("p90", before, before=True), "time", "thin"))
    else:

        def calls(rows: Sequence[Any], *, before: bool = False) -> list[float]:
            return summed(page, [(row.period_start, row.count) for row in rows], before=before)

        says = f"Calls in each {page.view.step}."
        lines = [Line("Calls", calls(rows), "events", "bar")]
        if before:
            lines.append(Line("Calls, period before", calls(before, before=True), "events", "thin"))
    unit = rows[0].unit if has_percentiles else None
    return Chart(title=name, says=says, unit=unit or "calls", labels=buckets(page), lines=lines, step=page.view.step,
                 zone_name=page.view.zone_name, is_half=True)  # fmt: skip


def _is_one_series(rows: Sequence[Any]) -> bool:
    """Tell whether no two rows are of one period: percentiles cannot be added up."""
    return len({row.period_start for row in rows}) == len(rows)


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
