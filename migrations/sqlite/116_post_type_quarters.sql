-- Aggregate events by quarter hour, service and type, in sums that can be added up

-- `measured` counts the events that have a duration; `succeeded` and `failed` those that tell.

INSERT INTO analytics_fills (view_name, bucket_column, step) VALUES ('analytics_type_quarters', 'quarter', 'hour');

CREATE VIEW analytics_type_quarters_live AS
SELECT
    e.quarter,
    e.service,
    e.event_type,
    count(*) AS events,
    count(e.duration_ms) AS measured,
    sum(e.duration_ms) AS duration_ms,
    count(*) FILTER (WHERE e.success = 'true') AS succeeded,
    count(*) FILTER (WHERE e.success = 'false') AS failed
FROM analytics_event_facts AS e
WHERE e.timestamp >= (SELECT f.live_since FROM analytics_fills AS f WHERE f.view_name = 'analytics_type_quarters')
    AND e.timestamp < (SELECT f.live_until FROM analytics_fills AS f WHERE f.view_name = 'analytics_type_quarters')
GROUP BY e.quarter, e.service, e.event_type;

CREATE TABLE analytics_type_quarters_filled (
    quarter TEXT NOT NULL,
    service TEXT,
    event_type TEXT,
    events INTEGER,
    measured INTEGER,
    duration_ms REAL,
    succeeded INTEGER,
    failed INTEGER
);
CREATE INDEX analytics_type_quarters_filled_quarter_idx ON analytics_type_quarters_filled (quarter);
CREATE INDEX analytics_type_quarters_filled_event_type_quarter_idx ON analytics_type_quarters_filled (event_type, quarter);

CREATE VIEW analytics_type_quarters AS
SELECT
    filled.quarter, filled.service, filled.event_type, filled.events, filled.measured, filled.duration_ms,
    filled.succeeded, filled.failed
FROM analytics_type_quarters_filled AS filled
WHERE filled.quarter < (SELECT f.filled_until FROM analytics_fills AS f WHERE f.view_name = 'analytics_type_quarters')
UNION ALL
SELECT
    live.quarter, live.service, live.event_type, live.events, live.measured, live.duration_ms, live.succeeded,
    live.failed
FROM analytics_type_quarters_live AS live;
