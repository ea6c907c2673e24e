-- Aggregate events by day, service and type, with the distinct users

-- Besides analytics_type_days, because the users of several services cannot be added up.

-- timescaledb

CREATE MATERIALIZED VIEW analytics_service_type_days
WITH (timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false) AS
SELECT
    time_bucket('1 day', timestamp) AS day,
    service,
    event_type,
    count(*) AS events,
    count(DISTINCT user_id) AS unique_users
FROM analytics_events
GROUP BY day, service, event_type
WITH NO DATA;

SELECT analytics_keep_fresh('analytics_service_type_days');

-- postgresql

CREATE FUNCTION analytics_service_type_days_live(since timestamptz, until timestamptz) RETURNS TABLE (
    day timestamptz,
    service text,
    event_type text,
    events bigint,
    unique_users bigint
)
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
    SELECT
        analytics_bucket('1 day', timestamp) AS day,
        service,
        event_type,
        count(*) AS events,
        count(DISTINCT user_id) AS unique_users
    FROM analytics_events
    WHERE timestamp >= since AND timestamp < until
    GROUP BY day, service, event_type;
    END;

SELECT analytics_make_filled('analytics_service_type_days', '1 day');
