"""What each question must answer, computed once more from a list of events, as simply as possible."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, timedelta, tzinfo
from typing import Any, NamedTuple

from tests.reading.expected_people import query_lifecycle, query_paths, query_retention, query_stickiness
from tests.reading.expected_sessions import (
    get_feature_usage,
    get_session,
    get_session_breakdown,
    get_session_series,
    get_session_summary,
    get_user_activity,
    labels,
    list_pages,
    query_sessions,
    top_features,
)
from tests.reading.expected_trends import query_trends
from tests.reading.happened import Event
from tests.schema.measures import amount, average, percentile

__all__ = [
    "get_feature_usage",
    "get_session",
    "get_session_breakdown",
    "get_session_series",
    "get_session_summary",
    "get_user_activity",
    "list_pages",
    "query_lifecycle",
    "query_paths",
    "query_retention",
    "query_sessions",
    "query_stickiness",
    "query_trends",
    "top_features",
]

DAY = timedelta(days=1)
Answer = Any


class Asked(NamedTuple):
    """A question's range, time zone and filters."""

    start: datetime
    end: datetime
    zone: tzinfo
    now: datetime
    service: str | None = None
    environment: str | None = None

    def within(self, events: Iterable[Event], *types: str) -> list[Event]:
        return [
            e
            for e in events
            if self.start <= e.timestamp < self.end
            and (not types or e.event_type in types)
            and self.service in (None, e.service)
            and self.environment in (None, (e.context or {}).get("environment"))
        ]

    def day(self, e: Event) -> date:
        return e.timestamp.astimezone(self.zone).date()

    def week(self, e: Event) -> date:
        return self.day(e) - self.day(e).weekday() * DAY

    def month(self, e: Event) -> date:
        return self.day(e).replace(day=1)

    def hour(self, e: Event) -> datetime:
        local = e.timestamp.astimezone(self.zone)
        return e.timestamp - timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)


def grouped(events: Iterable[Event], key: Callable[[Event], Any]) -> dict[Any, list[Event]]:
    groups: dict[Any, list[Event]] = {}
    for event in events:
        groups.setdefault(key(event), []).append(event)
    return groups


def users(events: Iterable[Event]) -> int:
    return len({e.user_id for e in events if e.user_id is not None})


def amounts(events: Iterable[Event], field: str) -> list[float]:
    return [value for value in (amount(e.data.get(field)) for e in events) if value is not None]


def count(events: Iterable[Event], *types: str, **data: Any) -> int:
    return sum(e.event_type in types and all(e.data.get(k) is v for k, v in data.items()) for e in events)


def statuses(events: Iterable[Event], hundred: int) -> int:
    return sum(hundred <= status <= hundred + 99 for status in amounts(events, "status_code"))


def rate(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def nulls_last(*values: Any) -> tuple[tuple[bool, Any], ...]:
    return tuple((value is None, value or "") for value in values)


def get_overview_stats(events: Sequence[Event], asked: Asked) -> Answer:
    today = asked.now.astimezone(asked.zone).date()
    mine = [e for e in events if asked.service in (None, e.service)]

    def active(days: int) -> int:
        return users(e for e in mine if today - (days - 1) * DAY <= asked.day(e) <= today)

    def things(field: str, *types: str) -> int:
        return len({e.data.get(field) for e in mine if e.event_type in types} - {None})

    tasks = {state: count(mine, f"task_{state}") for state in ("created", "completed", "failed")}
    connected = [e for e in mine if asked.now - DAY <= e.timestamp and e.event_type == "cocoon_connected"]
    return (
        users(mine), active(1), active(7), active(30), tasks["created"],
        count([e for e in mine if asked.day(e) == today], "task_created"),
        rate(tasks["completed"], tasks["completed"] + tasks["failed"]),
        things("cocoon_id", "cocoon_registered", "cocoon_connected"),
        len({e.data.get("cocoon_id") for e in connected} - {None}),
        things("integration_id", "integration_connected"),
    )  # fmt: skip


def get_daily_active_users(events: Sequence[Event], asked: Asked) -> Answer:
    until = [e for e in events if e.timestamp < asked.end and asked.service in (None, e.service)]
    days = grouped(until, asked.day)

    def active(day: date, length: int) -> int:
        return users(e for n in range(length) for e in days.get(day - n * DAY, ()))

    return [
        (day, users(found), len(found), active(day, 7), active(day, 30))
        for day, found in sorted(grouped(asked.within(events), asked.day).items(), reverse=True)
    ]


def get_weekly_active_users(events: Sequence[Event], asked: Asked) -> Answer:
    weeks = grouped(asked.within(events), asked.week)
    return [(week, users(found), len(found)) for week, found in sorted(weeks.items(), reverse=True)]


def get_monthly_active_users(events: Sequence[Event], asked: Asked) -> Answer:
    months = grouped(asked.within(events), asked.month)
    return [(month, users(found), len(found)) for month, found in sorted(months.items())]


STATES = ("task_created", "task_started", "task_completed", "task_failed", "task_cancelled")


def get_task_stats_daily(events: Sequence[Event], asked: Asked) -> Answer:
    rows = []
    for day, found in sorted(grouped(asked.within(events, *STATES), asked.day).items(), reverse=True):
        durations = amounts((e for e in found if e.event_type == "task_completed"), "duration_ms")
        counts = [count(found, state) for state in STATES]
        rows.append(
            (day, *counts, average(durations), percentile(durations, 0.95), rate(counts[2], counts[2] + counts[3]))
        )
    return rows


def get_task_stats_overview(events: Sequence[Event], asked: Asked) -> Answer:
    found = asked.within(events, *STATES)
    created, _, completed, failed, cancelled = [count(found, state) for state in STATES]
    durations = amounts((e for e in found if e.event_type == "task_completed"), "duration_ms")
    return created, completed, failed, cancelled, rate(completed, completed + failed), average(durations)


def _latency(found: Sequence[Event]) -> tuple[Any, ...]:
    durations = amounts(found, "duration_ms")
    return (
        len(found), average(durations), *(percentile(durations, q) for q in (0.5, 0.95, 0.99)),
        statuses(found, 400), statuses(found, 500), statuses(found, 500) / len(found),
    )  # fmt: skip


def get_endpoint_latency(events: Sequence[Event], asked: Asked, bucket: str = "hour") -> Answer:
    label: Any = {"hour": asked.hour, "day": asked.day, "all": lambda e: asked.start}[bucket]
    requests = asked.within(events, "api_request")
    groups = grouped(requests, lambda e: (label(e), e.service, e.data.get("endpoint"), e.data.get("method")))
    rows = [(*key, *_latency(found)) for key, found in groups.items()]
    rows.sort(key=lambda row: (row[1], -row[4], *nulls_last(row[2], row[3])))
    return sorted(rows, key=lambda row: row[0], reverse=True)


def get_latency_series(
    events: Sequence[Event], asked: Asked, bucket: str = "day", endpoint: str | None = None, method: str | None = None
) -> Answer:
    label: Any = {
        "hour": asked.hour, "day": asked.day, "week": asked.week, "month": asked.month, "all": lambda e: asked.start,
    }[bucket]  # fmt: skip
    requests = [
        e
        for e in asked.within(events, "api_request")
        if endpoint in (None, e.data.get("endpoint")) and method in (None, e.data.get("method"))
    ]
    groups = grouped(requests, label)
    every = [asked.start] if bucket == "all" else labels(asked, bucket)
    nothing = (0, None, None, None, None, 0, 0, None)
    return [(one, *(_latency(groups[one]) if one in groups else nothing)) for one in every]


def get_slowest_endpoints(events: Sequence[Event], asked: Asked, min_requests: int = 20, limit: int = 10) -> Answer:
    requests = asked.within(events, "api_request")
    groups = grouped(requests, lambda e: (e.service, e.data.get("endpoint"), e.data.get("method")))
    rows = [
        (asked.start, *key, *_latency(found), math.fsum(amounts(found, "duration_ms")))
        for key, found in groups.items()
        if len(found) >= min_requests
    ]
    return sorted(rows, key=lambda row: -1 if row[8] is None else row[8], reverse=True)[:limit]


def get_apdex(events: Sequence[Event], asked: Asked, threshold_ms: float = 500) -> Answer:
    """Return the least and the greatest that the histogram's error allows, for each endpoint and method."""
    requests = [e for e in asked.within(events, "api_request") if amount(e.data.get("duration_ms")) is not None]
    rows = {}
    for key, found in grouped(requests, lambda e: (e.data.get("endpoint"), e.data.get("method"))).items():
        bounds = []
        for error in (1.02, 0.98):
            scores = []
            for e in found:
                duration = e.data["duration_ms"] * error
                score = 1 if duration <= threshold_ms else 0.5 if duration <= 4 * threshold_ms else 0
                scores.append(0 if statuses([e], 500) else score)
            bounds.append(sum(scores) / len(scores))
        rows[key] = tuple(bounds)
    return rows


def get_api_consumers(events: Sequence[Event], asked: Asked, limit: int = 100) -> Answer:
    requests = [e for e in asked.within(events, "api_request") if e.user_id is not None]
    rows = [
        (
            user, len(found), statuses(found, 400), statuses(found, 500),
            percentile(amounts(found, "duration_ms"), 0.95),
            min(e.timestamp for e in found), max(e.timestamp for e in found),
        )
        for user, found in grouped(requests, lambda e: e.user_id).items()
    ]  # fmt: skip
    return sorted(rows, key=lambda row: (-row[1], row[0]))[:limit]


def get_integration_health(events: Sequence[Event], asked: Asked) -> Answer:
    types = [f"integration_{kind}" for kind in ("connected", "disconnected", "used", "error")]
    rows = []
    for (day, provider), found in grouped(
        asked.within(events, *types), lambda e: (asked.day(e), e.data.get("provider"))
    ).items():
        counts = [count(found, kind) for kind in types]
        rows.append((day, provider, *counts, users(found), rate(counts[3], counts[2])))
    return sorted(rows, key=lambda row: (row[0], *nulls_last(row[1])))


def get_auth_stats(events: Sequence[Event], asked: Asked) -> Answer:
    login, code, token = types = ("auth_login_attempt", "auth_code_verified", "auth_token_refresh")
    rows = []
    for day, found in sorted(grouped(asked.within(events, *types), asked.day).items()):
        attempts, good = count(found, login), count(found, login, success=True)
        successful = [e for e in found if e.data.get("success") is True]
        rows.append(
            (
                day, attempts, good, count(found, login, success=False), count(found, code), count(found, token),
                users(successful), rate(good, attempts),
            )
        )  # fmt: skip
    return rows


def get_cocoon_activity(events: Sequence[Event], asked: Asked) -> Answer:
    types = [f"cocoon_{kind}" for kind in ("registered", "connected", "disconnected", "claimed", "setup_token_used")]
    rows = []
    for day, found in sorted(grouped(asked.within(events, *types), asked.day).items()):
        seconds = amounts((e for e in found if e.event_type == "cocoon_disconnected"), "duration_seconds")
        ids = {e.data.get("cocoon_id") for e in found} - {None}
        rows.append((day, *(count(found, kind) for kind in types[:4]), average(seconds), len(ids)))
    return rows


def first_message(found: Iterable[Event]) -> str:
    return str(min(e.data["error_message"].encode() for e in found).decode())


def get_error_summary(events: Sequence[Event], asked: Asked) -> Answer:
    errors = asked.within(events, "application_error")
    groups = grouped(errors, lambda e: (asked.hour(e), e.service, e.data["error_type"], e.data["fingerprint"]))
    rows = [(*key, len(found), users(found), first_message(found)) for key, found in groups.items()]
    return sorted(rows, key=lambda row: (row[0], row[1], -row[4], row[2], row[3]))


def list_error_groups(events: Sequence[Event], asked: Asked) -> Answer:
    rows = []
    last_day = (asked.end - timedelta(microseconds=1)).astimezone(asked.zone).date()
    first_day = asked.start.astimezone(asked.zone).date()
    days = [first_day + n * DAY for n in range((last_day - first_day).days + 1)]
    for fingerprint, found in grouped(
        asked.within(events, "application_error"), lambda e: e.data["fingerprint"]
    ).items():
        newest = max(found, key=lambda e: (e.timestamp, e.id))
        trend = [sum(asked.day(e) == day for e in found) for day in days]
        rows.append(
            (
                fingerprint, newest.data["error_type"], first_message(found), newest.data["endpoint"], newest.service,
                len(found), users(found), min(e.timestamp for e in found), newest.timestamp, newest.data["handled"],
                trend,
            )
        )  # fmt: skip
    rows.sort(key=lambda row: row[0])
    return sorted(rows, key=lambda row: (row[5], row[8]), reverse=True)


def get_error_group(events: Sequence[Event], asked: Asked, fingerprint: str) -> Answer:
    [row] = [row for row in list_error_groups(events, asked) if row[0] == fingerprint]
    found = [e for e in asked.within(events, "application_error") if e.data["fingerprint"] == fingerprint]
    found.sort(key=lambda e: (e.timestamp, e.id), reverse=True)
    occurrences = [
        (
            e.id, e.timestamp, e.service, e.user_id, e.data["error_message"],
            (e.context or {}).get("request_id"), (e.context or {}).get("trace_id"),
        )
        for e in found[:20]
    ]  # fmt: skip
    return (*row, found[0].data["stack"], occurrences)


def list_slow_queries(events: Sequence[Event], asked: Asked, endpoint: str | None = None) -> Answer:
    queries = [e for e in asked.within(events, "database_query") if endpoint in (None, e.data.get("endpoint"))]
    rows = []
    for fingerprint, found in grouped(queries, lambda e: e.data["fingerprint"]).items():
        durations = amounts(found, "duration_ms")
        one = found[0].data
        rows.append(
            (
                fingerprint, one["query_type"], one["table"], one["statement"], len(found), math.fsum(durations),
                average(durations), percentile(durations, 0.95), sum(e.data["outcome"] != "ok" for e in found),
                sorted({e.data["endpoint"] for e in found if "endpoint" in e.data}),
            )
        )  # fmt: skip
    return sorted(rows, key=lambda row: (-row[5], row[0]))


def list_repeated_queries(events: Sequence[Event], asked: Asked) -> Answer:
    rows = []
    requests = asked.within(events, "api_request")
    for key, found in grouped(requests, lambda e: (e.data.get("endpoint"), e.data.get("method"))).items():
        queries, repeats = amounts(found, "db_queries"), amounts(found, "db_repeats")
        if queries:
            rows.append((*key, len(found), average(queries), max(repeats, default=None)))
    return sorted(rows, key=lambda row: (-(row[4] or 0), -row[3], *nulls_last(row[0], row[1])))


def query_events(events: Sequence[Event], asked: Asked, limit: int = 50) -> Answer:
    found = sorted(asked.within(events), key=lambda e: (e.timestamp, e.id), reverse=True)
    return [e.id for e in found[:limit]], len(found), limit, len(found) > limit


CATEGORIES = {
    "api": "system", "database": "system", "application": "system", "task": "system", "cocoon": "system",
    "webhook": "system", "auth": "activity", "integration": "activity", "oauth": "activity", "project": "transaction",
}  # fmt: skip


def category(event_type: str) -> str:
    return CATEGORIES.get(event_type.partition("_")[0], "interaction")


def query_aggregations(
    events: Sequence[Event],
    asked: Asked,
    aggregation_type: str = "daily",
    event_category: str | None = None,
    event_type: str | None = None,
) -> Answer:
    label: Any = {"hourly": asked.hour, "daily": asked.day, "weekly": asked.week}[aggregation_type]
    found = [
        e
        for e in asked.within(events)
        if event_type in (None, e.event_type) and event_category in (None, category(e.event_type))
    ]
    rows = [
        (bucket, category(kind), kind, (len(group), users(group)))
        for (bucket, kind), group in grouped(found, lambda e: (label(e), e.event_type)).items()
    ]
    return sorted(rows, key=lambda row: (row[0], row[2])), len(found), users(found), (asked.start, asked.end)
