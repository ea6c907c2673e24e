-- Aggregate the use of integrations by day and provider
-- for: postgresql
CREATE TABLE analytics_integration_health_daily_filled (
    day timestamptz NOT NULL,
    provider text,
    connections bigint NOT NULL,
    disconnections bigint NOT NULL,
    uses bigint NOT NULL,
    errors bigint NOT NULL,
    unique_users bigint NOT NULL
);
CREATE INDEX analytics_integration_health_daily_filled_day_idx ON analytics_integration_health_daily_filled (day);

CREATE FUNCTION analytics_integration_health_daily_live(since timestamptz, until timestamptz)
    RETURNS SETOF analytics_integration_health_daily_filled
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
    SELECT
        date_bin('1 day', timestamp, '2000-01-01 00:00:00+00') AS day,
        data ->> 'provider' AS provider,
        count(*) FILTER (WHERE event_type = 'integration_connected') AS connections,
        count(*) FILTER (WHERE event_type = 'integration_disconnected') AS disconnections,
        count(*) FILTER (WHERE event_type = 'integration_used') AS uses,
        count(*) FILTER (WHERE event_type = 'integration_error') AS errors,
        count(DISTINCT user_id) AS unique_users
    FROM analytics_events
    WHERE timestamp >= since AND timestamp < until AND event_type IN (
        'integration_connected', 'integration_disconnected', 'integration_used', 'integration_error'
    )
    GROUP BY day, provider;
    END;

INSERT INTO analytics_fills (view_name, bucket_column, step)
VALUES ('analytics_integration_health_daily', 'day', '1 day');

CREATE VIEW analytics_integration_health_daily AS
SELECT filled.*
FROM analytics_integration_health_daily_filled AS filled
WHERE filled.day < (SELECT filled_until FROM analytics_fills WHERE view_name = 'analytics_integration_health_daily')
UNION ALL
SELECT live.*
FROM analytics_fills AS fills, analytics_integration_health_daily_live(fills.filled_until, 'infinity') AS live
WHERE fills.view_name = 'analytics_integration_health_daily';
