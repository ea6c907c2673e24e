"""How fast the questions about a product are answered over five million events of 30 days: trends.

Makes the events of a shop with 50,000 users in the server, and measures as reading.py does.

Run:   python benchmarks/product.py [--events 5000000] [--database timescaledb|postgresql]
Needs: a TimescaleDB that the tests would find, and the embedded PostgreSQL; ten gigabytes of disk or memory
Goals: what aggregates answer within 200 ms, what raw rows answer within 1 s
"""

from __future__ import annotations

import sys
from itertools import accumulate
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from asgi_analytics.reading.steps import Filter, Step
from benchmarks.reading import Question, run

AGGREGATES, RAW = 200, 1000
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

# A user comes for sessions of about thirty events; users, pages and products follow a power law.
EVENTS = f"""
INSERT INTO analytics_events (id, timestamp, event_type, service, user_id, session_id, data, context)
SELECT
    gen_random_uuid(),
    $1::timestamptz + make_interval(secs => i * $2::float8),
    kind,
    CASE WHEN i % 5 = 0 THEN 'billing' ELSE 'shop' END,
    CASE WHEN i % 6 = 0 THEN NULL ELSE ('00000000-0000-7000-8000-' || lpad(usr::text, 12, '0'))::uuid END,
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
]  # fmt: skip
if __name__ == "__main__":
    run(EVENTS, QUESTIONS)
