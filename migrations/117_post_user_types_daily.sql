-- Aggregate events by day, service, type and user, for the distinct users of each type

-- Distinct users of a longer range are counted over all of it: the counts of its days cannot be added up.

-- timescaledb

CREATE MATERIALIZED VIEW analytics_user_types_daily
WITH (timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false) AS
SELECT
    time_bucket('1 day', timestamp) AS day,
    service,
    event_type,
    user_id,
    count(*) AS events
FROM analytics_events
GROUP BY day, service, event_type, user_id
WITH NO DATA;

SELECT analytics_keep_fresh('analytics_user_types_daily');

-- To find one type's days. Without a name: the index stands in a schema that all installations share.
CREATE INDEX ON analytics_user_types_daily (event_type, day);

-- postgresql

CREATE FUNCTION analytics_user_types_daily_live(since timestamptz, until timestamptz) RETURNS TABLE (
    day timestamptz,
    service text,
    event_type text,
    user_id uuid,
    events bigint
)
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
    SELECT
        analytics_bucket('1 day', timestamp) AS day,
        service,
        event_type,
        user_id,
        count(*) AS events
    FROM analytics_events
    WHERE timestamp >= since AND timestamp < until
    GROUP BY day, service, event_type, user_id;
    END;

SELECT analytics_make_filled('analytics_user_types_daily', '1 day');

-- To find one type's days.
CREATE INDEX analytics_user_types_daily_filled_event_type_day_idx ON analytics_user_types_daily_filled (event_type, day);
