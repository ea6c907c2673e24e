-- Count API requests by hour, service, endpoint, method and bin of duration, and compute percentiles of any range of it

-- Histograms are merged by adding them up, bin by bin. Percentiles cannot be merged.

-- both

-- The bin of a duration: -1000 for zero, else i for the durations in (1.04 ^ (i - 1), 1.04 ^ i], from -528 to 5871.
CREATE FUNCTION analytics_latency_bin(duration_ms float8) RETURNS smallint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN duration_ms > 0 THEN ceil(ln(duration_ms) / ln(1.04::float8))::smallint ELSE -1000::smallint END;

-- The duration that stands for a bin: 2 * 1.04 ^ i / 2.04, as far, relatively, from one end of the bin as from the
-- other: 0.04 / 2.04 = 1.96 %.
CREATE FUNCTION analytics_latency_of_bin(bin smallint) RETURNS float8
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN bin = -1000 THEN 0 ELSE 2 * (1.04::float8 ^ bin) / 2.04 END;

-- timescaledb

CREATE MATERIALIZED VIEW analytics_latency_histogram
WITH (timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false) AS
SELECT
    time_bucket('1 hour', timestamp) AS hour,
    service,
    data ->> 'endpoint' AS endpoint,
    data ->> 'method' AS method,
    analytics_latency_bin(analytics_amount(data -> 'duration_ms')) AS bin,
    count(*) AS requests,
    count(*) FILTER (WHERE analytics_amount(data -> 'status_code') BETWEEN 500 AND 599) AS errors_5xx
FROM analytics_events
WHERE event_type = 'api_request' AND analytics_amount(data -> 'duration_ms') IS NOT NULL
GROUP BY hour, service, endpoint, method, bin
WITH NO DATA;

SELECT analytics_keep_fresh('analytics_latency_histogram');

-- As for analytics_user_days.
ALTER MATERIALIZED VIEW analytics_latency_histogram SET (
    timescaledb.enable_columnstore = true,
    timescaledb.segmentby = 'service, endpoint, method',
    timescaledb.orderby = 'hour, bin'
);
CALL add_columnstore_policy('analytics_latency_histogram', after => INTERVAL '100 days');

-- postgresql

CREATE FUNCTION analytics_latency_histogram_live(since timestamptz, until timestamptz) RETURNS TABLE (
    hour timestamptz,
    service text,
    endpoint text,
    method text,
    bin smallint,
    requests bigint,
    errors_5xx bigint
)
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
    SELECT
        analytics_bucket('1 hour', timestamp) AS hour,
        service,
        data ->> 'endpoint' AS endpoint,
        data ->> 'method' AS method,
        analytics_latency_bin(analytics_amount(data -> 'duration_ms')) AS bin,
        count(*) AS requests,
        count(*) FILTER (WHERE analytics_amount(data -> 'status_code') BETWEEN 500 AND 599) AS errors_5xx
    FROM analytics_events
    WHERE timestamp >= since AND timestamp < until
        AND event_type = 'api_request' AND analytics_amount(data -> 'duration_ms') IS NOT NULL
    GROUP BY hour, service, endpoint, method, bin;
    END;

SELECT analytics_make_filled('analytics_latency_histogram', '1 hour');

-- both

-- The q-quantile of the durations of API requests, in ms, over the hours that touch [since, until); null without
-- any. Null for service, endpoint or method means any.
--
-- As percentile_cont does, it interpolates between the durations at the ranks floor(q (n - 1)) and ceil(q (n - 1)).
-- The histogram knows each of them to its bin (g^(i-1), g^i] with g = 1.04, which v = 2 g^i / (g + 1) stands for.
-- The ends of the bin differ from v, relative to themselves, by (v - g^(i-1)) / g^(i-1) = (g^i - v) / g^i
-- = (g - 1) / (g + 1) = 1.96 %, and what is between them by less. An interpolation between two values that are both
-- within 1.96 % is within 1.96 %. Zero has a bin of its own, and is exact.
CREATE FUNCTION analytics_latency_quantile(
    q float8,
    since timestamptz,
    until timestamptz,
    service text DEFAULT NULL,
    endpoint text DEFAULT NULL,
    method text DEFAULT NULL
) RETURNS float8
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path FROM CURRENT
    AS $$
#variable_conflict error
DECLARE
    found float8;
BEGIN
    IF q IS NULL OR NOT q BETWEEN 0 AND 1 THEN  -- NaN is beyond 1
        RAISE EXCEPTION 'q is %: expected a quantile from 0 to 1', coalesce(q::text, 'null')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    WITH merged AS (
        SELECT h.bin, sum(h.requests) AS requests
        FROM analytics_latency_histogram AS h
        WHERE h.hour > analytics_latency_quantile.since - INTERVAL '1 hour'
            AND h.hour < analytics_latency_quantile.until
            AND (analytics_latency_quantile.service IS NULL OR h.service = analytics_latency_quantile.service)
            AND (analytics_latency_quantile.endpoint IS NULL OR h.endpoint = analytics_latency_quantile.endpoint)
            AND (analytics_latency_quantile.method IS NULL OR h.method = analytics_latency_quantile.method)
        GROUP BY h.bin
    ),
    ranked AS (
        SELECT m.bin, sum(m.requests) OVER (ORDER BY m.bin) AS below, sum(m.requests) OVER () AS total FROM merged AS m
    ),
    ends AS (
        -- The first bin with more requests below its upper end than the rank, which counts from 0.
        SELECT
            min(r.total) AS total,
            analytics_latency_of_bin(min(r.bin) FILTER (WHERE r.below > floor(q * (r.total - 1)))) AS low,
            analytics_latency_of_bin(min(r.bin) FILTER (WHERE r.below > ceil(q * (r.total - 1)))) AS high
        FROM ranked AS r
    )
    SELECT e.low + (e.high - e.low) * (q * (e.total - 1) - floor(q * (e.total - 1))) INTO found FROM ends AS e;
    RETURN found;
END
$$;
