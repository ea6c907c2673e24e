-- Aggregate application errors by hour, service, type and fingerprint
-- for: postgresql
CREATE TABLE analytics_errors_hourly_filled (
    hour timestamptz NOT NULL,
    service text NOT NULL,
    error_type text,
    fingerprint text,
    error_count bigint NOT NULL,
    affected_users bigint NOT NULL,
    sample_error_message text
);
CREATE INDEX analytics_errors_hourly_filled_hour_idx ON analytics_errors_hourly_filled (hour);

-- The sample is the first message in byte order: the same on every database, and however often it is computed.
CREATE FUNCTION analytics_errors_hourly_live(since timestamptz, until timestamptz)
    RETURNS SETOF analytics_errors_hourly_filled
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
    SELECT
        date_bin('1 hour', timestamp, '2000-01-01 00:00:00+00') AS hour,
        service,
        data ->> 'error_type' AS error_type,
        data ->> 'fingerprint' AS fingerprint,
        count(*) AS error_count,
        count(DISTINCT user_id) AS affected_users,
        min((data ->> 'error_message') COLLATE "C") AS sample_error_message
    FROM analytics_events
    WHERE timestamp >= since AND timestamp < until AND event_type = 'application_error'
    GROUP BY hour, service, error_type, fingerprint;
    END;

INSERT INTO analytics_fills (view_name, bucket_column, step)
VALUES ('analytics_errors_hourly', 'hour', '1 hour');

CREATE VIEW analytics_errors_hourly AS
SELECT filled.*
FROM analytics_errors_hourly_filled AS filled
WHERE filled.hour < (SELECT filled_until FROM analytics_fills WHERE view_name = 'analytics_errors_hourly')
UNION ALL
SELECT live.*
FROM analytics_fills AS fills, analytics_errors_hourly_live(fills.filled_until, 'infinity') AS live
WHERE fills.view_name = 'analytics_errors_hourly';
