-- Aggregate logins, code verifications and token refreshes by day

INSERT INTO analytics_fills (view_name, bucket_column, step) VALUES ('analytics_auth_events_daily', 'day', 'day');

CREATE VIEW analytics_auth_events_daily_live AS
SELECT
    e.day,
    count(*) FILTER (WHERE e.event_type = 'auth_login_attempt') AS login_attempts,
    count(*) FILTER (WHERE e.event_type = 'auth_login_attempt' AND e.success = 'true') AS successful_logins,
    count(*) FILTER (WHERE e.event_type = 'auth_login_attempt' AND e.success = 'false') AS failed_logins,
    count(*) FILTER (WHERE e.event_type = 'auth_code_verified') AS code_verifications,
    count(*) FILTER (WHERE e.event_type = 'auth_token_refresh') AS token_refreshes,
    count(DISTINCT CASE WHEN e.success = 'true' THEN e.user_id END) AS unique_users_authenticated
FROM analytics_event_facts AS e
WHERE e.timestamp >= (SELECT f.live_since FROM analytics_fills AS f WHERE f.view_name = 'analytics_auth_events_daily')
    AND e.timestamp < (SELECT f.live_until FROM analytics_fills AS f WHERE f.view_name = 'analytics_auth_events_daily')
    AND e.event_type IN ('auth_login_attempt', 'auth_code_verified', 'auth_token_refresh')
GROUP BY e.day;

CREATE TABLE analytics_auth_events_daily_filled (
    day TEXT NOT NULL,
    login_attempts INTEGER,
    successful_logins INTEGER,
    failed_logins INTEGER,
    code_verifications INTEGER,
    token_refreshes INTEGER,
    unique_users_authenticated INTEGER
);
CREATE INDEX analytics_auth_events_daily_filled_day_idx ON analytics_auth_events_daily_filled (day);

CREATE VIEW analytics_auth_events_daily AS
SELECT
    filled.day, filled.login_attempts, filled.successful_logins, filled.failed_logins, filled.code_verifications,
    filled.token_refreshes, filled.unique_users_authenticated
FROM analytics_auth_events_daily_filled AS filled
WHERE filled.day < (SELECT f.filled_until FROM analytics_fills AS f WHERE f.view_name = 'analytics_auth_events_daily')
UNION ALL
SELECT
    live.day, live.login_attempts, live.successful_logins, live.failed_logins, live.code_verifications,
    live.token_refreshes, live.unique_users_authenticated
FROM analytics_auth_events_daily_live AS live;
