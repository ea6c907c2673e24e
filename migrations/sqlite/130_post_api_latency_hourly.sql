-- Aggregate API requests by hour, service, endpoint and method

-- Percentiles are those of percentile_cont: interpolated between the values at two ranks, here of the rows numbered by
-- duration, those without one last.

INSERT INTO analytics_fills (view_name, bucket_column, step) VALUES ('analytics_api_latency_hourly', 'hour', 'hour');

CREATE VIEW analytics_api_latency_hourly_live AS
SELECT
    r.hour,
    r.service,
    r.endpoint,
    r.method,
    count(*) AS request_count,
    avg(r.duration_ms) AS avg_duration_ms,
    max(CASE WHEN r.nth = CAST(0.5 * (r.measured - 1) AS INTEGER) + 1 THEN r.duration_ms END)
        + (
            max(CASE WHEN r.nth = min(CAST(0.5 * (r.measured - 1) AS INTEGER) + 2, r.measured) THEN r.duration_ms END)
            - max(CASE WHEN r.nth = CAST(0.5 * (r.measured - 1) AS INTEGER) + 1 THEN r.duration_ms END)
        ) * (0.5 * (r.measured - 1) - CAST(0.5 * (r.measured - 1) AS INTEGER))
        AS p50_duration_ms,
    max(CASE WHEN r.nth = CAST(0.95 * (r.measured - 1) AS INTEGER) + 1 THEN r.duration_ms END)
        + (
            max(CASE WHEN r.nth = min(CAST(0.95 * (r.measured - 1) AS INTEGER) + 2, r.measured) THEN r.duration_ms END)
            - max(CASE WHEN r.nth = CAST(0.95 * (r.measured - 1) AS INTEGER) + 1 THEN r.duration_ms END)
        ) * (0.95 * (r.measured - 1) - CAST(0.95 * (r.measured - 1) AS INTEGER))
        AS p95_duration_ms,
    max(CASE WHEN r.nth = CAST(0.99 * (r.measured - 1) AS INTEGER) + 1 THEN r.duration_ms END)
        + (
            max(CASE WHEN r.nth = min(CAST(0.99 * (r.measured - 1) AS INTEGER) + 2, r.measured) THEN r.duration_ms END)
            - max(CASE WHEN r.nth = CAST(0.99 * (r.measured - 1) AS INTEGER) + 1 THEN r.duration_ms END)
        ) * (0.99 * (r.measured - 1) - CAST(0.99 * (r.measured - 1) AS INTEGER))
        AS p99_duration_ms,
    count(*) FILTER (WHERE r.status_code BETWEEN 400 AND 499) AS error_4xx_count,
    count(*) FILTER (WHERE r.status_code BETWEEN 500 AND 599) AS error_5xx_count
FROM (
    SELECT
        t.*,
        row_number() OVER (
            PARTITION BY t.hour, t.service, t.endpoint, t.method ORDER BY t.duration_ms NULLS LAST
        ) AS nth,
        count(t.duration_ms) OVER (PARTITION BY t.hour, t.service, t.endpoint, t.method) AS measured
    FROM (
        SELECT e.hour, e.service, e.endpoint, e.method, e.duration_ms, e.status_code
        FROM analytics_event_facts AS e
        WHERE e.timestamp >= (SELECT f.live_since FROM analytics_fills AS f WHERE f.view_name = 'analytics_api_latency_hourly')
            AND e.timestamp < (SELECT f.live_until FROM analytics_fills AS f WHERE f.view_name = 'analytics_api_latency_hourly')
            AND e.event_type = 'api_request'
    ) AS t
) AS r
GROUP BY r.hour, r.service, r.endpoint, r.method;

CREATE TABLE analytics_api_latency_hourly_filled (
    hour TEXT NOT NULL,
    service TEXT,
    endpoint TEXT,
    method TEXT,
    request_count INTEGER,
    avg_duration_ms REAL,
    p50_duration_ms REAL,
    p95_duration_ms REAL,
    p99_duration_ms REAL,
    error_4xx_count INTEGER,
    error_5xx_count INTEGER
);
CREATE INDEX analytics_api_latency_hourly_filled_hour_idx ON analytics_api_latency_hourly_filled (hour);

CREATE VIEW analytics_api_latency_hourly AS
SELECT
    filled.hour, filled.service, filled.endpoint, filled.method, filled.request_count, filled.avg_duration_ms,
    filled.p50_duration_ms, filled.p95_duration_ms, filled.p99_duration_ms, filled.error_4xx_count,
    filled.error_5xx_count
FROM analytics_api_latency_hourly_filled AS filled
WHERE filled.hour < (SELECT f.filled_until FROM analytics_fills AS f WHERE f.view_name = 'analytics_api_latency_hourly')
UNION ALL
SELECT
    live.hour, live.service, live.endpoint, live.method, live.request_count, live.avg_duration_ms,
    live.p50_duration_ms, live.p95_duration_ms, live.p99_duration_ms, live.error_4xx_count, live.error_5xx_count
FROM analytics_api_latency_hourly_live AS live;
