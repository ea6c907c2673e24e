-- Aggregate the activity of cocoons by day
-- for: timescaledb
-- A setup token that was created has no cocoon yet and no column here: it makes no row by itself.
CREATE MATERIALIZED VIEW analytics_cocoon_activity_daily
WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
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
