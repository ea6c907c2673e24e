"""How fast the seven views answer over millions of events, and how much the columnstore saves.

The server makes the events itself: five million over sixty days, of the types and sizes of a web shop with 20,000
users, of whom 5,000 come on one day, 40 endpoints and random trace ids, more by day than by night. Then `post` computes
the aggregates, and each view is read as a dashboard does: the last 30 days, all rows, to the client. The exact
percentile_cont over the raw events stands beside the one from the histogram.

Run: python benchmarks/aggregates.py [--events 5000000] [--flavour timescaledb|postgresql]
Needs: a TimescaleDB that the tests would find, else the embedded PostgreSQL; 4 GB of disk, and some minutes
Goals: every view under 1 s for 30 days; the columnstore saves at least 80 %; a percentile of 30 days under 1 s and
within 2 % of the exact one.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg

sys.path.insert(0, str(Path(__file__).parent.parent))

from asgi_analytics.migrate.refresh import refresh
from asgi_analytics.migrate.runner import migrate
from tests.servers import Servers

SETTINGS = {
    "shared_buffers": "1GB", "work_mem": "64MB", "maintenance_work_mem": "256MB", "max_wal_size": "8GB", "jit": "off",
    "autovacuum": "on",
}  # fmt: skip

# One day: $1 its midnight, $2 how many events, $3 from which number on its users are. Every random number is drawn once
# a row, below.
EVENTS = """
INSERT INTO analytics_events (id, timestamp, event_type, service, user_id, session_id, data, context)
SELECT
    gen_random_uuid(),
    least($1::timestamptz + INTERVAL '1 day' * at, now()),
    kind,
    CASE WHEN r1 < 0.7 THEN 'shop' WHEN r1 < 0.9 THEN 'billing' ELSE 'search' END,
    CASE WHEN r2 < 0.8 THEN md5('user' || ($3 + floor(5000 * r3 ^ 1.5)::integer) % 20000)::uuid END,
    CASE WHEN r2 < 0.8 THEN 'session-' || floor(100000 * r4) END,
    jsonb_strip_nulls(CASE kind
        WHEN 'api_request' THEN jsonb_build_object(
            'method', CASE WHEN r1 < 0.6 THEN 'GET' WHEN r1 < 0.9 THEN 'POST' ELSE 'DELETE' END,
            'endpoint', CASE WHEN r4 > 0.02 THEN '/api/v1/resource' || floor(40 * r4 ^ 2) || '/{id}' END,
            'status_code', CASE WHEN r2 < 0.93 THEN 200 WHEN r2 < 0.99 THEN 404 ELSE 500 END,
            'duration_ms', round((exp(2.5 + 1.4 * normal))::numeric, 3),
            'ttfb_ms', round((exp(2 + 1.2 * normal))::numeric, 3),
            'response_bytes', floor(20000 * r3 ^ 3), 'outcome', 'ok',
            'db_queries', floor(6 * r4), 'db_duration_ms', round((exp(1 + normal))::numeric, 3), 'db_repeats', 1)
        WHEN 'database_query' THEN jsonb_build_object(
            'query_type', CASE WHEN r1 < 0.8 THEN 'SELECT' ELSE 'UPDATE' END, 'table', 'orders',
            'statement', 'SELECT id, name, price FROM orders WHERE id = $1 AND state = $2 LIMIT ' || floor(20 * r3),
            'fingerprint', left(md5(floor(20 * r3)::text), 16), 'duration_ms', round((exp(normal))::numeric, 3),
            'rows_affected', floor(50 * r4), 'outcome', 'ok', 'endpoint', '/api/v1/resource' || floor(40 * r4 ^ 2))
        WHEN 'application_error' THEN jsonb_build_object(
            'error_type', 'shop.errors.Error' || floor(15 * r3), 'error_message', 'no such order: ' || floor(1e6 * r4),
            'fingerprint', left(md5(floor(60 * r3)::text), 16), 'handled', r1 < 0.5, 'stack', '[]'::jsonb)
        WHEN 'task_completed' THEN jsonb_build_object(
            'task_id', gen_random_uuid(), 'duration_ms', floor(exp(8 + normal)), 'exit_code', 0)
        WHEN 'task_created' THEN jsonb_build_object('task_id', gen_random_uuid(), 'command', 'build')
        WHEN 'auth_login_attempt' THEN jsonb_build_object('email', md5(r3::text), 'success', r1 < 0.8)
        WHEN 'integration_used' THEN jsonb_build_object(
            'integration_id', md5(floor(900 * r3)::text)::uuid, 'action', 'sync',
            'provider', CASE WHEN r1 < 0.5 THEN 'github' WHEN r1 < 0.8 THEN 'slack' ELSE 'jira' END)
        ELSE jsonb_build_object(
            'cocoon_id', md5(floor(3000 * r3)::text)::uuid, 'duration_seconds', floor(exp(5 + normal)))
    END),
    jsonb_build_object(
        'trace_id', md5(r3::text), 'span_id', left(md5(r4::text), 16), 'hostname', 'web-' || floor(4 * r1),
        'environment', 'production')
FROM (
    SELECT
        (abs(0.5 + 0.2 * random_normal()))::numeric % 1 AS at,
        random() AS r1, random() AS r2, random() AS r3, random() AS r4, random_normal() AS normal,
        (ARRAY['api_request', 'api_request', 'api_request', 'api_request', 'api_request', 'database_query',
            'database_query', 'database_query', 'application_error', 'task_created', 'task_completed',
            'auth_login_attempt', 'integration_used', 'cocoon_disconnected'])[1 + floor(14 * random())] AS kind
    FROM generate_series(1, $2)
) AS drawn
ORDER BY 2
"""
VIEWS = {
    "analytics_daily_active_users": "day",
    "analytics_task_stats_daily": "day",
    "analytics_api_latency_hourly": "hour",
    "analytics_integration_health_daily": "day",
    "analytics_auth_events_daily": "day",
    "analytics_cocoon_activity_daily": "day",
    "analytics_errors_hourly": "hour",
}
EXACT = """
SELECT percentile_cont($1::float8[]) WITHIN GROUP (ORDER BY (data ->> 'duration_ms')::float8)
FROM analytics_events
WHERE event_type = 'api_request' AND timestamp >= date_bin('1 hour', $2, '2000-01-01Z')
"""
QUANTILES = [0.5, 0.9, 0.95, 0.99, 0.999]


async def timed(connection: asyncpg.Connection, sql: str, *arguments: Any, repeat: int = 5) -> tuple[float, list[Any]]:
    """Return the median of the milliseconds, and the rows."""
    times = []
    found: list[Any] = []
    for _ in range(repeat):
        started = time.perf_counter()
        found = await connection.fetch(sql, *arguments, timeout=600)
        times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times), found


async def measure(dsn: str, events: int, days: int) -> None:
    report = await migrate(dsn, phase="pre")
    connection = await asyncpg.connect(dsn, command_timeout=3600)
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    started = time.perf_counter()
    for n in range(days - 1, -1, -1):
        await connection.execute(EVENTS, midnight - timedelta(days=n), events // days, 400 * n)
    print(f"{events:,} events of {days} days made in {time.perf_counter() - started:.0f} s", flush=True)
    await connection.execute("VACUUM ANALYZE analytics_events")

    started = time.perf_counter()
    await migrate(dsn)
    print(f"post, with all history: {time.perf_counter() - started:.1f} s", flush=True)
    started = time.perf_counter()
    await refresh(connection)
    print(f"refresh with nothing to do: {(time.perf_counter() - started) * 1000:.0f} ms")
    await connection.execute(
        "INSERT INTO analytics_events SELECT gen_random_uuid(), now() - n * INTERVAL '5 days', 'api_request', 'shop',"
        ' NULL, NULL, \'{"duration_ms": 1, "status_code": 200}\' FROM generate_series(1, 10) AS n'
    )
    started = time.perf_counter()
    await refresh(connection)
    print(f"refresh of ten late events on ten days: {(time.perf_counter() - started) * 1000:.0f} ms\n", flush=True)
    if report.flavour == "timescaledb":
        await compress(connection)

    since = datetime.now(UTC) - timedelta(days=30)
    print("| what, of the last 30 days | rows | ms | goal |\n|---|---|---|---|")
    for view, bucket in VIEWS.items():
        ms, found = await timed(connection, f"SELECT * FROM {view} WHERE {bucket} >= $1", since)
        print(f"| {view} | {len(found):,} | {ms:.0f} | {'met' if ms < 1000 else 'MISSED'} |", flush=True)
    sql = "SELECT * FROM analytics_active_users($1, 'infinity')"
    ms, found = await timed(connection, sql, since)
    print(f"| analytics_active_users(since, until) | {len(found):,} | {ms:.0f} | |")
    sql = "SELECT analytics_latency_quantile($1, $2, 'infinity')"
    ms, _ = await timed(connection, sql, 0.95, since)
    print(f"| analytics_latency_quantile | 1 | {ms:.0f} | {'met' if ms < 1000 else 'MISSED'} |")
    ms, [[exact]] = await timed(connection, EXACT, QUANTILES, since, repeat=1)
    print(f"| percentile_cont over the raw events | 1 | {ms:.0f} | |\n", flush=True)
    print("| q | histogram, ms | exact, ms | relative error |\n|---|---|---|---|")
    for q, wanted in zip(QUANTILES, exact, strict=True):
        found_value = await connection.fetchval(sql, q, since)
        print(f"| {q} | {found_value:.3f} | {wanted:.3f} | {abs(found_value / wanted - 1) * 100:.2f} % |")
    await connection.close()


async def compress(connection: asyncpg.Connection) -> None:
    [job] = await connection.fetchrow(
        "SELECT job_id FROM timescaledb_information.jobs"
        " WHERE proc_name = 'policy_compression' AND hypertable_name = 'analytics_events'"
    )
    started = time.perf_counter()
    await connection.execute(f"CALL run_job({job})")
    took = time.perf_counter() - started
    before, after = await connection.fetchrow(
        "SELECT before_compression_total_bytes, after_compression_total_bytes"
        " FROM hypertable_columnstore_stats('analytics_events')"
    )
    saved = 100 * (1 - after / before)
    print(f"columnstore: {before / 1e6:,.0f} MB to {after / 1e6:,.0f} MB in {took:.0f} s, indexes included:")
    print(f"saves {saved:.1f} %, {'met' if saved >= 80 else 'MISSED'}")
    heap = await connection.fetchrow(
        "SELECT before_compression_table_bytes, after_compression_table_bytes + after_compression_toast_bytes"
        " FROM hypertable_columnstore_stats('analytics_events')"
    )
    print(f"without indexes {100 * (1 - heap[1] / heap[0]):.1f} %\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--days", type=int, default=60)
    parser.add_argument("--flavour")
    options = parser.parse_args()
    servers = Servers()
    try:
        cluster = servers.private(options.flavour or servers.available[-1], SETTINGS)
        print(f"CPython {sys.version.split()[0]}, {cluster.version}")
        asyncio.run(measure(cluster.dsn(cluster.create()), options.events, options.days))
    finally:
        servers.close()


if __name__ == "__main__":
    main()
