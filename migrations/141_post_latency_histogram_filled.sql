-- Count API requests by hour, service, endpoint, method and the bin of their duration
-- for: postgresql
CREATE TABLE analytics_latency_histogram_filled (
    hour timestamptz NOT NULL,
    service text NOT NULL,
    endpoint text,
    method text,
    bin smallint,
    requests bigint NOT NULL
);
CREATE INDEX analytics_latency_histogram_filled_hour_idx ON analytics_latency_histogram_filled (hour);

-- Two histograms are merged by adding them up, bin by bin, which percentiles cannot.
CREATE FUNCTION analytics_latency_histogram_live(since timestamptz, until timestamptz)
    RETURNS SETOF analytics_latency_histogram_filled
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
    SELECT
        date_bin('1 hour', timestamp, '2000-01-01 00:00:00+00') AS hour,
        service,
        data ->> 'endpoint' AS endpoint,
        data ->> 'method' AS method,
        analytics_latency_bin(analytics_amount(data -> 'duration_ms')) AS bin,
        count(*) AS requests
    FROM analytics_events
    WHERE timestamp >= since AND timestamp < until AND event_type = 'api_request' AND analytics_amount(data -> 'duration_ms') IS NOT NULL
    GROUP BY hour, service, endpoint, method, bin;
    END;

INSERT INTO analytics_fills (view_name, bucket_column, step)
VALUES ('analytics_latency_histogram', 'hour', '1 hour');

CREATE VIEW analytics_latency_histogram AS
SELECT filled.*
FROM analytics_latency_histogram_filled AS filled
WHERE filled.hour < (SELECT filled_until FROM analytics_fills WHERE view_name = 'analytics_latency_histogram')
UNION ALL
SELECT live.*
FROM analytics_fills AS fills, analytics_latency_histogram_live(fills.filled_until, 'infinity') AS live
WHERE fills.view_name = 'analytics_latency_histogram';
