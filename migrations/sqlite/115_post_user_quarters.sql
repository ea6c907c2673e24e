-- Aggregate events by quarter hour, service and user, for active users by service and in every time zone

-- Wherever people live, their days begin at a quarter hour of UTC.

INSERT INTO analytics_fills (view_name, bucket_column, step) VALUES ('analytics_user_quarters', 'quarter', 'hour');

CREATE VIEW analytics_user_quarters_live AS
SELECT e.quarter, e.service, e.user_id, count(*) AS events
FROM analytics_event_facts AS e
WHERE e.timestamp >= (SELECT f.live_since FROM analytics_fills AS f WHERE f.view_name = 'analytics_user_quarters')
    AND e.timestamp < (SELECT f.live_until FROM analytics_fills AS f WHERE f.view_name = 'analytics_user_quarters')
GROUP BY e.quarter, e.service, e.user_id;

CREATE TABLE analytics_user_quarters_filled (
    quarter TEXT NOT NULL,
    service TEXT,
    user_id TEXT,
    events INTEGER
);
-- None by user, as for analytics_user_days_filled.
CREATE INDEX analytics_user_quarters_filled_quarter_idx ON analytics_user_quarters_filled (quarter);

CREATE VIEW analytics_user_quarters AS
SELECT
    filled.quarter, filled.service, filled.user_id, filled.events
FROM analytics_user_quarters_filled AS filled
WHERE filled.quarter < (SELECT f.filled_until FROM analytics_fills AS f WHERE f.view_name = 'analytics_user_quarters')
UNION ALL
SELECT
    live.quarter, live.service, live.user_id, live.events
FROM analytics_user_quarters_live AS live;
