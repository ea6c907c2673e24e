-- Aggregate application errors by hour, service, type and fingerprint

-- The sample is the first message in byte order: the same on every database, and however often it is computed.

-- timescaledb

CREATE MATERIALIZED VIEW analytics_errors_hourly
WITH (timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false) AS
SELECT
    time_bucket('1 hour', timestamp) AS hour,
    service,
    data ->> 'error_type' AS error_type,
    data ->> 'fingerprint' AS fingerprint,
    count(*) AS error_count,
    count(DISTINCT user_id) AS affected_users,
    min((data ->> 'error_message') COLLATE "C") AS sample_error_message
FROM analytics_events
WHERE event_type = 'application_error'
GROUP BY hour, service, error_type, fingerprint
WITH NO DATA;

SELECT analytics_keep_fresh('analytics_errors_hourly');

-- postgresql

CREATE FUNCTION analytics_errors_hourly_live(since timestamptz, until timestamptz) RETURNS TABLE (
    hour timestamptz,
    service text,
    error_type text,
    fingerprint text,
    error_count bigint,
    affected_users bigint,
    sample_error_message text
)
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
    SELECT
        analytics_bucket('1 hour', timestamp) AS hour,
        service,
        data ->> 'error_type' AS error_type,
        data ->> 'fingerprint' AS fingerprint,
        count(*) AS error_count,
        count(DISTINCT user_id) AS affected_users,
        min((data ->> 'error_message') COLLATE "C") AS sample_error_message
    FROM analytics_events
    WHERE timestamp >= since AND timestamp < until
        AND event_type = 'application_error'
    GROUP BY hour, service, error_type, fingerprint;
    END;

SELECT analytics_make_filled('analytics_errors_hourly', '1 hour');
