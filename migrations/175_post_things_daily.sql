-- Aggregate by day which cocoons were registered or connected, and which integrations were connected

-- Kept when the raw rows are dropped, so that the total of all things does not shrink.

-- timescaledb

CREATE MATERIALIZED VIEW analytics_things_daily
WITH (timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false) AS
SELECT
    time_bucket('1 day', timestamp) AS day,
    service,
    event_type,
    coalesce(data ->> 'cocoon_id', data ->> 'integration_id') AS thing_id,
    count(*) AS events
FROM analytics_events
WHERE event_type IN ('cocoon_registered', 'cocoon_connected', 'integration_connected')
GROUP BY day, service, event_type, thing_id
WITH NO DATA;

SELECT analytics_keep_fresh('analytics_things_daily');

-- postgresql

CREATE FUNCTION analytics_things_daily_live(since timestamptz, until timestamptz) RETURNS TABLE (
    day timestamptz,
    service text,
    event_type text,
    thing_id text,
    events bigint
)
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
    SELECT
        analytics_bucket('1 day', timestamp) AS day,
        service,
        event_type,
        coalesce(data ->> 'cocoon_id', data ->> 'integration_id') AS thing_id,
        count(*) AS events
    FROM analytics_events
    WHERE timestamp >= since AND timestamp < until
        AND event_type IN ('cocoon_registered', 'cocoon_connected', 'integration_connected')
    GROUP BY day, service, event_type, thing_id;
    END;

SELECT analytics_make_filled('analytics_things_daily', '1 day');
