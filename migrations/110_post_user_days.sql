-- Aggregate events by day and user, for the daily, weekly and monthly active users
-- for: timescaledb
CREATE MATERIALIZED VIEW analytics_user_days
WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
SELECT
    time_bucket('1 day', timestamp) AS day,
    user_id,
    count(*) AS events
FROM analytics_events
GROUP BY day, user_id
WITH NO DATA;
