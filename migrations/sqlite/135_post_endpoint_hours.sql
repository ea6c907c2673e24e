-- Aggregate API requests by hour, service, environment, endpoint and method, in sums that can be added up

-- Averages cannot be added up, so the averages of longer ranges come from here.

INSERT INTO analytics_fills (view_name, bucket_column, step) VALUES ('analytics_endpoint_hours', 'hour', 'hour');

CREATE VIEW analytics_endpoint_hours_live AS
SELECT
    e.hour,
    e.service,
    e.environment,
    e.endpoint,
    e.method,
    count(*) AS requests,
    count(e.duration_ms) AS measured,
    sum(e.duration_ms) AS duration_ms,
    count(*) FILTER (WHERE e.status_code BETWEEN 400 AND 499) AS errors_4xx,
    count(*) FILTER (WHERE e.status_code BETWEEN 500 AND 599) AS errors_5xx,
    count(e.db_queries) AS with_queries,
    sum(e.db_queries) AS db_queries,
    max(e.db_repeats) AS max_db_repeats
FROM analytics_event_facts AS e
WHERE e.timestamp >= (SELECT f.live_since FROM analytics_fills AS f WHERE f.view_name = 'analytics_endpoint_hours')
    AND e.timestamp < (SELECT f.live_until FROM analytics_fills AS f WHERE f.view_name = 'analytics_endpoint_hours')
    AND e.event_type = 'api_request'
GROUP BY e.hour, e.service, e.environment, e.endpoint, e.method;

CREATE TABLE analytics_endpoint_hours_filled (
    hour TEXT NOT NULL,
    service TEXT,
    environment TEXT,
    endpoint TEXT,
    method TEXT,
    requests INTEGER,
    measured INTEGER,
    duration_ms REAL,
    errors_4xx INTEGER,
    errors_5xx INTEGER,
    with_queries INTEGER,
    db_queries REAL,
    max_db_repeats REAL
);
CREATE INDEX analytics_endpoint_hours_filled_hour_idx ON analytics_endpoint_hours_filled (hour);

CREATE VIEW analytics_endpoint_hours AS
SELECT
    filled.hour, filled.service, filled.environment, filled.endpoint, filled.method, filled.requests,
    filled.measured, filled.duration_ms, filled.errors_4xx, filled.errors_5xx, filled.with_queries,
    filled.db_queries, filled.max_db_repeats
FROM analytics_endpoint_hours_filled AS filled
WHERE filled.hour < (SELECT f.filled_until FROM analytics_fills AS f WHERE f.view_name = 'analytics_endpoint_hours')
UNION ALL
SELECT
    live.hour, live.service, live.environment, live.endpoint, live.method, live.requests, live.measured,
    live.duration_ms, live.errors_4xx, live.errors_5xx, live.with_queries, live.db_queries, live.max_db_repeats
FROM analytics_endpoint_hours_live AS live;
