"""The pages on both kinds of database, with the rights of the reader role; figures, URLs, and metrics."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import httpx2
import msgspec
import pytest

from asgi_analytics.reading import AnalyticsReader
from asgi_analytics.web.dashboard import create_dashboard_app, figures
from asgi_analytics.web.dashboard.asking import Told
from asgi_analytics.web.dashboard.pages import PAGES, api, events, metrics, retention
from asgi_analytics.web.dashboard.pages import database as database_page
from asgi_analytics.web.dashboard.panels import Chart, Stats, Table
from asgi_analytics.web.dashboard.view import View
from tests.conftest import SERVERS
from tests.kit.databases import Database
from tests.reading.conftest import database, reader_dsn
from tests.web.api.service import fill

__all__ = ["database", "reader_dsn"]

NOW = datetime(2026, 3, 30, 12, 20, tzinfo=UTC)


def view(query: str = "", page: str = "errors") -> View:
    reader = AnalyticsReader.from_url("postgresql://app@127.0.0.1:1/shop")
    return View.read(page, query.encode(), reader, NOW)


@pytest.mark.parametrize("database", [*SERVERS.available, "sqlite"], indirect=True)
async def test_every_page_answers_with_every_setting(database: Database, reader_dsn: str) -> None:
    await fill(database)
    async with AnalyticsReader.from_url(reader_dsn, statement_timeout=30) as reader:
        app = create_dashboard_app(reader, authorize=lambda scope: True)
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://dashboard") as http:
            paths = [page.path for page in PAGES]
            paths += ["api?endpoint=/orders&method=GET", "errors?fingerprint=f1", "sessions?id=s1", "user?user_id=3",
                      "funnels?name=checkout", "funnels?name=checkout&step_number=2&dropped=1",
                      "funnels?step1=task_created&step2=task_completed&field2=data.duration_ms&operator2=is_set"
                      "&breakdown=service&order=unordered&by=session"]  # fmt: skip
            settings = ["range=24h", "range=30d&compare=1&service=shop&environment=production",
                        "range=7d&timezone=Asia/Kolkata"]  # fmt: skip
            downloads = set()
            for path in paths:
                for setting in settings:
                    answer = await http.get(f"/{path}{'&' if '?' in path else '?'}{setting}")
                    assert answer.status_code == 200, (path, setting, answer.text)
                    assert ("of all environments" in answer.text) == ("environment=" in setting)
                    problems = re.findall(r'<p class="bad">([^<]+)', answer.text)
                    # What happened in a filter may be nothing.
                    nothing = ("no error of this range", "no session has it") if "service=" in setting else ()
                    known = [one for one in problems if any(text in one for text in nothing)]
                    assert problems == known, (path, setting)
                    downloads |= set(re.findall(r'href="([^"]+)" download', answer.text))
                    assert len(re.findall(r" as CSV", answer.text)) == answer.text.count(" download ")
            assert len(downloads) > 40
            for url in sorted(downloads):
                answer = await http.get(url.replace("&amp;", "&").removeprefix("."))
                assert answer.status_code == 200, (url, answer.text)
                assert answer.headers["content-type"].startswith("text/csv")
                assert answer.headers["cache-control"] == "no-store"
            assert (await http.get("/metrics?csv=Queries")).status_code == 404


def test_the_range_of_a_preset_is_local_days_up_to_today() -> None:
    found = view("range=7d&timezone=Europe/Berlin").period
    assert found.start == datetime(2026, 3, 23, 23, tzinfo=UTC)  # before the clocks were set forward
    assert found.end == datetime(2026, 3, 30, 22, tzinfo=UTC)
    hours = view("range=24h").period
    assert (hours.start, hours.end) == (datetime(2026, 3, 29, 13, tzinfo=UTC), datetime(2026, 3, 30, 13, tzinfo=UTC))
    assert [view(f"range={name}").step for name in ("24h", "today", "7d", "30d", "90d", "12m")] == [
        "hour", "hour", "day", "day", "day", "week",
    ]  # fmt: skip


def test_a_url_keeps_what_is_looked_at_and_no_empty_parameter() -> None:
    here = view("range=30d&service=shop&service=&fingerprint=f1&environment=")
    assert here.url("events", type="a&b", user_id=None) == "./events?range=30d&service=shop&type=a%26b"
    assert here.here(cursor="x") == "./errors?range=30d&service=shop&fingerprint=f1&cursor=x"
    day = view("range=30d&timezone=Europe/Berlin")
    label = day.period.buckets("day").labels[-2]  # the day of 23 hours
    assert "start=2026-03-29&end=2026-03-29" in day.of_bucket("api", label)


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (figures.count(1234567), "1,234,567"), (figures.count(2.5), "2.50"), (figures.count(None), "–"),
        (figures.duration(0.0), "0 ms"),
        (figures.duration(3.21), "3.2 ms"), (figures.duration(999), "999 ms"), (figures.duration(61_000), "1.0 min"),
        (figures.duration(3 * 86_400_000), "3.0 d"), (figures.percent(0.0123), "1.23 %"),
        (figures.percent(1), "100.0 %"), (figures.size(1536), "1.5 KiB"), (figures.size(0), "0 B"),
        (figures.change(50, 100), "\N{MINUS SIGN}50 %"), (figures.change(110, 100), "+10 %"),
        (figures.change(5000, 10), "×500"), (figures.change(1, 0), ""), (figures.change(None, 3), ""),
    ],
)  # fmt: skip
def test_figures_are_written_for_people(written: str, text: str) -> None:
    assert written == text


class Aggregate(msgspec.Struct):
    name: str
    period_start: datetime
    count: int
    sum: float
    min: float
    max: float
    p50: float | None
    p90: float | None
    p99: float | None
    unit: str | None


async def test_what_is_compared_is_of_the_period_before() -> None:
    here = view("range=7d&compare=1&environment=production", "api")
    today = NOW.replace(hour=0, minute=0)

    async def ask(question: str, /, bucket: str = "", start: datetime | None = None, **rest: Any) -> Told:
        """Answer with a few requests 2 and 3 days ago, and with more of them 7 days before."""
        is_before = start is not None
        assert start in (None, today - timedelta(days=13))
        assert (rest.get("end") == today - timedelta(days=6)) == is_before
        if question == "list_slow_queries":
            calls, took, errors = (40, 200.0, 4) if is_before else (10, 100.0, 5)
            return Told([SimpleNamespace(call_count=calls, total_duration_ms=took, error_count=errors)], "", "")
        if question in ("get_apdex", "query_events"):
            return Told([] if question == "get_apdex" else SimpleNamespace(events=[]), "", "")
        assert question in ("get_endpoint_latency", "get_latency_series")
        days = [2 + 7 * is_before, 3 + 7 * is_before]
        rows = [
            SimpleNamespace(
                bucket=today - timedelta(days=day), endpoint="/", method="GET", request_count=count,
                error_4xx_count=0, error_5xx_count=count // 10, p50_duration_ms=float(count), p95_duration_ms=None,
                p99_duration_ms=None, error_rate=count // 10 / count,
            )
            for day, count in zip(days, (10, 4) if is_before else (1, 2), strict=True)
        ]  # fmt: skip
        return Told(rows if bucket == "day" else rows[:1], "", "")

    page: Any = SimpleNamespace(view=here, ask=ask)
    lines = {line.label: list(line.values) for line in (await api.traffic(page)).lines}
    assert lines["Requests"] == [0, 0, 0, 2, 1, 0, 0]
    assert lines["Requests, period before"] == [0, 0, 0, 4, 10, 0, 0]
    durations = {line.label: list(line.values) for line in (await api.durations(page)).lines}
    assert durations["p50"] == [None, None, None, 2.0, 1.0, None, None]
    assert [*durations] == ["p50", "p95", "p99", "p95, period before"]
    numbers = {one.label: (one.change, one.is_good) for one in (await database_page.stats(page)).stats}
    assert numbers == {
        "Queries": ("\N{MINUS SIGN}75 %", None), "Time in all": ("\N{MINUS SIGN}50 %", True),
        "On average": ("+100 %", False), "Failed": ("+25 %", False),
    }  # fmt: skip
    one = await api.one_stats(page, "/")
    assert isinstance(one, Stats)
    changes = {stat.label: (stat.change, stat.is_good) for stat in one.stats}
    assert changes["Requests"] == ("\N{MINUS SIGN}90 %", None)
    assert changes["p50"] == ("\N{MINUS SIGN}90 %", True)
    assert changes["p95"] == ("", None)
    assert changes["Failed"] == ("\N{MINUS SIGN}100 %", True)
    alone: Any = SimpleNamespace(view=view("range=7d", "api"), ask=ask)
    assert [line.label for line in (await api.traffic(alone)).lines] == ["Requests", "4xx", "5xx"]


async def test_what_happened_before_stands_beside_events_metrics_and_cohorts() -> None:
    here = view("range=7d&compare=1&type=ordered", "events")
    today = NOW.replace(hour=0, minute=0)

    async def ask(question: str, /, start: datetime | None = None, **rest: Any) -> Told:
        assert start in (None, today - timedelta(days=13))
        day = today - timedelta(days=2 if start is None else 9)
        count = 5 if start is None else 3
        if question == "query_aggregations":
            assert rest["aggregation_type"] == "daily"
            rows = [
                SimpleNamespace(
                    time_bucket=day, event_type=name, event_category="", metrics=SimpleNamespace(count=count)
                )
                for name in ("ordered", "left")
            ]
            return Told(SimpleNamespace(aggregations=rows), "", "")
        if question == "query_metric_aggregates":
            rates = {"p50": 1.0 * count, "p90": 2.0 * count, "p99": 3.0 * count}
            rows = [
                SimpleNamespace(
                    name=name, period_start=day, count=count, sum=1.0, min=1.0, max=1.0, unit="ms", **values
                )
                for name, values in (("took", rates), ("jobs", dict.fromkeys(rates)))
            ]
            return Told(rows, "", "")
        assert question == "query_retention"
        weeks = [SimpleNamespace(period=n, percentage=count / 10 / n) for n in (1, 2)]
        lone = SimpleNamespace(date=day, size=count, retention=[SimpleNamespace(percentage=None, complete=False)] * 3)
        return Told(SimpleNamespace(cohorts=[lone], overall_retention=weeks), "", "")

    page: Any = SimpleNamespace(view=here, ask=ask)
    lines = {line.label: line.values for line in (await events.over_time(page)).lines}
    assert lines == {"Events": [0, 0, 0, 0, 5, 0, 0], "Events, period before": [0, 0, 0, 0, 3, 0, 0]}
    _, jobs, took = await metrics.metrics(page)
    assert isinstance(jobs, Chart)
    assert isinstance(took, Chart)
    assert [(line.label, list(line.values)) for line in jobs.lines] == [
        ("Calls", [0, 0, 0, 0, 5, 0, 0]), ("Calls, period before", [0, 0, 0, 0, 3, 0, 0]),
    ]  # fmt: skip
    assert took.lines[1].values == [None] * 4 + [10.0] + [None] * 2
    assert (took.lines[3].label, took.lines[3].values) == ("p90, period before", [None] * 4 + [6.0] + [None] * 2)
    together = (await retention.cohorts(page)).rows[:2]
    assert [[one.value for one in row] for row in together] == [
        ["All", 5, "", 0.5, 0.25], ["All, period before", 3, "", 0.3, 0.15],
    ]  # fmt: skip


async def test_metrics_have_a_chart_each() -> None:
    rows = [
        Aggregate(name, NOW - timedelta(hours=hour), 2, 6.0, 1.0, 5.0, p50, p50, p50, unit)
        for hour in (2, 1)
        for name, p50, unit in (("jobs", None, None), ("took", 3.0, "ms"))
    ]

    async def ask(question: str, /, **arguments: Any) -> Told:
        assert (question, arguments["period_type"], arguments["group_by"]) == ("query_metric_aggregates", "hourly", [])
        return Told(rows, "What is counted.", "./data/metrics/aggregates")

    page: Any = SimpleNamespace(view=view("range=24h", "metrics"), ask=ask)
    table, jobs, took = await metrics.metrics(page)
    assert isinstance(table, Table)
    assert [[cell.value for cell in row] for row in table.rows] == [
        ["jobs", 4, 12.0, 1.0, 5.0],
        ["took", 4, 12.0, 1.0, 5.0],
    ]
    assert isinstance(jobs, Chart)
    assert isinstance(took, Chart)
    assert [line.form for line in jobs.lines] == ["bar"]
    assert [line.form for line in took.lines] == ["low", "line", "high"]
    assert (took.unit, took.lines[0].values[-3:]) == ("ms", [3.0, 3.0, None])
