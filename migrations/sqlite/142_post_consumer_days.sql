-- Aggregate API requests by day, service and user

-- With all durations, a JSON array in no order, so that the percentile of any range is exact.

INSERT INTO analytics_fills (view_name, bucket_column, step) VALUES ('analytics_consumer_days', 'day', 'day');

CREATE VIEW analytics_consumer_days_live AS
SELECT
    e.day,
    e.service,
    e.user_id,
    count(*) AS requests,
    count(*) FILTER (WHERE e.status_code BETWEEN 400 AND 499) AS errors_4xx,
    count(*) FILTER (WHERE e.status_code BETWEEN 500 AND 599) AS errors_5xx,
    min(e.timestamp) AS first_seen_at,
    max(e.timestamp) AS last_seen_at,
    CASE
        WHEN count(e.duration_ms) > 0 THEN json_group_array(e.duration_ms) FILTER (WHERE e.duration_ms IS NOT NULL)
    END AS durations_ms
FROM analytics_event_facts AS e
WHERE e.timestamp >= (SELECT f.live_since FROM analytics_fills AS f WHERE f.view_name = 'analytics_consumer_days')
    AND e.timestamp < (SELECT f.live_until FROM analytics_fills AS f WHERE f.view_name = 'analytics_consumer_days')
    AND e.event_type = 'api_request' AND e.user_id IS NOT NULL
GROUP BY e.day, e.service, e.user_id;

CREATE TABLE analytics_consumer_days_filled (
    day TEXT NOT NULL,
    service TEXT,
    user_id TEXT,
    requests INTEGER,
    errors_4xx INTEGER,
    errors_5xx INTEGER,
    first_seen_at TEXT,
    last_seen_at TEXT,
    durations_ms TEXT
);
CREATE INDEX analytics_consumer_days_filled_day_idx ON analytics_consumer_days_filled (day);
CREATE INDEX analytics_consumer_days_filled_user_id_day_idx ON analytics_consumer_days_filled (user_id, day);

CREATE VIEW analytics_consumer_days AS
SELECT
    filled.day, filled.service, filled.user_id, filled.requests, filled.errors_4xx, filled.errors_5xx,
    filled.first_seen_at, filled.last_seen_at, filled.durations_ms
FROM analytics_consumer_days_filled AS filled
WHERE filled.day < (SELECT f.filled_until FROM analytics_fills AS f WHERE f.view_name = 'analytics_consumer_days')
UNION ALL
SELECT
    live.day, live.service, live.user_id, live.requests, live.errors_4xx, live.errors_5xx, live.first_seen_at,
    live.last_seen_at, live.durations_ms
FROM analytics_consumer_days_live AS live;
