"""Random events as they lie in the table, and ways to put them there and to look at the views."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from tests.kit.databases import Database
from tests.kit.moments import moments

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


class Happened(NamedTuple):
    """One row of `analytics_events`."""

    id: UUID
    timestamp: datetime
    event_type: str
    service: str
    user_id: UUID | None
    data: dict[str, Any]


def now() -> datetime:
    return datetime.now(UTC)


def midnight(days_ago: int) -> datetime:
    """Return the beginning of a UTC day."""
    return now().replace(hour=0, minute=0, second=0, microsecond=0) - days_ago * DAY


def happened(
    random: Random, at: datetime, event_type: str, user: int | None = None, service: str = "shop", **data: Any
) -> Happened:
    user_id = None if user is None else UUID(int=user + 1)
    return Happened(UUID(int=random.getrandbits(128), version=4), at, event_type, service, user_id, data)


def tasks(random: Random, *at: datetime) -> list[Happened]:
    """Return one `task_created` of one user per moment."""
    return [happened(random, moment, "task_created", user=1) for moment in at]


def some_data(random: Random, event_type: str) -> dict[str, Any]:
    """Return data as the event of this type has it; now and then as a careless application would write it."""
    wrong = random.random() < 0.05
    duration: Any = random.choice([0, round(random.lognormvariate(3, 2), 3), random.randrange(5), 1e12])
    if wrong:
        duration = random.choice(["12", None, [1], {"a": 1}, -5, 1e200, True])
    success: Any = random.choice(["yes", 1, None, {}]) if wrong else random.random() < 0.7
    fields: dict[str, dict[str, Any]] = {
        "api_request": {
            "method": random.choice(["GET", "POST", "WEBSOCKET"]),
            "status_code": "500" if wrong else random.choice([101, 200, 399, 400, 404, 499, 500, 503, 599]),
            "duration_ms": duration,
            "db_queries": random.choice([0, 3, "3" if wrong else 7]),
            "db_repeats": random.randrange(3),
        },
        "database_query": {
            "fingerprint": random.choice(["q1", "q2"]),
            "endpoint": random.choice(["/tasks/{id}", "/"]),
            "duration_ms": duration,
            "outcome": random.choice(["ok", "ok", "error", "timeout"]),
        },
        "task_completed": {"duration_ms": duration, "exit_code": 0},
        "task_failed": {"duration_ms": duration, "error": "x"},
        "application_error": {
            "error_type": random.choice(["ValueError", "shop.errors.Broken"]),
            "error_message": random.choice(["a", "B", "ä", "Z", ""]),
            "fingerprint": random.choice(["f1", "f2"]),
        },
        "cocoon_disconnected": {"duration_seconds": duration},
    }
    data = fields.get(event_type, {})
    if event_type == "api_request" and random.random() < 0.7:
        data["endpoint"] = random.choice(["/tasks/{id}", "/"])
    if event_type.startswith("auth_"):
        data["success"] = success
    if event_type.startswith("integration_") and not wrong:
        data["provider"] = random.choice(["github", "slack"])
        data["integration_id"] = str(UUID(int=random.randrange(4)))
    if event_type.startswith("cocoon_") and event_type != "cocoon_setup_token_created" and not wrong:
        data["cocoon_id"] = str(UUID(int=random.randrange(4)))
    return data


TYPES = (
    "api_request", "api_request", "api_request", "api_request", "application_error", "application_error",
    "database_query", "database_query",
    "task_created", "task_started", "task_completed", "task_completed", "task_failed", "task_cancelled",
    "auth_login_attempt", "auth_code_verified", "auth_token_refresh", "auth_session_validated",
    "integration_connected", "integration_disconnected", "integration_used", "integration_error",
    "cocoon_registered", "cocoon_connected", "cocoon_disconnected", "cocoon_claimed",
    "cocoon_setup_token_created", "cocoon_setup_token_used", "page_viewed",
)  # fmt: skip


def some_events(random: Random, number: int, since: datetime, until: datetime) -> list[Happened]:
    """Return events of all types, many of them close together, and at the ends of hours and days."""
    moment = moments(random, since, until)
    events = []
    for _ in range(number):
        at = moment()
        if random.random() < 0.2:
            edge = at.replace(minute=0, second=0, microsecond=0)
            edge = edge.replace(hour=0) if random.random() < 0.5 else edge
            at = max(since, edge + random.choice([timedelta(0), timedelta(microseconds=-1)]))
        event_type = random.choice(TYPES)
        user = None if random.random() < 0.2 else random.randrange(12)
        service = random.choice(["shop", "shop", "billing"])
        event = happened(random, at, event_type, user, service)
        events.append(event._replace(data=some_data(random, event_type)))
    return events


async def insert(connection: asyncpg.Connection, events: Iterable[Happened]) -> None:
    columns = [list(column) for column in zip(*events, strict=True)]
    columns[5] = [json.dumps(data) for data in columns[5]]
    await connection.execute(
        "INSERT INTO analytics_events (id, timestamp, event_type, service, user_id, data)"
        " SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::text[], $5::uuid[], $6::jsonb[])"
        " ON CONFLICT (timestamp, id) DO NOTHING",
        *columns,
    )


async def rows(connection: asyncpg.Connection, view: str) -> list[dict[str, Any]]:
    """Return the rows of a view, in an order that is the same for equal rows."""
    found = [dict(row) for row in await connection.fetch(f"SELECT * FROM {view}")]
    return in_order(found)


def in_order(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(found, key=lambda row: [(value is None, str(value)) for value in row.values()])


async def views(connection: asyncpg.Connection) -> list[str]:
    """Return the names of all views of events, but those of what is computed of one."""
    sql = (
        "SELECT c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE n.nspname = current_schema() AND c.relkind = 'v' AND c.relname LIKE 'analytics%'"
        r" AND c.relname NOT LIKE '%\_filled'"  # what is stored of a view is none
        r" AND c.relname NOT LIKE 'analytics\_metric%' AND c.relname <> 'analytics_dashboard_metrics'"
        r" AND c.relname NOT LIKE 'analytics\_export\_%'"
        " ORDER BY c.relname"
    )
    return [str(row["relname"]) for row in await connection.fetch(sql)]


async def all_rows(connection: asyncpg.Connection) -> dict[str, list[dict[str, Any]]]:
    return {view: await rows(connection, view) for view in await views(connection)}


async def keep_fresh(connection: asyncpg.Connection, database: Database) -> None:
    """Do what happens by itself within a day: on TimescaleDB all its jobs, on plain PostgreSQL the hourly upkeep."""
    if database.flavour == "postgresql":
        assert await connection.fetchval("SELECT analytics_upkeep()")
        await drop_old(connection)
        return
    for (job,) in await connection.fetch("SELECT job_id FROM timescaledb_information.jobs WHERE job_id >= 1000"):
        await connection.execute(f"CALL run_job({job})")


async def drop_old(connection: asyncpg.Connection) -> None:
    """Do all steps of dropping what is over, as the worker does."""
    while await connection.fetchval("SELECT analytics_drop_old()"):
        pass


async def keep(connection: asyncpg.Connection, **days: float) -> None:
    """Change for how many days rows are kept, by category."""
    for category, number in days.items():
        sql = "UPDATE analytics_retention SET keep = $2 WHERE category = $1"
        assert await connection.execute(sql, category, timedelta(days=number)) == "UPDATE 1"


async def keep_all(connection: asyncpg.Connection, retention: timedelta) -> None:
    """Change for how long rows of all categories are kept."""
    await connection.execute("UPDATE analytics_retention SET keep = $1", retention)


async def pending(connection: asyncpg.Connection, began: datetime) -> list[asyncpg.Record]:
    """Return the ranges that are not filled and could have been when the test began: an hour may have passed since."""
    return list(await connection.fetch("SELECT * FROM analytics_pending() WHERE window_end <= $1", began - HOUR))


async def compress(connection: asyncpg.Connection, database: Database) -> None:
    """Turn the chunks of complete days into columns, on TimescaleDB."""
    if database.flavour == "timescaledb":
        chunks = "SELECT compress_chunk(c) FROM show_chunks('analytics_events', older_than => now()) AS c"
        assert await connection.fetch(chunks)


async def lose(connection: asyncpg.Connection, database: Database, older_than: datetime) -> None:
    """Drop raw events by hand, chunk by chunk or partition by partition."""
    if database.flavour == "timescaledb":
        await connection.fetch("SELECT drop_chunks('analytics_events', older_than => $1::timestamptz)", older_than)
        return
    sql = "SELECT partition::text FROM analytics_partitions() WHERE day < $1"
    for (partition,) in await connection.fetch(sql, older_than):
        await connection.execute(f"DROP TABLE {partition}")
