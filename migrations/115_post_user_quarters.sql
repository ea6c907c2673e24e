-- Aggregate events by quarter hour, service and user, for active users by service and in every time zone

-- Wherever people live, their days begin at a quarter hour of UTC.

-- timescaledb

CREATE MATERIALIZED VIEW analytics_user_quarters
WITH (timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false) AS
SELECT
    time_bucket('15 minutes', timestamp) AS quarter,
    service,
    user_id,
    count(*) AS events
FROM analytics_events
GROUP BY quarter, service, user_id
WITH NO DATA;

SELECT analytics_keep_fresh('analytics_user_quarters');

-- To find one user's days. Without a name: the index stands in a schema that all installations share.
CREATE INDEX ON analytics_user_quarters (user_id, quarter);

-- postgresql

CREATE FUNCTION analytics_user_quarters_live(since timestamptz, until timestamptz) RETURNS TABLE (
    quarter timestamptz,
    service text,
    user_id uuid,
    events bigint
)
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
    SELECT
        analytics_bucket('15 minutes', timestamp) AS quarter,
        service,
        user_id,
        count(*) AS events
    FROM analytics_events
    WHERE timestamp >= since AND timestamp < until
    GROUP BY quarter, service, user_id;
    END;

-- By the hour, because changes are noted by the hour.
SELECT analytics_make_filled('analytics_user_quarters', '1 hour');

-- To find one user's days.
CREATE INDEX analytics_user_quarters_filled_user_id_quarter_idx ON analytics_user_quarters_filled (user_id, quarter);
