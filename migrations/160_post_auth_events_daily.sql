-- Aggregate logins, code verifications and token refreshes by day

-- success is compared as text: a cast of what may stand there could fail.

-- timescaledb

CREATE MATERIALIZED VIEW analytics_auth_events_daily
WITH (timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false) AS
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

SELECT analytics_keep_fresh('analytics_auth_events_daily');

-- postgresql

CREATE FUNCTION analytics_auth_events_daily_live(since timestamptz, until timestamptz) RETURNS TABLE (
    day timestamptz,
    login_attempts bigint,
    successful_logins bigint,
    failed_logins bigint,
    code_verifications bigint,
    token_refreshes bigint,
    unique_users_authenticated bigint
)
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
    SELECT
        analytics_bucket('1 day', timestamp) AS day,
        count(*) FILTER (WHERE event_type = 'auth_login_attempt') AS login_attempts,
        count(*) FILTER (WHERE event_type = 'auth_login_attempt' AND data ->> 'success' = 'true') AS successful_logins,
        count(*) FILTER (WHERE event_type = 'auth_login_attempt' AND data ->> 'success' = 'false') AS failed_logins,
        count(*) FILTER (WHERE event_type = 'auth_code_verified') AS code_verifications,
        count(*) FILTER (WHERE event_type = 'auth_token_refresh') AS token_refreshes,
        count(DISTINCT user_id) FILTER (WHERE data ->> 'success' = 'true') AS unique_users_authenticated
    FROM analytics_events
    WHERE timestamp >= since AND timestamp < until
        AND event_type IN ('auth_login_attempt', 'auth_code_verified', 'auth_token_refresh')
    GROUP BY day;
    END;

SELECT analytics_make_filled('analytics_auth_events_daily', '1 day');
