-- Aggregate queries by day, service, environment, fingerprint, endpoint and bin of duration

-- Histograms are merged by adding them up, bin by bin; a query without a duration has no bin. By `newest_at` the text
-- of the statement is found again.

INSERT INTO analytics_fills (view_name, bucket_column, step) VALUES ('analytics_query_days', 'day', 'day');

CREATE VIEW analytics_query_days_live AS
SELECT
    e.day,
    e.service,
    e.environment,
    e.fingerprint,
    e.endpoint,
    CASE
        WHEN e.duration_ms > 0
            THEN (SELECT p.exponent FROM analytics_powers AS p WHERE p.power >= e.duration_ms ORDER BY p.power LIMIT 1)
        WHEN e.duration_ms = 0 THEN -1000
    END AS bin,
    count(*) AS calls,
    sum(e.duration_ms) AS duration_ms,
    count(*) FILTER (WHERE e.outcome <> 'ok') AS errors,
    max(e.timestamp) AS newest_at
FROM analytics_event_facts AS e
WHERE e.timestamp >= (SELECT f.live_since FROM analytics_fills AS f WHERE f.view_name = 'analytics_query_days')
    AND e.timestamp < (SELECT f.live_until FROM analytics_fills AS f WHERE f.view_name = 'analytics_query_days')
    AND e.event_type = 'database_query'
GROUP BY e.day, e.service, e.environment, e.fingerprint, e.endpoint, bin;

CREATE TABLE analytics_query_days_filled (
    day TEXT NOT NULL,
    service TEXT,
    environment TEXT,
    fingerprint TEXT,
    endpoint TEXT,
    bin INTEGER,
    calls INTEGER,
    duration_ms REAL,
    errors INTEGER,
    newest_at TEXT
);
CREATE INDEX analytics_query_days_filled_day_idx ON analytics_query_days_filled (day);

CREATE VIEW analytics_query_days AS
SELECT
    filled.day, filled.service, filled.environment, filled.fingerprint, filled.endpoint, filled.bin, filled.calls,
    filled.duration_ms, filled.errors, filled.newest_at
FROM analytics_query_days_filled AS filled
WHERE filled.day < (SELECT f.filled_until FROM analytics_fills AS f WHERE f.view_name = 'analytics_query_days')
UNION ALL
SELECT
    live.day, live.service, live.environment, live.fingerprint, live.endpoint, live.bin, live.calls,
    live.duration_ms, live.errors, live.newest_at
FROM analytics_query_days_live AS live;

-- The same by statement, whatever the endpoint. `histogram` is as that of analytics_endpoint_days, `endpoints` a JSON
-- array.
CREATE VIEW analytics_statement_days AS
SELECT
    b.day,
    b.service,
    b.environment,
    b.fingerprint,
    sum(b.calls) AS calls,
    coalesce(sum(b.calls) FILTER (WHERE b.bin IS NOT NULL), 0) AS measured,
    sum(b.duration_ms) AS duration_ms,
    sum(b.errors) AS errors,
    max(b.newest_at) AS newest_at,
    CASE WHEN count(b.bin) > 0 THEN json_group_object(b.bin, b.calls) FILTER (WHERE b.bin IS NOT NULL) END AS histogram,
    json_group_array(b.endpoint) FILTER (WHERE b.endpoint IS NOT NULL) AS endpoints
FROM (
    SELECT
        q.day, q.service, q.environment, q.fingerprint, q.bin, NULL AS endpoint, sum(q.calls) AS calls,
        sum(q.duration_ms) AS duration_ms, sum(q.errors) AS errors, max(q.newest_at) AS newest_at
    FROM analytics_query_days AS q
    GROUP BY q.day, q.service, q.environment, q.fingerprint, q.bin
    UNION ALL
    SELECT DISTINCT q.day, q.service, q.environment, q.fingerprint, NULL, q.endpoint, NULL, NULL, NULL, NULL
    FROM analytics_query_days AS q
    WHERE q.endpoint IS NOT NULL
) AS b
GROUP BY b.day, b.service, b.environment, b.fingerprint;
