-- Aggregate the use of integrations by day and provider

INSERT INTO analytics_fills (view_name, bucket_column, step) VALUES ('analytics_integration_health_daily', 'day', 'day');

CREATE VIEW analytics_integration_health_daily_live AS
SELECT
    e.day,
    e.provider,
    count(*) FILTER (WHERE e.event_type = 'integration_connected') AS connections,
    count(*) FILTER (WHERE e.event_type = 'integration_disconnected') AS disconnections,
    count(*) FILTER (WHERE e.event_type = 'integration_used') AS uses,
    count(*) FILTER (WHERE e.event_type = 'integration_error') AS errors,
    count(DISTINCT e.user_id) AS unique_users
FROM analytics_event_facts AS e
WHERE e.timestamp >= (SELECT f.live_since FROM analytics_fills AS f WHERE f.view_name = 'analytics_integration_health_daily')
    AND e.timestamp < (SELECT f.live_until FROM analytics_fills AS f WHERE f.view_name = 'analytics_integration_health_daily')
    AND e.event_type IN (
        'integration_connected', 'integration_disconnected', 'integration_used', 'integration_error'
    )
GROUP BY e.day, e.provider;

CREATE TABLE analytics_integration_health_daily_filled (
    day TEXT NOT NULL,
    provider TEXT,
    connections INTEGER,
    disconnections INTEGER,
    uses INTEGER,
    errors INTEGER,
    unique_users INTEGER
);
CREATE INDEX analytics_integration_health_daily_filled_day_idx ON analytics_integration_health_daily_filled (day);

CREATE VIEW analytics_integration_health_daily AS
SELECT
    filled.day, filled.provider, filled.connections, filled.disconnections, filled.uses, filled.errors,
    filled.unique_users
FROM analytics_integration_health_daily_filled AS filled
WHERE filled.day < (SELECT f.filled_until FROM analytics_fills AS f WHERE f.view_name = 'analytics_integration_health_daily')
UNION ALL
SELECT
    live.day, live.provider, live.connections, live.disconnections, live.uses, live.errors, live.unique_users
FROM analytics_integration_health_daily_live AS live;
