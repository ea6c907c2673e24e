-- Count API requests by hour, service, endpoint, method and bin of duration

-- Histograms are merged by adding them up, bin by bin. Percentiles cannot be merged. A bin is -1000 for zero, else the
-- exponent of the least power of 1.04 that is not below the duration.

INSERT INTO analytics_fills (view_name, bucket_column, step) VALUES ('analytics_latency_histogram', 'hour', 'hour');

CREATE VIEW analytics_latency_histogram_live AS
SELECT
    e.hour,
    e.service,
    e.endpoint,
    e.method,
    CASE
        WHEN e.duration_ms > 0
            THEN (SELECT p.exponent FROM analytics_powers AS p WHERE p.power >= e.duration_ms ORDER BY p.power LIMIT 1)
        WHEN e.duration_ms = 0 THEN -1000
    END AS bin,
    count(*) AS requests,
    count(*) FILTER (WHERE e.status_code BETWEEN 500 AND 599) AS errors_5xx
FROM analytics_event_facts AS e
WHERE e.timestamp >= (SELECT f.live_since FROM analytics_fills AS f WHERE f.view_name = 'analytics_latency_histogram')
    AND e.timestamp < (SELECT f.live_until FROM analytics_fills AS f WHERE f.view_name = 'analytics_latency_histogram')
    AND e.event_type = 'api_request' AND e.duration_ms IS NOT NULL
GROUP BY e.hour, e.service, e.endpoint, e.method, bin;

CREATE TABLE analytics_latency_histogram_filled (
    hour TEXT NOT NULL,
    service TEXT,
    endpoint TEXT,
    method TEXT,
    bin INTEGER,
    requests INTEGER,
    errors_5xx INTEGER
);
CREATE INDEX analytics_latency_histogram_filled_hour_idx ON analytics_latency_histogram_filled (hour);

CREATE VIEW analytics_latency_histogram AS
SELECT
    filled.hour, filled.service, filled.endpoint, filled.method, filled.bin, filled.requests, filled.errors_5xx
FROM analytics_latency_histogram_filled AS filled
WHERE filled.hour < (SELECT f.filled_until FROM analytics_fills AS f WHERE f.view_name = 'analytics_latency_histogram')
UNION ALL
SELECT
    live.hour, live.service, live.endpoint, live.method, live.bin, live.requests, live.errors_5xx
FROM analytics_latency_histogram_live AS live;

-- The duration that stands for each bin.
CREATE VIEW analytics_latency_bins AS
SELECT p.exponent AS bin, 2 * p.power / 2.04 AS duration_ms
FROM analytics_powers AS p
WHERE p.exponent BETWEEN -600 AND 5900
UNION ALL
SELECT -1000, 0.0;
