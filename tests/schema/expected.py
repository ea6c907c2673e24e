"""What the views must say, computed once more, in Python and as simply as possible.

One function per view, of the same name, here or in `expected_requests.py`: no more is needed to test an aggregate. A
test fails for a view without one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from tests.kit.sessions import CAPTURED, Session, hash_of, inner, key_of, sessions
from tests.schema import expected_requests
from tests.schema.happenings import Happened, in_order
from tests.schema.measures import (
    Rows,
    amounts,
    average,
    count,
    day_of,
    grouped,
    half_hour_of,
    hour_of,
    percentile,
    quarter_of,
    total,
    users,
)


def analytics_daily_active_users(events: Sequence[Happened]) -> Rows:
    days = grouped(events, lambda e: (day_of(e),))

    def active(day: datetime, length: int) -> int:
        return users(e for n in range(length) for e in days.get((day - timedelta(days=n),), ()))

    return [
        {
            "day": day,
            "active_users": active(day, 1),
            "weekly_active_users": active(day, 7),
            "monthly_active_users": active(day, 30),
            "total_events": len(of_day),
        }
        for (day,), of_day in days.items()
    ]


def analytics_task_stats_daily(events: Sequence[Happened]) -> Rows:
    states = ("created", "started", "completed", "failed", "cancelled")
    tasks = [e for e in events if e.event_type in [f"task_{state}" for state in states]]
    rows = []
    for (day,), of_day in grouped(tasks, lambda e: (day_of(e),)).items():
        durations = amounts((e for e in of_day if e.event_type == "task_completed"), "duration_ms")
        counts = {state: count(of_day, f"task_{state}") for state in states}
        rows.append(
            {
                "day": day,
                **counts,
                "avg_duration_ms": average(durations),
                "p95_duration_ms": percentile(durations, 0.95),
            }
        )
    return rows


def analytics_integration_health_daily(events: Sequence[Happened]) -> Rows:
    types = ("integration_connected", "integration_disconnected", "integration_used", "integration_error")
    known = [e for e in events if e.event_type in types]
    return [
        {
            "day": day,
            "provider": provider,
            "connections": count(group, types[0]),
            "disconnections": count(group, types[1]),
            "uses": count(group, types[2]),
            "errors": count(group, types[3]),
            "unique_users": users(group),
        }
        for (day, provider), group in grouped(known, lambda e: (day_of(e), e.data.get("provider"))).items()
    ]


def analytics_auth_events_daily(events: Sequence[Happened]) -> Rows:
    types = ("auth_login_attempt", "auth_code_verified", "auth_token_refresh")
    known = [e for e in events if e.event_type in types]
    return [
        {
            "day": day,
            "login_attempts": count(group, types[0]),
            "successful_logins": count(group, types[0], success=True),
            "failed_logins": count(group, types[0], success=False),
            "code_verifications": count(group, types[1]),
            "token_refreshes": count(group, types[2]),
            "unique_users_authenticated": users(e for e in group if e.data.get("success") is True),
        }
        for (day,), group in grouped(known, lambda e: (day_of(e),)).items()
    ]


def analytics_cocoon_activity_daily(events: Sequence[Happened]) -> Rows:
    types = ("cocoon_registered", "cocoon_connected", "cocoon_disconnected", "cocoon_claimed")
    known = [e for e in events if e.event_type in (*types, "cocoon_setup_token_used")]
    return [
        {
            "day": day,
            "registrations": count(group, types[0]),
            "connections": count(group, types[1]),
            "disconnections": count(group, types[2]),
            "claims": count(group, types[3]),
            "avg_session_duration_seconds": average(
                amounts((e for e in group if e.event_type == "cocoon_disconnected"), "duration_seconds")
            ),
            "unique_cocoons": len({e.data["cocoon_id"] for e in group if "cocoon_id" in e.data}),
        }
        for (day,), group in grouped(known, lambda e: (day_of(e),)).items()
    ]


def analytics_errors_hourly(events: Sequence[Happened]) -> Rows:
    known = [e for e in events if e.event_type == "application_error"]

    def key(event: Happened) -> tuple[Any, ...]:
        return hour_of(event), event.service, event.data.get("error_type"), event.data.get("fingerprint")

    return [
        {
            "hour": hour,
            "service": service,
            "error_type": error_type,
            "fingerprint": fingerprint,
            "error_count": len(group),
            "affected_users": users(group),
            "sample_error_message": min(e.data["error_message"].encode() for e in group).decode(),
        }
        for (hour, service, error_type, fingerprint), group in grouped(known, key).items()
    ]


def analytics_user_days(events: Sequence[Happened]) -> Rows:
    return [
        {"day": day, "user_id": user_id, "events": len(group)}
        for (day, user_id), group in grouped(events, lambda e: (day_of(e), e.user_id)).items()
    ]


def analytics_user_quarters(events: Sequence[Happened]) -> Rows:
    groups = grouped(events, lambda e: (quarter_of(e), e.service, e.user_id))
    return [
        {"quarter": quarter, "service": service, "user_id": user_id, "events": len(group)}
        for (quarter, service, user_id), group in groups.items()
    ]


def analytics_type_quarters(events: Sequence[Happened]) -> Rows:
    rows = []
    groups = grouped(events, lambda e: (quarter_of(e), e.service, e.event_type))
    for (quarter, service, event_type), group in groups.items():
        durations = amounts(group, "duration_ms")
        rows.append(
            {
                "quarter": quarter,
                "service": service,
                "event_type": event_type,
                "events": len(group),
                "measured": len(durations),
                "duration_ms": total(durations),
                "succeeded": count(group, event_type, success=True),
                "failed": count(group, event_type, success=False),
            }
        )
    return rows


def analytics_user_types_daily(events: Sequence[Happened]) -> Rows:
    groups = grouped(events, lambda e: (day_of(e), e.service, e.event_type, e.user_id))
    return [
        {"day": day, "service": service, "event_type": event_type, "user_id": user_id, "events": len(group)}
        for (day, service, event_type, user_id), group in groups.items()
    ]


def analytics_type_days(events: Sequence[Happened]) -> Rows:
    return [
        {"day": day, "event_type": event_type, "events": len(group), "unique_users": users(group)}
        for (day, event_type), group in grouped(events, lambda e: (day_of(e), e.event_type)).items()
    ]


def analytics_service_type_days(events: Sequence[Happened]) -> Rows:
    return [
        {"day": day, "service": service, "event_type": event_type, "events": len(group), "unique_users": users(group)}
        for (day, service, event_type), group in grouped(events, lambda e: (day_of(e), e.service, e.event_type)).items()
    ]


def analytics_things_daily(events: Sequence[Happened]) -> Rows:
    types = ("cocoon_registered", "cocoon_connected", "integration_connected")
    known = [e for e in events if e.event_type in types]

    def key(event: Happened) -> tuple[Any, ...]:
        thing = event.data.get("cocoon_id", event.data.get("integration_id"))
        return day_of(event), event.service, event.event_type, thing

    return [
        {"day": day, "service": service, "event_type": event_type, "thing_id": thing_id, "events": len(group)}
        for (day, service, event_type, thing_id), group in grouped(known, key).items()
    ]


def analytics_page_visitors_daily(events: Sequence[Happened]) -> Rows:
    def key(event: Happened) -> tuple[Any, ...]:
        who = inner(event, "visitor") if event.user_id is None else str(event.user_id)
        return day_of(event), event.service, event.data["page"], hash_of(who)

    known = [e for e in events if e.event_type in ("page_view", "page_engaged") and e.data.get("page") is not None]
    rows = []
    for (day, service, page, who), group in grouped(known, key).items():
        visible = amounts((e for e in group if e.event_type == "page_engaged"), "visible_ms")
        rows.append(
            {
                "day": day,
                "service": service,
                "page": page,
                "who": who,
                "page_views": count(group, "page_view"),
                "measured": len(visible),
                "visible_ms": total(visible),
            }
        )
    return rows


def analytics_session_parts(events: Sequence[Happened]) -> Rows:
    """Return the parts of the sessions of these events, whose only key is the user, and which have no page views."""
    known = [e for e in events if key_of(e)[0] is not None and e.event_type not in CAPTURED]
    rows = []
    for (bucket, key, given), part in grouped(known, lambda e: (half_hour_of(e), *key_of(e))).items():
        part.sort(key=lambda e: (e.timestamp, e.id))
        rows.append(
            {
                "bucket": bucket,
                "key": key,
                "given": given,
                "first_at": part[0].timestamp,
                "last_at": part[-1].timestamp,
                "started_at": part[0].timestamp,
                "events": len(part),
                "page_views": 0,
                "user_id": part[-1].user_id,
                "visitor": None,
                "origin": [[part[0].service, None]],
                **dict.fromkeys(("client", "entry", "exit_page", "engaged_at", "engaged_ms")),
            }
        )
    return rows


def analytics_session_rows(events: Sequence[Happened]) -> Rows:
    def row(session: Session) -> dict[str, Any]:
        known = session.row()
        columns = (
            "key given first_at ended_at started_at id user_id visitor event_count page_views visible_ms service "
            "environment device_type browser os country city referrer channel utm_source utm_medium utm_campaign "
            "landing_page exit_page duration_ms is_bounce who"
        )
        known |= {
            "key": session.key,
            "given": session.given,
            "first_at": session.started_at,
            "visible_ms": session.visible_ms,
            "service": session.service,
            "environment": session.environment,
            "who": hash_of(session.who),
        }
        return {column: known[column] for column in columns.split()}

    return [row(session) for session in sessions(events)]


def analytics_sessions(events: Sequence[Happened]) -> Rows:
    return [session.row() for session in sessions(events)]


FUNCTIONS: dict[str, Callable[[Sequence[Happened]], Rows]] = {
    name: function for name, function in (vars(expected_requests) | globals()).items() if name.startswith("analytics_")
}
VIEWS = tuple(FUNCTIONS)


def expected(events: Sequence[Happened]) -> dict[str, Rows]:
    """Return the rows of every view."""
    return {view: in_order(function(events)) for view, function in FUNCTIONS.items()}


def assert_same(found: dict[str, Rows], wanted: dict[str, Rows]) -> None:
    """Compare views row by row and column by column; sums of floats may differ in their last digits."""
    for view, rows in wanted.items():
        assert len(found[view]) == len(rows), view
        for mine, theirs in zip(found[view], rows, strict=True):
            assert list(mine) == list(theirs), view
            for column, value in theirs.items():
                if isinstance(value, float) and mine[column] is not None:
                    assert math.isclose(mine[column], value, rel_tol=1e-9), (view, column, mine, theirs)
                else:
                    assert mine[column] == value, (view, column, mine, theirs)
