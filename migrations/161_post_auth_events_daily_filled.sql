-- Aggregate logins, code verifications and token refreshes by day
-- for: postgresql
CREATE TABLE analytics_auth_events_daily_filled (
    day timestamptz NOT NULL,
    login_attempts bigint NOT NULL,
    successful_logins bigint NOT NULL,
    failed_logins bigint NOT NULL,
    code_verifications bigint NOT NULL,
    token_refreshes bigint NOT NULL,
    unique_users_authenticated bigint NOT NULL
);
CREATE INDEX analytics_auth_events_daily_filled_day_idx ON analytics_auth_events_daily_filled (day);

-- Compared as text, for a cast of what somebody wrote by hand could fail.
CREATE FUNCTION analytics_auth_events_daily_live(since timestamptz, until timestamptz)
    RETURNS SETOF analytics_auth_events_daily_filled
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
    SELECT
        date_bin('1 day', timestamp, '2000-01-01 00:00:00+00') AS day,
        count(*) FILTER (WHERE event_type = 'auth_login_attempt') AS login_attempts,
        count(*) FILTER (WHERE event_type = 'auth_login_attempt' AND data ->> 'success' = 'true') AS successful_logins,
        count(*) FILTER (WHERE event_type = 'auth_login_attempt' AND data ->> 'success' = 'false') AS failed_logins,
        count(*) FILTER (WHERE event_type = 'auth_code_verified') AS code_verifications,
        count(*) FILTER (WHERE event_type = 'auth_token_refresh') AS token_refreshes,
        count(DISTINCT user_id) FILTER (WHERE data ->> 'success' = 'true') AS unique_users_authenticated
    FROM analytics_events
    WHERE timestamp >= since AND timestamp < until AND event_type IN ('auth_login_attempt', 'auth_code_verified', 'auth_token_refresh')
    GROUP BY day;
    END;

INSERT INTO analytics_fills (view_name, bucket_column, step)
VALUES ('analytics_auth_events_daily', 'day', '1 day');

CREATE VIEW analytics_auth_events_daily AS
SELECT filled.*
FROM analytics_auth_events_daily_filled AS filled
WHERE filled.day < (SELECT filled_until FROM analytics_fills WHERE view_name = 'analytics_auth_events_daily')
UNION ALL
SELECT live.*
FROM analytics_fills AS fills, analytics_auth_events_daily_live(fills.filled_until, 'infinity') AS live
WHERE fills.view_name = 'analytics_auth_events_daily';
