-- Compute percentiles of durations over any range of hours, by merging histograms

-- The q-quantile of the durations of API requests, in ms, over the hours that touch [since, until); null when there are
-- none. Null for service, endpoint or method means any.
--
-- As percentile_cont does, it interpolates between the durations at the ranks floor(q (n - 1)) and ceil(q (n - 1)).
-- The histogram knows each of them to its bin (g^(i-1), g^i] with g = 1.04, for which stands v = 2 g^i / (g + 1).
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
