-- Aggregate API requests by day, service, endpoint and method, each with its histogram in two arrays

-- A day of an endpoint is one row, however many bins it has: months of histograms are merged in a fraction of the time
-- that hours take. The percentiles are exact. `bins` are the bins of analytics_latency_histogram in their order, and
-- `bin_requests` how many requests each has; `error_bins` and `error_bin_requests` are those of the answers 500 to 599.

-- both

CREATE FUNCTION analytics_bins_of(durations_ms float8[]) RETURNS smallint[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (
        SELECT array_agg(b.bin ORDER BY b.bin)
        FROM (
            SELECT DISTINCT analytics_latency_bin(d.ms) AS bin
            FROM unnest(durations_ms) AS d (ms)
            WHERE d.ms IS NOT NULL
        ) AS b
    );

CREATE FUNCTION analytics_bin_counts_of(durations_ms float8[]) RETURNS integer[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (
        SELECT array_agg(b.number ORDER BY b.bin)
        FROM (
            SELECT analytics_latency_bin(d.ms) AS bin, count(*)::integer AS number
            FROM unnest(durations_ms) AS d (ms)
            WHERE d.ms IS NOT NULL
            GROUP BY analytics_latency_bin(d.ms)
        ) AS b
    );

-- The bins that durations fall into, in their order; null without any.
CREATE AGGREGATE analytics_bins (duration_ms float8) (
    SFUNC = array_append, STYPE = float8[], FINALFUNC = analytics_bins_of, PARALLEL = SAFE
);

-- How many durations fall into each of these bins.
CREATE AGGREGATE analytics_bin_counts (duration_ms float8) (
    SFUNC = array_append, STYPE = float8[], FINALFUNC = analytics_bin_counts_of, PARALLEL = SAFE
);

-- timescaledb

CREATE MATERIALIZED VIEW analytics_endpoint_days
WITH (timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false) AS
SELECT
    time_bucket('1 day', timestamp) AS day,
    service,
    data ->> 'endpoint' AS endpoint,
    data ->> 'method' AS method,
    count(*) AS requests,
    count(analytics_amount(data -> 'duration_ms')) AS measured,
    sum(analytics_amount(data -> 'duration_ms')) AS duration_ms,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY analytics_amount(data -> 'duration_ms')) AS p50_duration_ms,
    percentile_cont(0.95) WITHIN GROUP (ORDER BY analytics_amount(data -> 'duration_ms')) AS p95_duration_ms,
    percentile_cont(0.99) WITHIN GROUP (ORDER BY analytics_amount(data -> 'duration_ms')) AS p99_duration_ms,
    count(*) FILTER (WHERE analytics_amount(data -> 'status_code') BETWEEN 400 AND 499) AS errors_4xx,
    count(*) FILTER (WHERE analytics_amount(data -> 'status_code') BETWEEN 500 AND 599) AS errors_5xx,
    count(analytics_amount(data -> 'db_queries')) AS with_queries,
    sum(analytics_amount(data -> 'db_queries')) AS db_queries,
    max(analytics_amount(data -> 'db_repeats')) AS max_db_repeats,
    analytics_bins(analytics_amount(data -> 'duration_ms')) AS bins,
    analytics_bin_counts(analytics_amount(data -> 'duration_ms')) AS bin_requests,
    analytics_bins(analytics_amount(data -> 'duration_ms')) FILTER (
        WHERE analytics_amount(data -> 'status_code') BETWEEN 500 AND 599
    ) AS error_bins,
    analytics_bin_counts(analytics_amount(data -> 'duration_ms')) FILTER (
        WHERE analytics_amount(data -> 'status_code') BETWEEN 500 AND 599
    ) AS error_bin_requests
FROM analytics_events
WHERE event_type = 'api_request'
GROUP BY day, service, endpoint, method
WITH NO DATA;

SELECT analytics_keep_fresh('analytics_endpoint_days');

-- postgresql

CREATE FUNCTION analytics_endpoint_days_live(since timestamptz, until timestamptz) RETURNS TABLE (
    day timestamptz,
    service text,
    endpoint text,
    method text,
    requests bigint,
    measured bigint,
    duration_ms float8,
    p50_duration_ms float8,
    p95_duration_ms float8,
    p99_duration_ms float8,
    errors_4xx bigint,
    errors_5xx bigint,
    with_queries bigint,
    db_queries float8,
    max_db_repeats float8,
    bins smallint[],
    bin_requests integer[],
    error_bins smallint[],
    error_bin_requests integer[]
)
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
    SELECT
        analytics_bucket('1 day', timestamp) AS day,
        service,
        data ->> 'endpoint' AS endpoint,
        data ->> 'method' AS method,
        count(*) AS requests,
        count(analytics_amount(data -> 'duration_ms')) AS measured,
        sum(analytics_amount(data -> 'duration_ms')) AS duration_ms,
        percentile_cont(0.5) WITHIN GROUP (ORDER BY analytics_amount(data -> 'duration_ms')) AS p50_duration_ms,
        percentile_cont(0.95) WITHIN GROUP (ORDER BY analytics_amount(data -> 'duration_ms')) AS p95_duration_ms,
        percentile_cont(0.99) WITHIN GROUP (ORDER BY analytics_amount(data -> 'duration_ms')) AS p99_duration_ms,
        count(*) FILTER (WHERE analytics_amount(data -> 'status_code') BETWEEN 400 AND 499) AS errors_4xx,
        count(*) FILTER (WHERE analytics_amount(data -> 'status_code') BETWEEN 500 AND 599) AS errors_5xx,
        count(analytics_amount(data -> 'db_queries')) AS with_queries,
        sum(analytics_amount(data -> 'db_queries')) AS db_queries,
        max(analytics_amount(data -> 'db_repeats')) AS max_db_repeats,
        analytics_bins(analytics_amount(data -> 'duration_ms')) AS bins,
        analytics_bin_counts(analytics_amount(data -> 'duration_ms')) AS bin_requests,
        analytics_bins(analytics_amount(data -> 'duration_ms')) FILTER (
            WHERE analytics_amount(data -> 'status_code') BETWEEN 500 AND 599
        ) AS error_bins,
        analytics_bin_counts(analytics_amount(data -> 'duration_ms')) FILTER (
            WHERE analytics_amount(data -> 'status_code') BETWEEN 500 AND 599
        ) AS error_bin_requests
    FROM analytics_events
    WHERE timestamp >= since AND timestamp < until
        AND event_type = 'api_request'
    GROUP BY day, service, endpoint, method;
    END;

SELECT analytics_make_filled('analytics_endpoint_days', '1 day');
