-- Aggregate the use of integrations by day and provider

-- timescaledb

CREATE MATERIALIZED VIEW analytics_integration_health_daily
WITH (timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false) AS
SELECT
    time_bucket('1 day', timestamp) AS day,
    data ->> 'provider' AS provider,
    count(*) FILTER (WHERE event_type = 'integration_connected') AS connections,
    count(*) FILTER (WHERE event_type = 'integration_disconnected') AS disconnections,
    count(*) FILTER (WHERE event_type = 'integration_used') AS uses,
    count(*) FILTER (WHERE event_type = 'integration_error') AS errors,
    count(DISTINCT user_id) AS unique_users
FROM analytics_events
WHERE event_type IN (
    'integration_connected', 'integration_disconnected', 'integration_used', 'integration_error'
)
GROUP BY day, provider
WITH NO DATA;

SELECT analytics_keep_fresh('analytics_integration_health_daily');

-- postgresql

CREATE FUNCTION analytics_integration_health_daily_live(since timestamptz, until timestamptz) RETURNS TABLE (
    day timestamptz,
    provider text,
    connections bigint,
    disconnections bigint,
    uses bigint,
    errors bigint,
    unique_users bigint
)
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
    SELECT
        analytics_bucket('1 day', timestamp) AS day,
        data ->> 'provider' AS provider,
        count(*) FILTER (WHERE event_type = 'integration_connected') AS connections,
        count(*) FILTER (WHERE event_type = 'integration_disconnected') AS disconnections,
        count(*) FILTER (WHERE event_type = 'integration_used') AS uses,
        count(*) FILTER (WHERE event_type = 'integration_error') AS errors,
        count(DISTINCT user_id) AS unique_users
    FROM analytics_events
    WHERE timestamp >= since AND timestamp < until
        AND event_type IN (
            'integration_connected', 'integration_disconnected', 'integration_used', 'integration_error'
        )
    GROUP BY day, provider;
    END;

SELECT analytics_make_filled('analytics_integration_health_daily', '1 day');
