-- Aggregate API requests by day, service and user

-- With all durations, so that the percentile of any range is exact: eight bytes a request.

-- timescaledb

CREATE MATERIALIZED VIEW analytics_consumer_days
WITH (timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false) AS
SELECT
    time_bucket('1 day', timestamp) AS day,
    service,
    user_id,
    count(*) AS requests,
    count(*) FILTER (WHERE analytics_amount(data -> 'status_code') BETWEEN 400 AND 499) AS errors_4xx,
    count(*) FILTER (WHERE analytics_amount(data -> 'status_code') BETWEEN 500 AND 599) AS errors_5xx,
    min(timestamp) AS first_seen_at,
    max(timestamp) AS last_seen_at,
    array_agg(analytics_amount(data -> 'duration_ms') ORDER BY analytics_amount(data -> 'duration_ms')) FILTER (
        WHERE analytics_amount(data -> 'duration_ms') IS NOT NULL
    ) AS durations_ms
FROM analytics_events
WHERE event_type = 'api_request' AND user_id IS NOT NULL
GROUP BY day, service, user_id
WITH NO DATA;

SELECT analytics_keep_fresh('analytics_consumer_days');

-- To find one user's days. Without a name: the index stands in a schema that all installations share.
CREATE INDEX ON analytics_consumer_days (user_id, day);

-- postgresql

CREATE FUNCTION analytics_consumer_days_live(since timestamptz, until timestamptz) RETURNS TABLE (
    day timestamptz,
    service text,
    user_id uuid,
    requests bigint,
    errors_4xx bigint,
    errors_5xx bigint,
    first_seen_at timestamptz,
    last_seen_at timestamptz,
    durations_ms float8[]
)
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
    SELECT
        analytics_bucket('1 day', timestamp) AS day,
        service,
        user_id,
        count(*) AS requests,
        count(*) FILTER (WHERE analytics_amount(data -> 'status_code') BETWEEN 400 AND 499) AS errors_4xx,
        count(*) FILTER (WHERE analytics_amount(data -> 'status_code') BETWEEN 500 AND 599) AS errors_5xx,
        min(timestamp) AS first_seen_at,
        max(timestamp) AS last_seen_at,
        array_agg(analytics_amount(data -> 'duration_ms') ORDER BY analytics_amount(data -> 'duration_ms')) FILTER (
            WHERE analytics_amount(data -> 'duration_ms') IS NOT NULL
        ) AS durations_ms
    FROM analytics_events
    WHERE timestamp >= since AND timestamp < until
        AND event_type = 'api_request' AND user_id IS NOT NULL
    GROUP BY day, service, user_id;
    END;

SELECT analytics_make_filled('analytics_consumer_days', '1 day');

-- To find one user's days.
CREATE INDEX analytics_consumer_days_filled_user_id_day_idx ON analytics_consumer_days_filled (user_id, day);
