-- Aggregate events by day, service, type and user, for the distinct users of each type

-- Distinct users of a longer range are counted over all of it: the counts of its days cannot be added up.

INSERT INTO analytics_fills (view_name, bucket_column, step) VALUES ('analytics_user_types_daily', 'day', 'day');

CREATE VIEW analytics_user_types_daily_live AS
SELECT e.day, e.service, e.event_type, e.user_id, count(*) AS events
FROM analytics_event_facts AS e
WHERE e.timestamp >= (SELECT f.live_since FROM analytics_fills AS f WHERE f.view_name = 'analytics_user_types_daily')
    AND e.timestamp < (SELECT f.live_until FROM analytics_fills AS f WHERE f.view_name = 'analytics_user_types_daily')
GROUP BY e.day, e.service, e.event_type, e.user_id;

CREATE TABLE analytics_user_types_daily_filled (
    day TEXT NOT NULL,
    service TEXT,
    event_type TEXT,
    user_id TEXT,
    events INTEGER
);
CREATE INDEX analytics_user_types_daily_filled_day_idx ON analytics_user_types_daily_filled (day);
CREATE INDEX analytics_user_types_daily_filled_event_type_day_idx ON analytics_user_types_daily_filled (event_type, day);

CREATE VIEW analytics_user_types_daily AS
SELECT
    filled.day, filled.service, filled.event_type, filled.user_id, filled.events
FROM analytics_user_types_daily_filled AS filled
WHERE filled.day < (SELECT f.filled_until FROM analytics_fills AS f WHERE f.view_name = 'analytics_user_types_daily')
UNION ALL
SELECT
    live.day, live.service, live.event_type, live.user_id, live.events
FROM analytics_user_types_daily_live AS live;
