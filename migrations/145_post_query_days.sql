-- Aggregate queries by day, service, environment, fingerprint, endpoint and bin of duration

-- Histograms are merged by adding them up, bin by bin; a query without a duration has no bin. By `newest_at` the text of
-- the statement is found again.

-- timescaledb

CREATE MATERIALIZED VIEW analytics_query_days
WITH (timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false) AS
SELECT
    time_bucket('1 day', timestamp) AS day,
    service,
    context ->> 'environment' AS environment,
    data ->> 'fingerprint' AS fingerprint,
    data ->> 'endpoint' AS endpoint,
    CASE
        WHEN analytics_amount(data -> 'duration_ms') IS NOT NULL
            THEN analytics_latency_bin(analytics_amount(data -> 'duration_ms'))
    END AS bin,
    count(*) AS calls,
    sum(analytics_amount(data -> 'duration_ms')) AS duration_ms,
    count(*) FILTER (WHERE data ->> 'outcome' <> 'ok') AS errors,
    max(timestamp) AS newest_at
FROM analytics_events
WHERE event_type = 'database_query'
GROUP BY day, service, environment, fingerprint, endpoint, bin
WITH NO DATA;

SELECT analytics_keep_fresh('analytics_query_days');

-- postgresql

CREATE FUNCTION analytics_query_days_live(since timestamptz, until timestamptz) RETURNS TABLE (
    day timestamptz,
    service text,
    environment text,
    fingerprint text,
    endpoint text,
    bin smallint,
    calls bigint,
    duration_ms float8,
    errors bigint,
    newest_at timestamptz
)
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
    SELECT
        analytics_bucket('1 day', timestamp) AS day,
        service,
        context ->> 'environment' AS environment,
        data ->> 'fingerprint' AS fingerprint,
        data ->> 'endpoint' AS endpoint,
        CASE
            WHEN analytics_amount(data -> 'duration_ms') IS NOT NULL
                THEN analytics_latency_bin(analytics_amount(data -> 'duration_ms'))
        END AS bin,
        count(*) AS calls,
        sum(analytics_amount(data -> 'duration_ms')) AS duration_ms,
        count(*) FILTER (WHERE data ->> 'outcome' <> 'ok') AS errors,
        max(timestamp) AS newest_at
    FROM analytics_events
    WHERE timestamp >= since AND timestamp < until AND event_type = 'database_query'
    GROUP BY day, service, environment, fingerprint, endpoint, bin;
    END;

SELECT analytics_make_filled('analytics_query_days', '1 day');
