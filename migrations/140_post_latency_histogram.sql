-- Count API requests by hour, service, endpoint, method and the bin of their duration
-- for: timescaledb
-- Two histograms are merged by adding them up, bin by bin, which percentiles cannot.
CREATE MATERIALIZED VIEW analytics_latency_histogram
WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
SELECT
    time_bucket('1 hour', timestamp) AS hour,
    service,
    data ->> 'endpoint' AS endpoint,
    data ->> 'method' AS method,
    analytics_latency_bin(analytics_amount(data -> 'duration_ms')) AS bin,
    count(*) AS requests
FROM analytics_events
WHERE event_type = 'api_request' AND analytics_amount(data -> 'duration_ms') IS NOT NULL
GROUP BY hour, service, endpoint, method, bin
WITH NO DATA;
