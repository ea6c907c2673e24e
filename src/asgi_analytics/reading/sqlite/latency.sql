-- Requests by endpoint: days and hours of UTC from their aggregates, raw rows for what is not a whole hour.

-- hourly --
-- Describe each hour of each endpoint. $1 to $4 are the bounds of the three parts, $5 the edges of the hours, $6 is the
-- service, $7 the greatest number of rows. Percentiles are exact.
SELECT h.*, h.error_5xx_count * 1.0 / nullif(h.request_count, 0) AS error_rate
FROM (
    SELECT
        analytics_bucket(l.hour, 5) AS bucket, l.service, l.endpoint, l.method, l.request_count,
        l.avg_duration_ms, l.p50_duration_ms, l.p95_duration_ms, l.p99_duration_ms, l.error_4xx_count, l.error_5xx_count
    FROM analytics_api_latency_hourly AS l
    WHERE l.hour >= $2 AND l.hour < $3 AND ($6 IS NULL OR l.service = $6)
    UNION ALL
    SELECT
        r.bucket, r.service, r.endpoint, r.method, r.request_count, r.avg_duration_ms,
        json_extract(r.percentiles, '$[0]'), json_extract(r.percentiles, '$[1]'), json_extract(r.percentiles, '$[2]'),
        r.error_4xx_count, r.error_5xx_count
    FROM (
        SELECT
            analytics_bucket(e.timestamp, 5) AS bucket,
            e.service,
            e.endpoint,
            e.method,
            count(*) AS request_count,
            avg(e.duration_ms) AS avg_duration_ms,
            analytics_quantiles(e.duration_ms, '[0.5, 0.95, 0.99]') AS percentiles,
            count(*) FILTER (WHERE e.status_code BETWEEN 400 AND 499) AS error_4xx_count,
            count(*) FILTER (WHERE e.status_code BETWEEN 500 AND 599) AS error_5xx_count
        FROM analytics_event_facts AS e
        WHERE (e.timestamp >= $1 AND e.timestamp < $2 OR e.timestamp >= $3 AND e.timestamp < $4)
            AND e.event_type = 'api_request'
            AND ($6 IS NULL OR e.service = $6)
        GROUP BY 1, 2, 3, 4
    ) AS r
) AS h
ORDER BY h.bucket DESC, h.service, h.request_count DESC, h.endpoint NULLS LAST, h.method NULLS LAST
LIMIT $7;

-- merged --
-- Describe each bucket of each endpoint by adding up days and hours; percentiles come from their histograms. $1 to $6 are
-- the bounds of the five parts, $7 the edges of the buckets, $8 is the service, $9 the least number of requests; $10
-- orders by the 99th percentile instead of the time; $11 tells that each day is a bucket of its own, whose percentiles are
-- known; $12 is the greatest number of rows.
WITH days AS (
    SELECT analytics_bucket(d.day, 7) AS bucket, d.*
    FROM analytics_endpoint_days_filled AS d
    WHERE d.day >= $3 AND d.day < $4 AND ($8 IS NULL OR d.service = $8)
),
raw AS MATERIALIZED (
    SELECT analytics_bucket(e.timestamp, 7) AS bucket, e.service, e.endpoint, e.method, e.duration_ms, e.status_code
    FROM analytics_event_facts AS e
    WHERE (e.timestamp >= $1 AND e.timestamp < $2 OR e.timestamp >= $5 AND e.timestamp < $6)
        AND e.event_type = 'api_request'
        AND ($8 IS NULL OR e.service = $8)
),
parts AS (
    SELECT d.bucket, d.service, d.endpoint, d.method, d.requests, d.measured, d.duration_ms, d.errors_4xx, d.errors_5xx,
        d.p50_duration_ms AS p50, d.p95_duration_ms AS p95, d.p99_duration_ms AS p99, NULL AS bin, 0 AS bin_requests
    FROM days AS d
    UNION ALL
    SELECT analytics_bucket(h.hour, 7), h.service, h.endpoint, h.method, h.requests, h.measured, h.duration_ms,
        h.errors_4xx, h.errors_5xx, NULL, NULL, NULL, NULL, 0
    FROM analytics_endpoint_hours AS h
    WHERE (h.hour >= $2 AND h.hour < $3 OR h.hour >= $4 AND h.hour < $5) AND ($8 IS NULL OR h.service = $8)
    UNION ALL
    SELECT r.bucket, r.service, r.endpoint, r.method, 1, r.duration_ms IS NOT NULL, r.duration_ms,
        coalesce(r.status_code BETWEEN 400 AND 499, 0), coalesce(r.status_code BETWEEN 500 AND 599, 0), NULL, NULL, NULL,
        analytics_latency_bin(r.duration_ms), 1
    FROM raw AS r
    UNION ALL
    SELECT d.bucket, d.service, d.endpoint, d.method, 0, 0, NULL, 0, 0, NULL, NULL, NULL, CAST(b.key AS INTEGER), b.value
    FROM days AS d, json_each(d.histogram) AS b
    WHERE NOT $11
    UNION ALL
    SELECT analytics_bucket(h.hour, 7), h.service, h.endpoint, h.method, 0, 0, NULL, 0, 0, NULL, NULL, NULL, h.bin,
        h.requests
    FROM analytics_latency_histogram AS h
    WHERE (h.hour >= $2 AND h.hour < $3 OR h.hour >= $4 AND h.hour < $5) AND ($8 IS NULL OR h.service = $8)
),
counts AS (
    SELECT
        p.bucket, p.service, p.endpoint, p.method, sum(p.requests) AS requests, sum(p.measured) AS measured,
        sum(p.duration_ms) AS duration_ms, sum(p.errors_4xx) AS errors_4xx, sum(p.errors_5xx) AS errors_5xx,
        max(p.p50) AS p50, max(p.p95) AS p95, max(p.p99) AS p99,
        analytics_quantiles_of_bins(p.bin, p.bin_requests, '[0.5, 0.95, 0.99]') AS percentiles
    FROM parts AS p
    GROUP BY p.bucket, p.service, p.endpoint, p.method
)
SELECT
    c.bucket,
    c.service,
    c.endpoint,
    c.method,
    c.requests AS request_count,
    c.duration_ms / nullif(c.measured, 0) AS avg_duration_ms,
    CASE WHEN $11 AND c.p50 IS NOT NULL THEN c.p50 ELSE json_extract(c.percentiles, '$[0]') END AS p50_duration_ms,
    CASE WHEN $11 AND c.p50 IS NOT NULL THEN c.p95 ELSE json_extract(c.percentiles, '$[1]') END AS p95_duration_ms,
    CASE WHEN $11 AND c.p50 IS NOT NULL THEN c.p99 ELSE json_extract(c.percentiles, '$[2]') END AS p99_duration_ms,
    c.errors_4xx AS error_4xx_count,
    c.errors_5xx AS error_5xx_count,
    c.errors_5xx * 1.0 / nullif(c.requests, 0) AS error_rate,
    coalesce(c.duration_ms, 0.0) AS total_duration_ms
FROM counts AS c
WHERE c.requests >= $9
ORDER BY
    CASE WHEN $10 THEN CASE WHEN $11 AND c.p50 IS NOT NULL THEN c.p99 ELSE json_extract(c.percentiles, '$[2]') END END
        DESC NULLS LAST,
    c.bucket DESC, c.service, c.requests DESC, c.endpoint NULLS LAST, c.method NULLS LAST
LIMIT $12;

-- series --
-- Describe each bucket of all endpoints together by adding up days and hours; percentiles come from the sum of their
-- histograms. $1 to $6 are the bounds of the five parts, $7 the edges of the buckets, $8 is the service, $9 the endpoint,
-- $10 the method, $11 the greatest number of rows.
WITH days AS (
    SELECT analytics_bucket(d.day, 7) AS bucket, d.*
    FROM analytics_endpoint_days_filled AS d
    WHERE d.day >= $3 AND d.day < $4
        AND ($8 IS NULL OR d.service = $8)
        AND ($9 IS NULL OR d.endpoint = $9)
        AND ($10 IS NULL OR d.method = $10)
),
parts AS (
    SELECT d.bucket, d.requests, d.measured, d.duration_ms, d.errors_4xx, d.errors_5xx, NULL AS bin, 0 AS bin_requests
    FROM days AS d
    UNION ALL
    SELECT analytics_bucket(h.hour, 7), h.requests, h.measured, h.duration_ms, h.errors_4xx, h.errors_5xx, NULL, 0
    FROM analytics_endpoint_hours AS h
    WHERE (h.hour >= $2 AND h.hour < $3 OR h.hour >= $4 AND h.hour < $5)
        AND ($8 IS NULL OR h.service = $8)
        AND ($9 IS NULL OR h.endpoint = $9)
        AND ($10 IS NULL OR h.method = $10)
    UNION ALL
    SELECT analytics_bucket(e.timestamp, 7), 1, e.duration_ms IS NOT NULL, e.duration_ms,
        coalesce(e.status_code BETWEEN 400 AND 499, 0), coalesce(e.status_code BETWEEN 500 AND 599, 0),
        analytics_latency_bin(e.duration_ms), 1
    FROM analytics_event_facts AS e
    WHERE (e.timestamp >= $1 AND e.timestamp < $2 OR e.timestamp >= $5 AND e.timestamp < $6)
        AND e.event_type = 'api_request'
        AND ($8 IS NULL OR e.service = $8)
        AND ($9 IS NULL OR e.endpoint = $9)
        AND ($10 IS NULL OR e.method = $10)
    UNION ALL
    SELECT d.bucket, 0, 0, NULL, 0, 0, CAST(b.key AS INTEGER), b.value
    FROM days AS d, json_each(d.histogram) AS b
    UNION ALL
    SELECT analytics_bucket(h.hour, 7), 0, 0, NULL, 0, 0, h.bin, h.requests
    FROM analytics_latency_histogram AS h
    WHERE (h.hour >= $2 AND h.hour < $3 OR h.hour >= $4 AND h.hour < $5)
        AND ($8 IS NULL OR h.service = $8)
        AND ($9 IS NULL OR h.endpoint = $9)
        AND ($10 IS NULL OR h.method = $10)
),
counts AS (
    SELECT
        p.bucket, sum(p.requests) AS requests, sum(p.measured) AS measured, sum(p.duration_ms) AS duration_ms,
        sum(p.errors_4xx) AS errors_4xx, sum(p.errors_5xx) AS errors_5xx,
        analytics_quantiles_of_bins(p.bin, p.bin_requests, '[0.5, 0.95, 0.99]') AS percentiles
    FROM parts AS p
    GROUP BY p.bucket
)
SELECT
    b.bucket,
    coalesce(c.requests, 0) AS request_count,
    c.duration_ms / nullif(c.measured, 0) AS avg_duration_ms,
    json_extract(c.percentiles, '$[0]') AS p50_duration_ms,
    json_extract(c.percentiles, '$[1]') AS p95_duration_ms,
    json_extract(c.percentiles, '$[2]') AS p99_duration_ms,
    coalesce(c.errors_4xx, 0) AS error_4xx_count,
    coalesce(c.errors_5xx, 0) AS error_5xx_count,
    c.errors_5xx * 1.0 / nullif(c.requests, 0) AS error_rate
FROM (SELECT j.key + 1 AS bucket FROM json_each($7) AS j WHERE j.key < json_array_length($7) - 1) AS b
LEFT JOIN counts AS c ON c.bucket = b.bucket
ORDER BY b.bucket
LIMIT $11;

-- apdex --
-- Rate each endpoint by how satisfied its callers are: within the threshold satisfied, within four times of it
-- tolerating, and frustrated beyond that or by an answer of 500 and above. $1 to $6 are the bounds of the five parts,
-- $7 is the service, $8 the threshold in ms, $9 the greatest number of rows. A bin counts as the duration that stands for
-- it.
WITH last AS (
    -- The last bins within the threshold and within four times of it.
    SELECT
        max(b.bin) FILTER (WHERE b.duration_ms <= $8) AS satisfied,
        max(b.bin) FILTER (WHERE b.duration_ms <= 4 * $8) AS tolerating
    FROM analytics_latency_bins AS b
),
rated AS (
    -- A request within the threshold is worth a point, a tolerated one half of it.
    SELECT
        h.endpoint,
        h.method,
        h.requests,
        h.good * CASE WHEN h.bin <= l.satisfied THEN 1.0 WHEN h.bin <= l.tolerating THEN 0.5 ELSE 0.0 END AS points
    FROM last AS l, (
        SELECT d.endpoint, d.method, CAST(b.key AS INTEGER) AS bin, b.value AS requests, b.value AS good
        FROM analytics_endpoint_days_filled AS d, json_each(d.histogram) AS b
        WHERE d.day >= $3 AND d.day < $4 AND ($7 IS NULL OR d.service = $7)
        UNION ALL
        SELECT d.endpoint, d.method, CAST(b.key AS INTEGER), 0, -b.value
        FROM analytics_endpoint_days_filled AS d, json_each(d.error_histogram) AS b
        WHERE d.day >= $3 AND d.day < $4 AND ($7 IS NULL OR d.service = $7)
        UNION ALL
        SELECT h.endpoint, h.method, h.bin, h.requests, h.requests - h.errors_5xx
        FROM analytics_latency_histogram AS h
        WHERE (h.hour >= $2 AND h.hour < $3 OR h.hour >= $4 AND h.hour < $5) AND ($7 IS NULL OR h.service = $7)
    ) AS h
    UNION ALL
    SELECT
        e.endpoint,
        e.method,
        1,
        CASE
            WHEN e.status_code BETWEEN 500 AND 599 THEN 0.0
            WHEN e.duration_ms <= $8 THEN 1.0
            WHEN e.duration_ms <= 4 * $8 THEN 0.5
            ELSE 0.0
        END
    FROM analytics_event_facts AS e
    WHERE (e.timestamp >= $1 AND e.timestamp < $2 OR e.timestamp >= $5 AND e.timestamp < $6)
        AND e.event_type = 'api_request'
        AND ($7 IS NULL OR e.service = $7) AND e.duration_ms IS NOT NULL
)
SELECT r.endpoint, r.method, sum(r.points) / nullif(sum(r.requests), 0) AS apdex
FROM rated AS r
GROUP BY r.endpoint, r.method
HAVING sum(r.requests) > 0
ORDER BY apdex, r.endpoint NULLS LAST, r.method NULLS LAST
LIMIT $9;
