-- Aggregate API requests by hour, service, endpoint and method

-- timescaledb

CREATE MATERIALIZED VIEW analytics_api_latency_hourly
WITH (timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false) AS
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

SELECT analytics_keep_fresh('analytics_api_latency_hourly');

-- postgresql

CREATE FUNCTION analytics_api_latency_hourly_live(since timestamptz, until timestamptz) RETURNS TABLE (
    hour timestamptz,
    service text,
    endpoint text,
    method text,
    request_count bigint,
    avg_duration_ms float8,
    p50_duration_ms float8,
    p95_duration_ms float8,
    p99_duration_ms float8,
    error_4xx_count bigint,
    error_5xx_count bigint
)
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
    SELECT
        analytics_bucket('1 hour', timestamp) AS hour,
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
    WHERE timestamp >= since AND timestamp < until
        AND event_type = 'api_request'
    GROUP BY hour, service, endpoint, method;
    END;

SELECT analytics_make_filled('analytics_api_latency_hourly', '1 hour');
