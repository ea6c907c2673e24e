"""How fast questions about a product are answered over five million events of 30 days.

Makes the events of a shop with 50,000 users in the server, and measures trends, funnels, retention and paths as
reading.py does. Then asks a funnel of three steps in the two ways of a peer that computes it by joins, written from its
description: each step within the window of the step before, and each within that of the first. Such a join takes one
event for two steps: its counts are printed beside ours.

Run:   python benchmarks/product.py [--events 5000000] [--database timescaledb|postgresql]
Needs: a TimescaleDB that the tests would find, and the embedded PostgreSQL; ten gigabytes of disk or memory
Goals: trends from aggregates within 200 ms, from raw rows within 1 s; a funnel of 3 steps within 500 ms, of 5 within
       1 s, by session or strictly within 1 s for 7 days; retention, stickiness and lifecycle within 300 ms; paths
       within 1 s for 7 days; a funnel in less time than either of the joins
"""

from __future__ import annotations

import statistics
import sys
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import accumulate
from pathlib import Path

import asyncpg

sys.path.insert(0, str(Path(__file__).parent.parent))

from asgi_analytics.reading import AnalyticsReader, Filter, Step
from benchmarks.goals import at_most
from benchmarks.reading import Question, run

AGGREGATES, RAW = 200, 1000
SHORT, PEOPLE = 500, 300
"""Milliseconds."""

KINDS = {
    # What is captured: 55 %.
    "api_request": 0.29, "database_query": 0.258, "application_error": 0.002,
    # 17 % page views, and 28 % events of the domain, of which 12 % are the steps of a funnel.
    "page_view": 0.17,
    "search_performed": 0.05, "product_viewed": 0.045, "cart_filled": 0.013, "checkout_started": 0.007,
    "order_placed": 0.005,
    "signup_started": 0.003, "signup_completed": 0.002, "filter_applied": 0.04, "message_sent": 0.035,
    "notification_clicked": 0.03, "review_posted": 0.02, "project_viewed": 0.02, "project_updated": 0.01,
}  # fmt: skip
"""What part of the events is of each type."""
FUNNEL = ["search_performed", "product_viewed", "cart_filled", "checkout_started", "order_placed"]
PAGES = [Step("page_view", [Filter("data.page", "exact", f"/page{number}")]) for number in range(3)]

PER_STEP = """
WITH step_1 AS (
    SELECT DISTINCT user_id, timestamp FROM analytics_events
    WHERE timestamp >= $1 AND timestamp < $2 AND event_type = $4
),
step_2 AS (
    SELECT DISTINCT e.user_id, e.timestamp FROM step_1 AS s JOIN analytics_events AS e ON e.user_id = s.user_id
    WHERE e.timestamp >= $1 AND e.timestamp < $2 AND e.event_type = $5
        AND e.timestamp BETWEEN s.timestamp AND s.timestamp + $3
),
step_3 AS (
    SELECT DISTINCT e.user_id, e.timestamp FROM step_2 AS s JOIN analytics_events AS e ON e.user_id = s.user_id
    WHERE e.timestamp >= $1 AND e.timestamp < $2 AND e.event_type = $6
        AND e.timestamp BETWEEN s.timestamp AND s.timestamp + $3
)
SELECT
    (SELECT count(DISTINCT user_id) FROM step_1),
    (SELECT count(DISTINCT user_id) FROM step_2),
    (SELECT count(DISTINCT user_id) FROM step_3)
"""
FROM_THE_FIRST = PER_STEP.replace("user_id, timestamp FROM", "user_id, timestamp, timestamp AS began FROM").replace(
    "e.user_id, e.timestamp FROM", "e.user_id, e.timestamp, s.began FROM"
).replace("s.timestamp + $3", "s.began + $3")  # fmt: skip

# A user comes for sessions of about thirty events; users, pages and products follow a power law.
EVENTS = f"""
INSERT INTO analytics_events (id, timestamp, event_type, service, user_id, session_id, data, context)
SELECT
    gen_random_uuid(),
    $1::timestamptz + make_interval(secs => i * $2::float8),
    kind,
    CASE WHEN i % 5 = 0 THEN 'billing' ELSE 'shop' END,
    CASE WHEN i % 6 = 0 THEN NULL ELSE md5(usr::text)::uuid END,
    CASE WHEN i / 30 % 4 = 0 THEN 's' || i / 30 END,
    CASE
        WHEN kind = 'api_request' THEN jsonb_build_object(
            'method', 'GET', 'endpoint', '/area' || thing % 7 || '/{{id}}/item' || thing, 'status_code', 200,
            'duration_ms', round((r * 90)::numeric, 3), 'outcome', 'ok')
        WHEN kind = 'database_query' THEN jsonb_build_object(
            'query_type', 'SELECT', 'table', 'orders', 'statement', 'SELECT * FROM orders WHERE id = $1',
            'fingerprint', md5(thing::text), 'duration_ms', round((r * 9)::numeric, 3), 'outcome', 'ok')
        WHEN kind = 'application_error' THEN jsonb_build_object(
            'error_type', 'ValueError', 'error_message', 'bad value', 'fingerprint', md5((i % 40)::text))
        WHEN kind = 'page_view' THEN jsonb_build_object(
            'page', '/page' || thing, 'channel', 'referral', 'utm_source', 'letter' || i / 30 % 20)
        WHEN kind = 'search_performed' THEN jsonb_build_object(
            'query', 'words ' || thing, 'result_count', (r * 300)::int, 'duration_ms', round((r * 90)::numeric, 1))
        ELSE jsonb_build_object(
            'plan', (ARRAY['free', 'free', 'pro', 'team'])[1 + usr % 4], 'product_id', 'p' || thing,
            'amount', round((exp(3 + 4 * r))::numeric, 2), 'currency', 'EUR', 'order_id', md5(i::text)::uuid)
    END,
    jsonb_build_object(
        'trace_id', md5((i / 4)::text), 'request_id', md5((i / 4 + 1e9)::text), 'hostname', 'web-' || i % 4,
        'environment', CASE WHEN i % 7 = 0 THEN 'staging' ELSE 'production' END,
        'visitor', md5(usr::text),
        'device', jsonb_build_object('device_type', 'desktop', 'browser', 'browser' || usr % 5, 'os', 'Linux'),
        'geo', jsonb_build_object('country', 'C' || usr % 90))
FROM (
    SELECT
        i,
        random() AS r,
        (power(random(), 2) * 60)::int AS thing,
        (power(abs(hashint8(i / 30)) / 2147483648.0, 3) * 50000)::int AS usr,
        (ARRAY{list(KINDS)})[1 + width_bucket(random(), ARRAY{list(accumulate(KINDS.values()))[:-1]}::float8[])] AS kind
    FROM generate_series($3::bigint, $4::bigint - 1) AS i
) AS numbers
ON CONFLICT DO NOTHING
"""

QUESTIONS: list[Question] = [
    ("query_trends", {"series": ["page_view"]}, AGGREGATES),
    ("query_trends", {"series": ["page_view"], "interval": "hour"}, AGGREGATES),
    ("query_trends", {"series": FUNNEL, "timezone": "Asia/Kathmandu", "service": "shop"}, AGGREGATES),
    ("query_trends", {"series": FUNNEL, "days": 13, "compare": True}, AGGREGATES),
    ("query_trends", {"series": ["order_placed"], "math": "unique_users"}, AGGREGATES),
    ("query_trends", {"series": ["product_viewed"], "math": "unique_users"}, AGGREGATES),
    ("query_trends", {"series": ["page_view"], "math": "unique_users", "interval": "week"}, AGGREGATES),
    ("query_trends", {"series": ["product_viewed"], "math": "unique_users", "timezone": "Europe/Berlin"}, RAW),
    ("query_trends", {"series": FUNNEL, "math": "unique_users"}, RAW),
    ("query_trends", {"series": ["order_placed"], "math": "sum", "property": "data.amount"}, RAW),
    ("query_trends", {"series": ["search_performed"], "math": "p95", "property": "data.duration_ms"}, RAW),
    ("query_trends", {"series": ["product_viewed"], "breakdown": "data.plan"}, RAW),
    ("query_trends", {"series": ["product_viewed"], "breakdown": "data.product_id", "math": "unique_users"}, RAW),
    ("query_trends", {"series": [Step("page_view", [Filter("data.page", "exact", "/page7")])]}, RAW),
    ("query_trends", {"series": ["page_view"], "breakdown": "context.device.browser", "days": 7}, RAW),
    ("query_trends", {"series": FUNNEL, "environment": "production"}, RAW),
    ("query_funnel", {"steps": FUNNEL[2:]}, SHORT),
    ("query_funnel", {"steps": FUNNEL[2:], "breakdown": "data.plan"}, SHORT),
    ("query_funnel", {"steps": FUNNEL[2:], "exclusions": ["message_sent"]}, SHORT),
    ("query_funnel", {"steps": FUNNEL[2:], "order": "unordered"}, SHORT),
    ("query_funnel", {"steps": PAGES}, SHORT),
    ("query_funnel", {"steps": FUNNEL}, RAW),
    ("query_funnel", {"steps": FUNNEL, "by": "session", "days": 6}, RAW),
    ("query_funnel", {"steps": FUNNEL, "order": "strict", "days": 6}, RAW),
    ("query_retention", {}, PEOPLE),
    ("query_retention", {"target_event": "search_performed", "returning_event": "order_placed"}, PEOPLE),
    ("query_retention", {"period": "week", "timezone": "Europe/Berlin"}, PEOPLE),
    ("query_stickiness", {}, PEOPLE),
    ("query_stickiness", {"event_type": "order_placed"}, PEOPLE),
    ("query_lifecycle", {}, PEOPLE),
    ("query_lifecycle", {"event_type": "order_placed"}, PEOPLE),
    ("query_paths", {"days": 6}, RAW),
    ("query_paths", {"days": 6, "start_event": "/page7", "depth": 3}, RAW),
]  # fmt: skip


async def compare(dsn: str, flavour: str, number: int) -> None:
    """Ask the funnel of three steps as we and as the peer do, in turns, and say how much longer the peer takes."""
    end = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    start, window = end - timedelta(days=31), timedelta(days=14)
    connection = await asyncpg.connect(dsn, timeout=30, command_timeout=600)
    await connection.execute("SET work_mem = '64MB'; SET jit = off")
    print("\n| funnel of 3 steps | ms | users |\n|---|---|---|", flush=True)
    async with AnalyticsReader.from_url(dsn, statement_timeout=300, connections=1) as reader:

        async def ours() -> list[int]:
            return [step.count for step in (await reader.query_funnel(FUNNEL[2:], start=start, end=end)).steps]

        async def joined(sql: str) -> list[int]:
            return list(await connection.fetchrow(sql, start, end, window, *FUNNEL[2:]))

        ways = {
            "ours": ours,
            "joins, window per step": partial(joined, PER_STEP),
            "joins, window from the first": partial(joined, FROM_THE_FIRST),
        }
        took: dict[str, list[float]] = {name: [] for name in ways}
        users: dict[str, list[int]] = {}
        for _ in range(4):
            for name, ask in ways.items():
                began = time.perf_counter()
                users[name] = await ask()
                took[name].append((time.perf_counter() - began) * 1000)
    await connection.close()
    medians = {name: statistics.median(times[1:]) for name, times in took.items()}
    for name, median in medians.items():
        print(f"| {name} | {median:.0f} | {', '.join(map(str, users[name]))} |", flush=True)
    for name in list(ways)[1:]:
        if number >= 5_000_000:
            at_most(f"ms of our funnel / {name}, {flavour}", medians["ours"] / medians[name], 1)


if __name__ == "__main__":
    run(EVENTS, QUESTIONS, compare)
