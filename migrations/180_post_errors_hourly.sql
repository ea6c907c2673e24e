-- Aggregate application errors by hour, service, type and fingerprint
-- for: timescaledb
-- The sample is the first message in byte order: the same on every database, and however often it is computed.
CREATE MATERIALIZED VIEW analytics_errors_hourly
WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
SELECT
    time_bucket('1 hour', timestamp) AS hour,
    service,
    data ->> 'error_type' AS error_type,
    data ->> 'fingerprint' AS fingerprint,
    count(*) AS error_count,
    count(DISTINCT user_id) AS affected_users,
    min((data ->> 'error_message') COLLATE "C") AS sample_error_message
FROM analytics_events
WHERE event_type = 'application_error'
GROUP BY hour, service, error_type, fingerprint
WITH NO DATA;
