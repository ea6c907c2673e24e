-- Aggregate API requests by day, service, endpoint and method, each with its histogram

-- The percentiles are exact. `histogram` is JSON, {"bin": number of requests}, with the bins of
-- analytics_latency_histogram; `error_histogram` is that of the answers 500 to 599; both null without a duration.

INSERT INTO analytics_fills (view_name, bucket_column, step) VALUES ('analytics_endpoint_days', 'day', 'day');

CREATE VIEW analytics_endpoint_days_live AS
SELECT
    b.day,
    b.service,
    b.endpoint,
    b.method,
    sum(b.requests) AS requests,
    sum(b.measured) AS measured,
    sum(b.duration_ms) AS duration_ms,
    max(b.low50) + (max(b.high50) - max(b.low50)) * (0.5 * (max(b.total) - 1) - CAST(0.5 * (max(b.total) - 1) AS INTEGER))
        AS p50_duration_ms,
    max(b.low95)
        + (max(b.high95) - max(b.low95)) * (0.95 * (max(b.total) - 1) - CAST(0.95 * (max(b.total) - 1) AS INTEGER))
        AS p95_duration_ms,
    max(b.low99)
        + (max(b.high99) - max(b.low99)) * (0.99 * (max(b.total) - 1) - CAST(0.99 * (max(b.total) - 1) AS INTEGER))
        AS p99_duration_ms,
    sum(b.errors_4xx) AS errors_4xx,
    sum(b.errors_5xx) AS errors_5xx,
    sum(b.with_queries) AS with_queries,
    sum(b.db_queries) AS db_queries,
    max(b.max_db_repeats) AS max_db_repeats,
    CASE WHEN sum(b.measured) > 0 THEN json_group_object(b.bin, b.measured) FILTER (WHERE b.bin IS NOT NULL) END
        AS histogram,
    CASE
        WHEN sum(b.measured_errors) > 0
            THEN json_group_object(b.bin, b.measured_errors) FILTER (WHERE b.measured_errors > 0)
    END AS error_histogram
FROM (
    SELECT
        r.day,
        r.service,
        r.endpoint,
        r.method,
        r.bin,
        max(r.measured) AS total,
        count(*) AS requests,
        count(r.duration_ms) AS measured,
        sum(r.duration_ms) AS duration_ms,
        max(CASE WHEN r.nth = CAST(0.5 * (r.measured - 1) AS INTEGER) + 1 THEN r.duration_ms END) AS low50,
        max(CASE WHEN r.nth = min(CAST(0.5 * (r.measured - 1) AS INTEGER) + 2, r.measured) THEN r.duration_ms END)
            AS high50,
        max(CASE WHEN r.nth = CAST(0.95 * (r.measured - 1) AS INTEGER) + 1 THEN r.duration_ms END) AS low95,
        max(CASE WHEN r.nth = min(CAST(0.95 * (r.measured - 1) AS INTEGER) + 2, r.measured) THEN r.duration_ms END)
            AS high95,
        max(CASE WHEN r.nth = CAST(0.99 * (r.measured - 1) AS INTEGER) + 1 THEN r.duration_ms END) AS low99,
        max(CASE WHEN r.nth = min(CAST(0.99 * (r.measured - 1) AS INTEGER) + 2, r.measured) THEN r.duration_ms END)
            AS high99,
        count(*) FILTER (WHERE r.status_code BETWEEN 400 AND 499) AS errors_4xx,
        count(*) FILTER (WHERE r.status_code BETWEEN 500 AND 599) AS errors_5xx,
        count(r.duration_ms) FILTER (WHERE r.status_code BETWEEN 500 AND 599) AS measured_errors,
        count(r.db_queries) AS with_queries,
        sum(r.db_queries) AS db_queries,
        max(r.db_repeats) AS max_db_repeats
    FROM (
        SELECT
            t.*,
            row_number() OVER (
                PARTITION BY t.day, t.service, t.endpoint, t.method ORDER BY t.duration_ms NULLS LAST
            ) AS nth,
            count(t.duration_ms) OVER (PARTITION BY t.day, t.service, t.endpoint, t.method) AS measured
        FROM (
            SELECT
                e.day,
                e.service,
                e.endpoint,
                e.method,
                e.duration_ms,
                e.status_code,
                e.db_queries,
                e.db_repeats,
                CASE
                    WHEN e.duration_ms > 0
                        THEN (SELECT p.exponent FROM analytics_powers AS p WHERE p.power >= e.duration_ms ORDER BY p.power LIMIT 1)
                    WHEN e.duration_ms = 0 THEN -1000
                END AS bin
            FROM analytics_event_facts AS e
            WHERE e.timestamp >= (SELECT f.live_since FROM analytics_fills AS f WHERE f.view_name = 'analytics_endpoint_days')
                AND e.timestamp < (SELECT f.live_until FROM analytics_fills AS f WHERE f.view_name = 'analytics_endpoint_days')
                AND e.event_type = 'api_request'
        ) AS t
    ) AS r
    GROUP BY r.day, r.service, r.endpoint, r.method, r.bin
) AS b
GROUP BY b.day, b.service, b.endpoint, b.method;

CREATE TABLE analytics_endpoint_days_filled (
    day TEXT NOT NULL,
    service TEXT,
    endpoint TEXT,
    method TEXT,
    requests INTEGER,
    measured INTEGER,
    duration_ms REAL,
    p50_duration_ms REAL,
    p95_duration_ms REAL,
    p99_duration_ms REAL,
    errors_4xx INTEGER,
    errors_5xx INTEGER,
    with_queries INTEGER,
    db_queries REAL,
    max_db_repeats REAL,
    histogram TEXT,
    error_histogram TEXT
);
CREATE INDEX analytics_endpoint_days_filled_day_idx ON analytics_endpoint_days_filled (day);

CREATE VIEW analytics_endpoint_days AS
SELECT
    filled.day, filled.service, filled.endpoint, filled.method, filled.requests, filled.measured, filled.duration_ms,
    filled.p50_duration_ms, filled.p95_duration_ms, filled.p99_duration_ms, filled.errors_4xx, filled.errors_5xx,
    filled.with_queries, filled.db_queries, filled.max_db_repeats, filled.histogram, filled.error_histogram
FROM analytics_endpoint_days_filled AS filled
WHERE filled.day < (SELECT f.filled_until FROM analytics_fills AS f WHERE f.view_name = 'analytics_endpoint_days')
UNION ALL
SELECT
    live.day, live.service, live.endpoint, live.method, live.requests, live.measured, live.duration_ms,
    live.p50_duration_ms, live.p95_duration_ms, live.p99_duration_ms, live.errors_4xx, live.errors_5xx,
    live.with_queries, live.db_queries, live.max_db_repeats, live.histogram, live.error_histogram
FROM analytics_endpoint_days_live AS live;
