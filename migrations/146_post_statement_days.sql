-- Aggregate queries by day, service, environment and fingerprint, each with its histogram in two arrays

-- As analytics_query_days, which knows each endpoint apart, and so has many more rows. `bins` and `bin_calls`
-- are like those of analytics_endpoint_days. By `newest_at` the text of the statement is found again.

-- timescaledb

CREATE MATERIALIZED VIEW analytics_statement_days
WITH (timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false) AS
SELECT
    time_bucket('1 day', timestamp) AS day,
    service,
    context ->> 'environment' AS environment,
    data ->> 'fingerprint' AS fingerprint,
    count(*) AS calls,
    count(analytics_amount(data -> 'duration_ms')) AS measured,
    sum(analytics_amount(data -> 'duration_ms')) AS duration_ms,
    count(*) FILTER (WHERE data ->> 'outcome' <> 'ok') AS errors,
    max(timestamp) AS newest_at,
    analytics_bins(analytics_amount(data -> 'duration_ms')) AS bins,
    analytics_bin_counts(analytics_amount(data -> 'duration_ms')) AS bin_calls,
    array_agg(DISTINCT data ->> 'endpoint') FILTER (WHERE data ->> 'endpoint' IS NOT NULL) AS endpoints
FROM analytics_events
WHERE event_type = 'database_query'
GROUP BY day, service, environment, fingerprint
WITH NO DATA;

SELECT analytics_keep_fresh('analytics_statement_days');

-- postgresql

CREATE FUNCTION analytics_statement_days_live(since timestamptz, until timestamptz) RETURNS TABLE (
    day timestamptz,
    service text,
    environment text,
    fingerprint text,
    calls bigint,
    measured bigint,
    duration_ms float8,
    errors bigint,
    newest_at timestamptz,
    bins smallint[],
    bin_calls integer[],
    endpoints text[]
)
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
    SELECT
        analytics_bucket('1 day', timestamp) AS day,
        service,
        context ->> 'environment' AS environment,
        data ->> 'fingerprint' AS fingerprint,
        count(*) AS calls,
        count(analytics_amount(data -> 'duration_ms')) AS measured,
        sum(analytics_amount(data -> 'duration_ms')) AS duration_ms,
        count(*) FILTER (WHERE data ->> 'outcome' <> 'ok') AS errors,
        max(timestamp) AS newest_at,
        analytics_bins(analytics_amount(data -> 'duration_ms')) AS bins,
        analytics_bin_counts(analytics_amount(data -> 'duration_ms')) AS bin_calls,
        array_agg(DISTINCT data ->> 'endpoint') FILTER (WHERE data ->> 'endpoint' IS NOT NULL) AS endpoints
    FROM analytics_events
    WHERE timestamp >= since AND timestamp < until
        AND event_type = 'database_query'
    GROUP BY day, service, environment, fingerprint;
    END;

SELECT analytics_make_filled('analytics_statement_days', '1 day');
