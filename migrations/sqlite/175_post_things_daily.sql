-- Aggregate by day which cocoons were registered or connected, and which integrations were connected

-- Kept when the raw rows are dropped, so that the total of all things does not shrink.

INSERT INTO analytics_fills (view_name, bucket_column, step) VALUES ('analytics_things_daily', 'day', 'day');

CREATE VIEW analytics_things_daily_live AS
SELECT
    e.day,
    e.service,
    e.event_type,
    coalesce(json_extract(e.data, '$.cocoon_id'), json_extract(e.data, '$.integration_id')) AS thing_id,
    count(*) AS events
FROM analytics_event_facts AS e
WHERE e.timestamp >= (SELECT f.live_since FROM analytics_fills AS f WHERE f.view_name = 'analytics_things_daily')
    AND e.timestamp < (SELECT f.live_until FROM analytics_fills AS f WHERE f.view_name = 'analytics_things_daily')
    AND e.event_type IN ('cocoon_registered', 'cocoon_connected', 'integration_connected')
GROUP BY e.day, e.service, e.event_type, thing_id;

CREATE TABLE analytics_things_daily_filled (
    day TEXT NOT NULL,
    service TEXT,
    event_type TEXT,
    thing_id TEXT,
    events INTEGER
);
CREATE INDEX analytics_things_daily_filled_day_idx ON analytics_things_daily_filled (day);

CREATE VIEW analytics_things_daily AS
SELECT
    filled.day, filled.service, filled.event_type, filled.thing_id, filled.events
FROM analytics_things_daily_filled AS filled
WHERE filled.day < (SELECT f.filled_until FROM analytics_fills AS f WHERE f.view_name = 'analytics_things_daily')
UNION ALL
SELECT
    live.day, live.service, live.event_type, live.thing_id, live.events
FROM analytics_things_daily_live AS live;
