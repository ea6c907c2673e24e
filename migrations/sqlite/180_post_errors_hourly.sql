-- Aggregate application errors by hour, service, type and fingerprint

-- The sample is the first message in byte order: the same on every database, and however often it is computed.

INSERT INTO analytics_fills (view_name, bucket_column, step) VALUES ('analytics_errors_hourly', 'hour', 'hour');

CREATE VIEW analytics_errors_hourly_live AS
SELECT
    e.hour,
    e.service,
    e.error_type,
    e.fingerprint,
    count(*) AS error_count,
    count(DISTINCT e.user_id) AS affected_users,
    min(e.error_message) AS sample_error_message
FROM analytics_event_facts AS e
WHERE e.timestamp >= (SELECT f.live_since FROM analytics_fills AS f WHERE f.view_name = 'analytics_errors_hourly')
    AND e.timestamp < (SELECT f.live_until FROM analytics_fills AS f WHERE f.view_name = 'analytics_errors_hourly')
    AND e.event_type = 'application_error'
GROUP BY e.hour, e.service, e.error_type, e.fingerprint;

CREATE TABLE analytics_errors_hourly_filled (
    hour TEXT NOT NULL,
    service TEXT,
    error_type TEXT,
    fingerprint TEXT,
    error_count INTEGER,
    affected_users INTEGER,
    sample_error_message TEXT
);
CREATE INDEX analytics_errors_hourly_filled_hour_idx ON analytics_errors_hourly_filled (hour);

CREATE VIEW analytics_errors_hourly AS
SELECT
    filled.hour, filled.service, filled.error_type, filled.fingerprint, filled.error_count, filled.affected_users,
    filled.sample_error_message
FROM analytics_errors_hourly_filled AS filled
WHERE filled.hour < (SELECT f.filled_until FROM analytics_fills AS f WHERE f.view_name = 'analytics_errors_hourly')
UNION ALL
SELECT
    live.hour, live.service, live.error_type, live.fingerprint, live.error_count, live.affected_users,
    live.sample_error_message
FROM analytics_errors_hourly_live AS live;
