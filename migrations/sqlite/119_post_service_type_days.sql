-- Aggregate events by day, service and type, with the distinct users

-- Besides analytics_type_days, because the users of several services cannot be added up.

INSERT INTO analytics_fills (view_name, bucket_column, step) VALUES ('analytics_service_type_days', 'day', 'day');

CREATE VIEW analytics_service_type_days_live AS
SELECT e.day, e.service, e.event_type, count(*) AS events, count(DISTINCT e.user_id) AS unique_users
FROM analytics_event_facts AS e
WHERE e.timestamp >= (SELECT f.live_since FROM analytics_fills AS f WHERE f.view_name = 'analytics_service_type_days')
    AND e.timestamp < (SELECT f.live_until FROM analytics_fills AS f WHERE f.view_name = 'analytics_service_type_days')
GROUP BY e.day, e.service, e.event_type;

CREATE TABLE analytics_service_type_days_filled (
    day TEXT NOT NULL,
    service TEXT,
    event_type TEXT,
    events INTEGER,
    unique_users INTEGER
);
CREATE INDEX analytics_service_type_days_filled_day_idx ON analytics_service_type_days_filled (day);

CREATE VIEW analytics_service_type_days AS
SELECT
    filled.day, filled.service, filled.event_type, filled.events, filled.unique_users
FROM analytics_service_type_days_filled AS filled
WHERE filled.day < (SELECT f.filled_until FROM analytics_fills AS f WHERE f.view_name = 'analytics_service_type_days')
UNION ALL
SELECT
    live.day, live.service, live.event_type, live.events, live.unique_users
FROM analytics_service_type_days_live AS live;
