"""What the views of requests and of queries must say, computed once more, in Python and as simply as possible."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tests.schema.happenings import Happened
from tests.schema.measures import Rows, amount, amounts, average, day_of, grouped, hour_of, percentile, total


def bin_of(duration: float) -> int:
    """Return the bin of the latency histogram."""
    return math.ceil(math.log(duration) / math.log(1.04)) if duration else -1000


def analytics_api_latency_hourly(events: Sequence[Happened]) -> Rows:
    requests = [e for e in events if e.event_type == "api_request"]
    rows = []
    groups = grouped(requests, lambda e: (hour_of(e), e.service, e.data.get("endpoint"), e.data.get("method")))
    for (hour, service, endpoint, method), group in groups.items():
        durations = amounts(group, "duration_ms")
        statuses = amounts(group, "status_code")
        rows.append(
            {
                "hour": hour,
                "service": service,
                "endpoint": endpoint,
                "method": method,
                "request_count": len(group),
                "avg_duration_ms": average(durations),
                "p50_duration_ms": percentile(durations, 0.5),
                "p95_duration_ms": percentile(durations, 0.95),
                "p99_duration_ms": percentile(durations, 0.99),
                "error_4xx_count": sum(400 <= status <= 499 for status in statuses),
                "error_5xx_count": sum(500 <= status <= 599 for status in statuses),
            }
        )
    return rows


def analytics_latency_histogram(events: Sequence[Happened]) -> Rows:
    requests = [e for e in events if e.event_type == "api_request" and amount(e.data.get("duration_ms")) is not None]

    def key(event: Happened) -> tuple[Any, ...]:
        number = bin_of(event.data["duration_ms"])
        return hour_of(event), event.service, event.data.get("endpoint"), event.data.get("method"), number

    return [
        {
            "hour": hour,
            "service": service,
            "endpoint": endpoint,
            "method": method,
            "bin": number,
            "requests": len(group),
            "errors_5xx": sum(500 <= status <= 599 for status in amounts(group, "status_code")),
        }
        for (hour, service, endpoint, method, number), group in grouped(requests, key).items()
    ]


def analytics_endpoint_hours(events: Sequence[Happened]) -> Rows:
    requests = [e for e in events if e.event_type == "api_request"]
    rows = []
    groups = grouped(requests, lambda e: (hour_of(e), e.service, e.data.get("endpoint"), e.data.get("method")))
    for (hour, service, endpoint, method), group in groups.items():
        durations, statuses = amounts(group, "duration_ms"), amounts(group, "status_code")
        queries, repeats = amounts(group, "db_queries"), amounts(group, "db_repeats")
        rows.append(
            {
                "hour": hour,
                "service": service,
                "environment": None,
                "endpoint": endpoint,
                "method": method,
                "requests": len(group),
                "measured": len(durations),
                "duration_ms": total(durations),
                "errors_4xx": sum(400 <= status <= 499 for status in statuses),
                "errors_5xx": sum(500 <= status <= 599 for status in statuses),
                "with_queries": len(queries),
                "db_queries": total(queries),
                "max_db_repeats": max(repeats, default=None),
            }
        )
    return rows


def analytics_query_days(events: Sequence[Happened]) -> Rows:
    queries = [e for e in events if e.event_type == "database_query"]

    def key(event: Happened) -> tuple[Any, ...]:
        duration = amount(event.data.get("duration_ms"))
        number = None if duration is None else bin_of(duration)
        return day_of(event), event.service, event.data.get("fingerprint"), event.data.get("endpoint"), number

    return [
        {
            "day": day,
            "service": service,
            "environment": None,
            "fingerprint": fingerprint,
            "endpoint": endpoint,
            "bin": number,
            "calls": len(group),
            "duration_ms": total(amounts(group, "duration_ms")),
            "errors": sum(e.data.get("outcome", "ok") != "ok" for e in group),
            "newest_at": max(e.timestamp for e in group),
        }
        for (day, service, fingerprint, endpoint, number), group in grouped(queries, key).items()
    ]


def bins_of(durations: Sequence[float]) -> tuple[list[int] | None, list[int] | None]:
    """Return the bins of durations in their order, and how many durations each has."""
    counts = Counter(bin_of(duration) for duration in durations)
    return sorted(counts) or None, [counts[number] for number in sorted(counts)] or None


def analytics_endpoint_days(events: Sequence[Happened]) -> Rows:
    requests = [e for e in events if e.event_type == "api_request"]
    rows = []
    groups = grouped(requests, lambda e: (day_of(e), e.service, e.data.get("endpoint"), e.data.get("method")))
    for (day, service, endpoint, method), group in groups.items():
        durations, queries, repeats = (amounts(group, name) for name in ("duration_ms", "db_queries", "db_repeats"))
        failed = [e for e in group if 500 <= (amount(e.data.get("status_code")) or 0) <= 599]
        bins, bin_requests = bins_of(durations)
        error_bins, error_bin_requests = bins_of(amounts(failed, "duration_ms"))
        rows.append(
            {
                "day": day,
                "service": service,
                "endpoint": endpoint,
                "method": method,
                "requests": len(group),
                "measured": len(durations),
                "duration_ms": total(durations),
                "p50_duration_ms": percentile(durations, 0.5),
                "p95_duration_ms": percentile(durations, 0.95),
                "p99_duration_ms": percentile(durations, 0.99),
                "errors_4xx": sum(400 <= status <= 499 for status in amounts(group, "status_code")),
                "errors_5xx": len(failed),
                "with_queries": len(queries),
                "db_queries": total(queries),
                "max_db_repeats": max(repeats, default=None),
                "bins": bins,
                "bin_requests": bin_requests,
                "error_bins": error_bins,
                "error_bin_requests": error_bin_requests,
            }
        )
    return rows


def analytics_consumer_days(events: Sequence[Happened]) -> Rows:
    requests = [e for e in events if e.event_type == "api_request" and e.user_id is not None]
    rows = []
    for (day, service, user_id), group in grouped(requests, lambda e: (day_of(e), e.service, e.user_id)).items():
        statuses = amounts(group, "status_code")
        rows.append(
            {
                "day": day,
                "service": service,
                "user_id": user_id,
                "requests": len(group),
                "errors_4xx": sum(400 <= status <= 499 for status in statuses),
                "errors_5xx": sum(500 <= status <= 599 for status in statuses),
                "first_seen_at": min(e.timestamp for e in group),
                "last_seen_at": max(e.timestamp for e in group),
                "durations_ms": sorted(amounts(group, "duration_ms")) or None,
            }
        )
    return rows


def analytics_statement_days(events: Sequence[Happened]) -> Rows:
    queries = [e for e in events if e.event_type == "database_query"]
    rows = []
    for (day, service, print_), group in grouped(
        queries, lambda e: (day_of(e), e.service, e.data.get("fingerprint"))
    ).items():
        durations = amounts(group, "duration_ms")
        bins, bin_calls = bins_of(durations)
        rows.append(
            {
                "day": day,
                "service": service,
                "environment": None,
                "fingerprint": print_,
                "calls": len(group),
                "measured": len(durations),
                "duration_ms": total(durations),
                "errors": sum(e.data.get("outcome", "ok") != "ok" for e in group),
                "newest_at": max(e.timestamp for e in group),
                "bins": bins,
                "bin_calls": bin_calls,
                "endpoints": sorted({e.data["endpoint"] for e in group if e.data.get("endpoint") is not None}) or None,
            }
        )
    return rows
