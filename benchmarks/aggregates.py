"""How fast the questions are answered over five million events, and what they weigh.

Fills the migrated table with realistic events of 60 days, made by the server, lets `analytics-migrate refresh` (on
TimescaleDB: the aggregates' refresh) do its work, and times each of the seven views over 30 days, the latency quantile
and the same question asked of the raw rows. On TimescaleDB it compresses the chunks and says what that saves.

Run: python benchmarks/aggregates.py [--events 5000000] [--database timescaledb|postgresql]
Needs: a TimescaleDB that the tests would find, else the embedded PostgreSQL; four gigabytes of disk
Goals: every view under one second for 30 days; the columnstore saves at least 80 %.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import asyncpg

sys.path.insert(0, str(Path(__file__).parent.parent))

from asgi_analytics.admin.refresh import refresh_views
from asgi_analytics.migrate.runner import migrate
from benchmarks.goals import at_least, at_most
from tests.kit.servers import Servers

SETTINGS = {
    "fsync": "off", "shared_buffers": "2GB", "work_mem": "64MB", "maintenance_work_mem": "512MB",
    "max_wal_size": "8GB", "autovacuum": "on", "max_parallel_workers_per_gather": "1",
}  # fmt: skip

DAYS = 60

# Four in ten are requests, and four events share a request and its trace; a user comes for a session of about thirty
# events; users and endpoints follow a power law; ids are random, as real ones are. Time falls evenly over the days: the
# worst case for aggregates.
FILL = """
INSERT INTO analytics_events (id, timestamp, event_type, service, user_id, data, context)
SELECT
    gen_random_uuid(),
    $1::timestamptz + make_interval(secs => i * $2::float8),
    kind,
    CASE WHEN i % 5 = 0 THEN 'billing' ELSE 'shop' END,
    CASE WHEN i % 4 = 0 THEN NULL ELSE ('00000000-0000-7000-8000-' || lpad(usr::text, 12, '0'))::uuid END,
    CASE kind
        WHEN 'api_request' THEN jsonb_build_object(
            'method', CASE WHEN endpoint % 3 = 0 THEN 'POST' ELSE 'GET' END,
            'endpoint', '/area' || endpoint % 7 || '/{id}/item' || endpoint,
            'status_code', CASE WHEN r < 0.03 THEN 404 WHEN r < 0.04 THEN 500 ELSE 200 END,
            'duration_ms', round((exp(2 + 1.2 * ln(1 / (r + 0.001))) / 3)::numeric, 3),
            'ttfb_ms', round((r * 10)::numeric, 3), 'response_bytes', (r * 20000)::int, 'outcome', 'ok')
        WHEN 'database_query' THEN jsonb_build_object(
            'query_type', 'SELECT', 'table', 'orders', 'statement', 'SELECT * FROM orders WHERE id = $1',
            'fingerprint', md5((i % 50)::text), 'duration_ms', round((r * 9)::numeric, 3), 'rows_affected', 1,
            'outcome', 'ok')
        WHEN 'task_completed' THEN jsonb_build_object(
            'task_id', gen_random_uuid(), 'duration_ms', round((r * 90000)::numeric, 1), 'exit_code', 0)
        WHEN 'application_error' THEN jsonb_build_object(
            'error_type', 'ValueError', 'error_message', 'bad value ' || i % 1000, 'fingerprint', md5((i % 40)::text),
            'handled', false, 'stack', '[{"file": "shop/orders.py", "line": 12, "function": "buy"}]'::jsonb)
        WHEN 'auth_login_attempt' THEN jsonb_build_object('email', md5(usr::text), 'success', r > 0.1)
        WHEN 'integration_used' THEN jsonb_build_object(
            'integration_id', gen_random_uuid(), 'provider', 'provider' || i % 5, 'action', 'charge')
        ELSE jsonb_build_object(
            'cocoon_id', md5((i % 900)::text)::uuid, 'duration_seconds', round((r * 5000)::numeric, 1))
    END,
    jsonb_build_object(
        'trace_id', CASE WHEN $5 THEN md5((i / 4)::text) END, 'span_id', CASE WHEN $5 THEN left(md5(i::text), 16) END,
        'request_id', md5((i / 4 + 1e9)::text),
        'hostname', 'web-' || i % 4, 'environment', 'production')
FROM (
    SELECT i, random() AS r, (power(random(), 2) * 60)::int AS endpoint,
        (power(abs(hashint8(i / 30)) / 2147483648.0, 3) * 20000)::int AS usr,
        (ARRAY['api_request', 'api_request', 'api_request', 'api_request', 'database_query', 'database_query',
               'task_completed', 'auth_login_attempt', 'integration_used', 'cocoon_disconnected'])[1 + i % 10] AS usual
    FROM generate_series($3::bigint, $4::bigint - 1) AS i
) AS numbers
CROSS JOIN LATERAL (SELECT CASE WHEN i % 500 = 0 THEN 'application_error' ELSE usual END AS kind) AS kinds
ON CONFLICT DO NOTHING
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

RAW = """
SELECT percentile_cont(0.99) WITHIN GROUP (ORDER BY (data->>'duration_ms')::float8) FROM analytics_events
WHERE event_type = 'api_request' AND timestamp >= now() - interval '30 days' AND timestamp < now()
"""


async def timed(connection: Any, sql: str, rounds: int = 5) -> tuple[float, Any]:
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        rows = await connection.fetch(sql)
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times), rows


async def measure(dsn: str, flavour: str, number: int, traced: bool) -> None:
    connection = await asyncpg.connect(dsn, timeout=30, command_timeout=3600)
    began = time.perf_counter()
    start = await connection.fetchval("SELECT now() - make_interval(days => $1)", DAYS)
    step = 120_000
    for first in range(0, number, step):
        await connection.execute(FILL, start, DAYS * 86400 / number, first, min(first + step, number), traced)
    print(f"{number / 1e6:.1f} million events in {time.perf_counter() - began:.0f} s (made by the server)", flush=True)
    began = time.perf_counter()
    await refresh_views(dsn)
    print(f"aggregates filled in {time.perf_counter() - began:.0f} s", flush=True)
    await connection.execute("VACUUM ANALYZE")
    print("\n| question | rows | median ms |\n|---|---|---|")
    slowest = 0.0
    for view, column in VIEWS.items():
        took, rows = await timed(connection, f"SELECT * FROM {view} WHERE {column} >= now() - interval '30 days'")
        slowest = max(slowest, took)
        print(f"| {view}, 30 days | {len(rows)} | {took:.0f} |", flush=True)
    ask = "SELECT analytics_latency_quantile(0.99, now() - interval '30 days', now())"
    took, rows = await timed(connection, ask)
    raw_took, raw_rows = await timed(connection, RAW, 1)
    print(f"| analytics_latency_quantile(0.99), 30 days | 1 | {took:.0f} |")
    print(f"| the same by percentile_cont over the raw rows | 1 | {raw_took:.0f} |")
    print(f"\nthe quantile's relative error: {abs(rows[0][0] / raw_rows[0][0] - 1) * 100:.2f} %")
    if number >= 5_000_000:
        at_most(f"ms of the slowest view, 30 days of 5 million events, {flavour}", slowest, 1000)
    if flavour == "timescaledb":
        await compress(connection, traced)
    await connection.close()


async def compress(connection: Any, traced: bool) -> None:
    began = time.perf_counter()
    chunks = await connection.fetch("SELECT show_chunks('analytics_events', older_than => interval '7 days') AS chunk")
    for row in chunks:
        await connection.execute(f"CALL convert_to_columnstore('{row['chunk']}')")
    took = time.perf_counter() - began
    before, after = await connection.fetchrow(
        "SELECT sum(before_compression_total_bytes), sum(after_compression_total_bytes)"
        " FROM hypertable_columnstore_stats('analytics_events')"
    )
    megabytes = f"{before / 1_000_000:.0f} MB became {after / 1_000_000:.0f} MB"
    print(f"columnstore: {len(chunks)} chunks in {took:.0f} s, {megabytes}: {(1 - after / before) * 100:.1f} % saved")
    at_least(
        f"% that the columnstore saves, {'with' if traced else 'without'} trace ids", (1 - after / before) * 100, 80
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--database", choices=["timescaledb", "postgresql"])
    parser.add_argument("--untraced", action="store_true", help="an application without OpenTelemetry: no trace ids")
    options = parser.parse_args()
    servers = Servers()
    try:
        flavour = options.database or servers.available[-1]
        cluster = servers.private(flavour, SETTINGS)
        dsn = cluster.dsn(cluster.create())
        asyncio.run(migrate(dsn))
        print(cluster.version)
        asyncio.run(measure(dsn, flavour, options.events, not options.untraced))
    finally:
        servers.close()


if __name__ == "__main__":
    main()
