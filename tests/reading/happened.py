"""Random events with all that questions ask of: users, sessions, environments, queries, things and their ids."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from random import Random
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from tests.kit.moments import moments
from tests.kit.sqlite import SqliteConnection
from tests.schema.happenings import TYPES, some_data

EVERY_TYPE = (*TYPES, "api_request", "database_query", "database_query", "database_query", "order_placed")
REQUIRED: dict[str, dict[str, Any]] = {
    "get_error_group": {"fingerprint": "f1"},
    "get_session": {"id": "s1"},
    "get_user_activity": {"user_id": UUID(int=3)},
    "query_funnel": {"steps": ["task_created", "task_completed"]},
    "query_funnel_conversions": {"name": "checkout"},
    "get_funnel": {"name": "checkout"},
    "create_funnel": {"name": "another", "steps": ["task_created"]},
    "delete_funnel": {"name": "another"},
    "query_trends": {"series": ["order_placed"]},
}
"""Arguments of the questions that cannot be asked without."""
ABOUT_WHAT_IS_KEPT = ("list_funnels", "get_funnel", "create_funnel", "delete_funnel", "get_dashboard_metrics",
    "get_realtime_metrics")  # fmt: skip
"""Questions about what is kept, not about events."""
ENDPOINTS = ("/tasks/{id}", "/", "/orders")


class Event(NamedTuple):
    """One row of `analytics_events`."""

    id: UUID
    timestamp: datetime
    event_type: str
    service: str
    user_id: UUID | None
    session_id: str | None
    data: dict[str, Any]
    context: dict[str, Any] | None


def an_event(random: Random, at: datetime, event_type: str | None = None) -> Event:
    """Return one event, now and then with data as somebody with bad habits would write it."""
    kind = event_type or random.choice(EVERY_TYPE)
    data = dict(some_data(random, kind))
    if kind == "api_request" and random.random() < 0.8:
        data |= {"db_queries": random.randrange(20), "db_repeats": random.randrange(9)}
    if kind.startswith("task_") and random.random() < 0.9:
        data["task_id"] = str(UUID(int=random.randrange(5)))
    if kind.startswith("integration_"):
        data["integration_id"] = str(UUID(int=100 + random.randrange(5)))
    if kind == "application_error":
        data |= {"handled": random.random() < 0.5, "endpoint": random.choice(ENDPOINTS)}
        data["stack"] = [{"file": "shop.py", "line": random.randrange(90), "function": "buy"}]
    if kind == "database_query":
        number = random.randrange(4)
        data |= {
            "query_type": ("SELECT", "INSERT", "UPDATE", "DELETE")[number],
            "table": f"table{number}",
            "statement": f"statement {number}",
            "fingerprint": f"q{number}",
            "duration_ms": random.choice([0, round(random.lognormvariate(1, 1), 3), "slow"]),
            "outcome": random.choice(["ok", "ok", "error", "timeout"]),
        }
        if random.random() < 0.8:
            data["endpoint"] = random.choice(ENDPOINTS)
    context: dict[str, Any] | None = {
        "environment": random.choice(["production", "staging"]),
        "trace_id": f"{random.randrange(20):032x}",
        "request_id": f"r{random.randrange(50)}",
    }
    return Event(
        id=UUID(int=random.getrandbits(128), version=4),
        timestamp=at,
        event_type=kind,
        service=random.choice(["shop", "shop", "billing"]),
        user_id=None if random.random() < 0.2 else UUID(int=1 + random.randrange(12)),
        session_id=random.choice([None, "s1", "s2"]),
        data=data,
        context=context if random.random() < 0.9 else None,
    )


def random_events(random: Random, number: int, since: datetime, until: datetime) -> list[Event]:
    """Return events of all types, many at the ends of hours, quarter hours and days, and several at one instant."""
    moment = moments(random, since, until)
    events: list[Event] = []
    for _ in range(number):
        at = moment()
        if random.random() < 0.3:
            edge = at.replace(minute=random.choice([0, 15, 30, 45]), second=0, microsecond=0)
            edge = edge.replace(hour=0) if random.random() < 0.3 else edge
            at = min(max(since, edge + random.choice([timedelta(0), timedelta(microseconds=-1)])), until)
        if events and random.random() < 0.1:
            at = random.choice(events).timestamp
        events.append(an_event(random, at))
    return events


def order_events(random: Random, number: int, since: datetime, until: datetime) -> list[Event]:
    """Return orders and page views whose data holds whatever a filter may meet."""
    plans: list[Any] = ["pro", "pro", "free", "other", "5", 5, True, None, "'; DROP TABLE analytics_events; --"]
    amounts: list[Any] = [-7, -0.5, 0, 2, 2.5, 1e6, "2", None, True, [], random.randrange(-50, 50)]
    events: list[Event] = []
    for event in random_events(random, number, since, until):
        data = {
            "plan": random.choice(plans),
            "amount": random.choice(amounts),
            "nested": random.choice([{"amount": random.randrange(9)}, {}, 3, None]),
            "tags": random.choice([["a", "b"], ["b"], []]),
            'it\'s "quoted"': random.choice(["\\'\"", "x", 1]),
            "'; DROP TABLE analytics_events; --": random.choice(plans),
        }
        data = {key: value for key, value in data.items() if random.random() < 0.8}
        events.append(
            event._replace(event_type=random.choice(["order_placed", "order_placed", "page_view"]), data=data)
        )
    return events


async def insert(connection: asyncpg.Connection | SqliteConnection, events: Iterable[Event]) -> None:
    if isinstance(connection, SqliteConnection):
        connection.insert_events(
            (*event[:6], json.dumps(event.data), None if event.context is None else json.dumps(event.context))
            for event in events
        )
        return
    columns = [list(column) for column in zip(*events, strict=True)]
    columns[6] = [json.dumps(data) for data in columns[6]]
    columns[7] = [None if context is None else json.dumps(context) for context in columns[7]]
    await connection.execute(
        "INSERT INTO analytics_events (id, timestamp, event_type, service, user_id, session_id, data, context)"
        " SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::text[], $5::uuid[], $6::text[],"
        " $7::jsonb[], $8::jsonb[])",
        *columns,
    )
