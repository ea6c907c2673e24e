-- Aggregate API requests by hour, service, endpoint and method
-- for: postgresql
CREATE TABLE analytics_api_latency_hourly_filled (
    hour timestamptz NOT NULL,
    service text NOT NULL,
    endpoint text,
    method text,
    request_count bigint NOT NULL,
    avg_duration_ms float8,
    p50_duration_ms float8,
    p95_duration_ms float8,
    p99_duration_ms float8,
    error_4xx_count bigint NOT NULL,
    error_5xx_count bigint NOT NULL
);
CREATE INDEX analytics_api_latency_hourly_filled_hour_idx ON analytics_api_latency_hourly_filled (hour);

CREATE FUNCTION analytics_api_latency_hourly_live(since timestamptz, until timestamptz)
    RETURNS SETOF analytics_api_latency_hourly_filled
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
    SELECT
        date_bin('1 hour', timestamp, '2000-01-01 00:00:00+00') AS hour,
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
    WHERE timestamp >= since AND timestamp < until AND event_type = 'api_request'
    GROUP BY hour, service, endpoint, method;
    END;

INSERT INTO analytics_fills (view_name, bucket_column, step)
VALUES ('analytics_api_latency_hourly', 'hour', '1 hour');

CREATE VIEW analytics_api_latency_hourly AS
SELECT filled.*
FROM analytics_api_latency_hourly_filled AS filled
WHERE filled.hour < (SELECT filled_until FROM analytics_fills WHERE view_name = 'analytics_api_latency_hourly')
UNION ALL
SELECT live.*
FROM analytics_fills AS fills, analytics_api_latency_hourly_live(fills.filled_until, 'infinity') AS live
WHERE fills.view_name = 'analytics_api_latency_hourly';
