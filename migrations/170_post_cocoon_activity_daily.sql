-- Aggregate the activity of cocoons by day

-- A setup token that was created has no cocoon yet and no column here: it makes no row by itself.

-- timescaledb

CREATE MATERIALIZED VIEW analytics_cocoon_activity_daily
WITH (timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false) AS
SELECT
    time_bucket('1 day', timestamp) AS day,
    count(*) FILTER (WHERE event_type = 'cocoon_registered') AS registrations,
    count(*) FILTER (WHERE event_type = 'cocoon_connected') AS connections,
    count(*) FILTER (WHERE event_type = 'cocoon_disconnected') AS disconnections,
    count(*) FILTER (WHERE event_type = 'cocoon_claimed') AS claims,
    avg(analytics_amount(data -> 'duration_seconds'))
        FILTER (WHERE event_type = 'cocoon_disconnected') AS avg_session_duration_seconds,
    count(DISTINCT data ->> 'cocoon_id') AS unique_cocoons
FROM analytics_events
WHERE event_type IN (
    'cocoon_registered', 'cocoon_connected', 'cocoon_disconnected', 'cocoon_claimed',
    'cocoon_setup_token_used'
)
GROUP BY day
WITH NO DATA;

SELECT analytics_keep_fresh('analytics_cocoon_activity_daily');

-- postgresql

CREATE FUNCTION analytics_cocoon_activity_daily_live(since timestamptz, until timestamptz) RETURNS TABLE (
    day timestamptz,
    registrations bigint,
    connections bigint,
    disconnections bigint,
    claims bigint,
    avg_session_duration_seconds float8,
    unique_cocoons bigint
)
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
    SELECT
        analytics_bucket('1 day', timestamp) AS day,
        count(*) FILTER (WHERE event_type = 'cocoon_registered') AS registrations,
        count(*) FILTER (WHERE event_type = 'cocoon_connected') AS connections,
        count(*) FILTER (WHERE event_type = 'cocoon_disconnected') AS disconnections,
        count(*) FILTER (WHERE event_type = 'cocoon_claimed') AS claims,
        avg(analytics_amount(data -> 'duration_seconds'))
            FILTER (WHERE event_type = 'cocoon_disconnected') AS avg_session_duration_seconds,
        count(DISTINCT data ->> 'cocoon_id') AS unique_cocoons
    FROM analytics_events
    WHERE timestamp >= since AND timestamp < until
        AND event_type IN (
            'cocoon_registered', 'cocoon_connected', 'cocoon_disconnected', 'cocoon_claimed',
            'cocoon_setup_token_used'
        )
    GROUP BY day;
    END;

SELECT analytics_make_filled('analytics_cocoon_activity_daily', '1 day');
