-- Aggregate API requests by hour, service, endpoint and method
-- for: timescaledb
CREATE MATERIALIZED VIEW analytics_api_latency_hourly
WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
SELECT
    time_bucket('1 hour', timestamp) AS hour,
    service,
    data ->> 'endpoint' AS endpoint,
    data ->> 'method' AS method,
    count(*) AS request_count,
    avg(analytics_amount(data -> 'duration_ms')) AS avg_duration_ms,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY analytics_amount(data -> 'duration_ms')) AS p50_duration_ms,
    percentile_cont(0.95) WITHIN GROUP (ORDER BY analytics_amount(data -> 'duration_ms')) AS p95_duration_ms,
    percentile_cont(0.99) WITHIN GROUP (ORDER BY analytics_amount(data -> 'duration_ms')) AS p99_duration_ms,
    count(*) FILTER (WHERE analytics_amount(data -> 'status_code') BETWEEN 400 AND 499) AS error_4xx_count,
    count(*) FILTER (WHERE analytics_amount(data -> 'status_code') BETWEEN 500 AND 599) AS error_5xx_count
FROM analytics_events
WHERE event_type = 'api_request'
GROUP BY hour, service, endpoint, method
WITH NO DATA;
