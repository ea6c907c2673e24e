-- Aggregate page views by day, service, page and who they are counted for, for the distinct visitors of each page

-- Who: the user, else the visitor, to count them by; null for who is counted and not followed. `measured` counts how
-- often a page told for how long it was visible.

INSERT INTO analytics_fills (view_name, bucket_column, step) VALUES ('analytics_page_visitors_daily', 'day', 'day');

CREATE VIEW analytics_page_visitors_daily_live AS
SELECT
    e.day,
    e.service,
    e.page,
    coalesce(e.user_id, e.visitor) AS who,
    count(*) FILTER (WHERE e.event_type = 'page_view') AS page_views,
    count(CASE WHEN e.event_type = 'page_engaged' THEN e.visible_ms END) AS measured,
    sum(CASE WHEN e.event_type = 'page_engaged' THEN e.visible_ms END) AS visible_ms
FROM analytics_event_facts AS e
WHERE e.timestamp >= (SELECT f.live_since FROM analytics_fills AS f WHERE f.view_name = 'analytics_page_visitors_daily')
    AND e.timestamp < (SELECT f.live_until FROM analytics_fills AS f WHERE f.view_name = 'analytics_page_visitors_daily')
    AND e.event_type IN ('page_view', 'page_engaged') AND e.page IS NOT NULL
GROUP BY e.day, e.service, e.page, who;

CREATE TABLE analytics_page_visitors_daily_filled (
    day TEXT NOT NULL,
    service TEXT,
    page TEXT,
    who TEXT,
    page_views INTEGER,
    measured INTEGER,
    visible_ms REAL
);
CREATE INDEX analytics_page_visitors_daily_filled_day_idx ON analytics_page_visitors_daily_filled (day);

CREATE VIEW analytics_page_visitors_daily AS
SELECT
    filled.day, filled.service, filled.page, filled.who, filled.page_views, filled.measured, filled.visible_ms
FROM analytics_page_visitors_daily_filled AS filled
WHERE filled.day < (SELECT f.filled_until FROM analytics_fills AS f WHERE f.view_name = 'analytics_page_visitors_daily')
UNION ALL
SELECT
    live.day, live.service, live.page, live.who, live.page_views, live.measured, live.visible_ms
FROM analytics_page_visitors_daily_live AS live;
