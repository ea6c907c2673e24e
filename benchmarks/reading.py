"""How fast the questions of `AnalyticsReader` are answered over five million events of 30 days.

Makes the events in the server, lets `analytics-migrate refresh` fill the aggregates, turns what is older than a week
into columns (TimescaleDB), and asks each question five times with its default range of 30 days, warm, through a reader
that has a connection already.

Run:   python benchmarks/reading.py [--events 5000000] [--database timescaledb|postgresql]
Needs: a TimescaleDB that the tests would find, and the embedded PostgreSQL; ten gigabytes of disk or memory
Goals: what aggregates answer within 100 ms, what raw rows answer within 300 ms
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import psutil

sys.path.insert(0, str(Path(__file__).parent.parent))

from asgi_analytics.admin.refresh import refresh
from asgi_analytics.migrate.runner import migrate
from asgi_analytics.reading import AnalyticsReader
from benchmarks.goals import at_most
from tests.kit.servers import Servers

SETTINGS = {
    "fsync": "off", "shared_buffers": "1GB", "maintenance_work_mem": "512MB", "max_wal_size": "2GB",
    "autovacuum": "on", "max_parallel_workers_per_gather": "0",
}  # fmt: skip
DAYS = 30
AGGREGATES, RAW = 100, 300
"""Milliseconds."""
Question = tuple[str, dict[str, Any], int]
Compare = Callable[[str, str, int], Awaitable[None]]
"""Its name, its arguments, and within how many milliseconds it is to be answered."""

# A user comes for sessions of about thirty events; users, endpoints and statements follow a power law. 29 % requests,
# 26 % queries, 17 % page views, 0.2 % errors, the rest spread over the domain events.
FILL = """
INSERT INTO analytics_events (id, timestamp, event_type, service, user_id, session_id, data, context)
SELECT
    gen_random_uuid(),
    $1::timestamptz + make_interval(secs => i * $2::float8),
    kind,
    CASE WHEN i % 5 = 0 THEN 'billing' ELSE 'shop' END,
    CASE WHEN i % 6 = 0 THEN NULL ELSE ('00000000-0000-7000-8000-' || lpad(usr::text, 12, '0'))::uuid END,
    CASE WHEN i / 30 % 4 = 0 THEN 's' || i / 30 END,
    CASE kind
        WHEN 'api_request' THEN jsonb_build_object(
            'method', CASE WHEN endpoint % 3 = 0 THEN 'POST' ELSE 'GET' END,
            'endpoint', '/area' || endpoint % 7 || '/{id}/item' || endpoint,
            'status_code', CASE WHEN r < 0.03 THEN 404 WHEN r < 0.04 THEN 500 ELSE 200 END,
            'duration_ms', round((exp(2 + 1.2 * ln(1 / (r + 0.001))) / 3)::numeric, 3),
            'ttfb_ms', round((r * 10)::numeric, 3), 'response_bytes', (r * 20000)::int, 'outcome', 'ok',
            'db_queries', endpoint % 9, 'db_repeats', endpoint % 4)
        WHEN 'database_query' THEN jsonb_build_object(
            'query_type', 'SELECT', 'table', 'orders', 
            'statement', 'SELECT * FROM orders WHERE id = $1 LIMIT ' || endpoint,
            'fingerprint', md5(endpoint::text), 'duration_ms', round((r * 9)::numeric, 3), 'rows_affected', 1,
            'outcome', 'ok', 'endpoint', '/area' || endpoint % 7 || '/{id}/item' || (endpoint + i % 3))
        WHEN 'application_error' THEN jsonb_build_object(
            'error_type', 'ValueError', 'error_message', 'bad value ' || i % 1000, 'fingerprint', md5((i % 40)::text),
            'handled', false, 'stack', '[{"file": "shop/orders.py", "line": 12, "function": "buy"}]'::jsonb)
        WHEN 'page_view' THEN jsonb_build_object(
            'page', '/page' || endpoint, 'referrer', 'site' || i / 30 % 300 || '.example', 'channel', 'referral',
            'utm_source', 'letter' || i / 30 % 20)
        ELSE jsonb_build_object(
            'task_id', gen_random_uuid(), 'duration_ms', round((r * 90000)::numeric, 1), 'exit_code', 0,
            'success', r > 0.1, 'provider', 'provider' || i % 5, 'integration_id', md5((i % 3000)::text)::uuid,
            'cocoon_id', md5((i % 900)::text)::uuid, 'duration_seconds', round((r * 5000)::numeric, 1))
    END,
    jsonb_build_object(
        'trace_id', md5((i / 4)::text), 'span_id', left(md5(i::text), 16), 'request_id', md5((i / 4 + 1e9)::text),
        'hostname', 'web-' || i % 4, 'environment', CASE WHEN i % 7 = 0 THEN 'staging' ELSE 'production' END,
        'visitor', md5(usr::text),
        'device', jsonb_build_object('device_type', 'desktop', 'browser', 'browser' || usr % 5, 'os', 'Linux'),
        'geo', jsonb_build_object('country', 'C' || usr % 90))
FROM (
    SELECT i, random() AS r, (power(random(), 2) * 60)::int AS endpoint,
        (power(abs(hashint8(i / 30)) / 2147483648.0, 3) * 36000)::int AS usr, random() AS which
    FROM generate_series($3::bigint, $4::bigint - 1) AS i
) AS numbers
CROSS JOIN LATERAL (
    SELECT CASE
        WHEN which < 0.29 THEN 'api_request'
        WHEN which < 0.55 THEN 'database_query'
        WHEN which < 0.72 THEN 'page_view'
        WHEN which < 0.722 THEN 'application_error'
        ELSE (ARRAY[
            'task_created', 'task_started', 'task_completed', 'task_failed', 'auth_login_attempt', 'auth_token_refresh',
            'integration_used', 'integration_connected', 'cocoon_connected', 'cocoon_disconnected', 'search_performed',
            'order_placed', 'cart_filled', 'project_updated', 'webhook_received', 'message_sent'
        ])[1 + (i % 16)]
    END AS kind
) AS kinds
ON CONFLICT DO NOTHING
"""
COLUMNS = """
SELECT compress_chunk(c.chunk) FROM show_chunks('analytics_events', older_than => INTERVAL '7 days') AS c (chunk)
"""

QUESTIONS: list[Question] = [
    ("get_overview_stats", {}, AGGREGATES),
    ("get_overview_stats", {"service": "shop", "timezone": "Asia/Kolkata"}, AGGREGATES),
    ("get_daily_active_users", {}, AGGREGATES),
    ("get_daily_active_users", {"timezone": "Asia/Kathmandu", "service": "shop"}, AGGREGATES),
    ("get_weekly_active_users", {}, AGGREGATES),
    ("get_monthly_active_users", {}, AGGREGATES),
    ("get_task_stats_daily", {}, AGGREGATES),
    ("get_task_stats_daily", {"timezone": "Europe/Berlin"}, RAW),
    ("get_task_stats_overview", {}, AGGREGATES),
    ("get_task_stats_overview", {"service": "shop", "timezone": "Asia/Kolkata"}, AGGREGATES),
    ("get_endpoint_latency", {"bucket": "hour", "days": 1}, AGGREGATES),
    ("get_endpoint_latency", {"bucket": "day"}, AGGREGATES),
    ("get_endpoint_latency", {"bucket": "all"}, AGGREGATES),
    ("get_latency_series", {}, AGGREGATES),
    ("get_latency_series", {"bucket": "hour", "days": 2}, AGGREGATES),
    ("get_slowest_endpoints", {}, AGGREGATES),
    ("get_apdex", {}, AGGREGATES),
    ("get_api_consumers", {}, RAW),
    ("get_integration_health", {}, AGGREGATES),
    ("get_integration_health", {"timezone": "Europe/Berlin"}, RAW),
    ("get_auth_stats", {}, AGGREGATES),
    ("get_cocoon_activity", {}, AGGREGATES),
    ("get_error_summary", {"days": 3}, AGGREGATES),
    ("list_error_groups", {}, RAW),
    ("get_error_group", {"fingerprint": ""}, RAW),
    ("list_slow_queries", {}, RAW),
    ("list_repeated_queries", {}, AGGREGATES),
    ("query_events", {}, RAW),
    ("query_events", {"event_types": ["order_placed"]}, RAW),
    ("query_events", {"user_id": "00000000-0000-7000-8000-000000035990"}, RAW),
    ("query_events", {"cursor": ""}, RAW),
    ("query_events", {"event_categories": ["transaction"], "environment": "staging"}, RAW),
    ("query_aggregations", {}, AGGREGATES),
    ("query_aggregations", {"aggregation_type": "weekly", "event_category": "transaction"}, AGGREGATES),
    ("query_aggregations", {"aggregation_type": "hourly", "event_type": "order_placed"}, RAW),
    ("get_pipeline_health", {}, RAW),
    ("query_sessions", {}, RAW),
    ("query_sessions", {"user_id": "00000000-0000-7000-8000-000000035990"}, RAW),
    ("query_sessions", {"landing_page": "/page7", "limit": 1000}, RAW),
    ("get_session", {"id": ""}, RAW),
    ("get_session_summary", {}, RAW),
    ("get_session_series", {}, RAW),
    ("get_session_series", {"bucket": "hour", "days": 7, "timezone": "Asia/Kolkata"}, RAW),
    ("get_session_breakdown", {}, RAW),
    ("get_session_breakdown", {"by": "referrer", "limit": 10}, RAW),
    ("get_session_breakdown", {"by": "browser", "service": "shop"}, RAW),
    ("list_pages", {}, RAW),
    ("get_user_activity", {"user_id": "00000000-0000-7000-8000-000000035990"}, RAW),
    ("get_feature_usage", {"feature_name": "order_placed"}, AGGREGATES),
    ("get_feature_usage", {}, RAW),
    ("top_features", {}, RAW),
]


async def fill(dsn: str, flavour: str, number: int, events: str) -> None:
    """Make the events by a statement that takes when the first is, the seconds between two, and the numbers of some."""
    connection = await asyncpg.connect(dsn, timeout=30, command_timeout=3600)
    began = time.perf_counter()
    start = await connection.fetchval("SELECT now() - make_interval(days => $1)", DAYS)
    for first in range(0, number, 100_000):
        await connection.execute(events, start, DAYS * 86400 / number, first, min(first + 100_000, number))
    print(f"{number / 1e6:.1f} million events in {time.perf_counter() - began:.0f} s (made by the server)", flush=True)
    began = time.perf_counter()
    await refresh(connection)
    print(f"aggregates filled in {time.perf_counter() - began:.0f} s", flush=True)
    if flavour == "timescaledb":
        await connection.fetch(COLUMNS)
    await connection.execute("VACUUM ANALYZE")
    await connection.close()


async def looked_up(reader: AnalyticsReader, given: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments, with what has to be looked up first: a range, a fingerprint, a cursor 20 days ago."""
    arguments = dict(given)
    today = datetime.now(UTC).date()
    if "days" in given:
        arguments["start"] = today - timedelta(days=arguments.pop("days"))
    if "fingerprint" in given:
        arguments["fingerprint"] = (await reader.list_error_groups(limit=1))[0].fingerprint
    if "id" in given:
        arguments["id"] = (await reader.query_sessions(limit=1, end=today - timedelta(days=20))).sessions[0].id
    if "cursor" in given:
        arguments["cursor"] = (await reader.query_events(limit=1, end=today - timedelta(days=20))).next
    return arguments


async def measure(dsn: str, flavour: str, number: int, questions: Sequence[Question]) -> None:
    print("\n| question | rows | ms | ms CPU of the server |\n|---|---|---|---|", flush=True)
    async with AnalyticsReader.from_url(dsn, statement_timeout=300, connections=1) as reader:
        async with reader.snapshot() as snapshot:
            [(pid,)] = await snapshot.records("SELECT pg_backend_pid()")
        server = psutil.Process(pid)
        for name, given, bound in questions:
            arguments = await looked_up(reader, given)
            times, cpu = [], []
            for _ in range(6):
                began, used = time.perf_counter(), sum(server.cpu_times()[:2])
                answer = await getattr(reader, name)(**arguments)
                times.append((time.perf_counter() - began) * 1000)
                cpu.append((sum(server.cpu_times()[:2]) - used) * 1000)
            took = statistics.median(times[1:])
            said = ", ".join(f"{key}={value}" for key, value in given.items())
            rows = len(answer) if isinstance(answer, list) else 1
            print(f"| {name}({said}) | {rows} | {took:.0f} | {statistics.mean(cpu[1:]):.0f} |", flush=True)
            if number >= 5_000_000:
                at_most(f"ms of {name}({said}), {number / 1e6:g} million events, {flavour}", took, bound)


def run(events: str, questions: Sequence[Question], compare: Compare | None = None) -> None:
    """Do what the command line says, and ``compare`` with a peer on each server."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--database", choices=["timescaledb", "postgresql"])
    options = parser.parse_args()
    servers = Servers()
    try:
        for flavour in [options.database] if options.database else servers.available:
            cluster = servers.private(flavour, SETTINGS)
            dsn = cluster.dsn(cluster.create())
            asyncio.run(migrate(dsn))
            print(f"\n### {cluster.version}\n", flush=True)
            asyncio.run(fill(dsn, flavour, options.events, events))
            if questions:
                asyncio.run(measure(dsn, flavour, options.events, questions))
            if compare is not None:
                asyncio.run(compare(dsn, flavour, options.events))
            cluster.end()
    finally:
        servers.close()


if __name__ == "__main__":
    run(FILL, QUESTIONS)
