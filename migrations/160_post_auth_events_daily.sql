-- Aggregate logins, code verifications and token refreshes by day
-- for: timescaledb
-- Compared as text, for a cast of what somebody wrote by hand could fail.
CREATE MATERIALIZED VIEW analytics_auth_events_daily
WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
SELECT
    time_bucket('1 day', timestamp) AS day,
    count(*) FILTER (WHERE event_type = 'auth_login_attempt') AS login_attempts,
    count(*) FILTER (WHERE event_type = 'auth_login_attempt' AND data ->> 'success' = 'true') AS successful_logins,
    count(*) FILTER (WHERE event_type = 'auth_login_attempt' AND data ->> 'success' = 'false') AS failed_logins,
    count(*) FILTER (WHERE event_type = 'auth_code_verified') AS code_verifications,
    count(*) FILTER (WHERE event_type = 'auth_token_refresh') AS token_refreshes,
    count(DISTINCT user_id) FILTER (WHERE data ->> 'success' = 'true') AS unique_users_authenticated
FROM analytics_events
WHERE event_type IN ('auth_login_attempt', 'auth_code_verified', 'auth_token_refresh')
GROUP BY day
WITH NO DATA;
