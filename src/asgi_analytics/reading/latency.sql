-- Requests by endpoint: hours from their aggregates, raw rows for what is not a whole hour of UTC.

-- hourly --
-- Describe each hour of each endpoint. $1 to $4 are the bounds of the three parts, $5 the edges of the hours, $6 is the
-- service, $7 the greatest number of rows. Percentiles are exact.
SELECT h.*, h.error_5xx_count::float8 / nullif(h.request_count, 0) AS error_rate
FROM (
    SELECT
        width_bucket(l.hour, $5::timestamptz[]) AS bucket, l.service, l.endpoint, l.method, l.request_count,
        l.avg_duration_ms, l.p50_duration_ms, l.p95_duration_ms, l.p99_duration_ms, l.error_4xx_count, l.error_5xx_count
    FROM analytics_api_latency_hourly AS l
    WHERE l.hour >= $2 AND l.hour < $3 AND ($6::text IS NULL OR l.service = $6)
    UNION ALL
    SELECT
        width_bucket(e.timestamp, $5::timestamptz[]),
        e.service,
        e.endpoint,
        e.method,
        count(*),
        avg(e.duration_ms),
        percentile_cont(0.5) WITHIN GROUP (ORDER BY e.duration_ms),
        percentile_cont(0.95) WITHIN GROUP (ORDER BY e.duration_ms),
        percentile_cont(0.99) WITHIN GROUP (ORDER BY e.duration_ms),
        count(*) FILTER (WHERE e.status_code BETWEEN 400 AND 499),
        count(*) FILTER (WHERE e.status_code BETWEEN 500 AND 599)
    FROM (
        SELECT r.timestamp, r.service, r.data ->> 'endpoint' AS endpoint, r.data ->> 'method' AS method,
            analytics_amount(r.data -> 'duration_ms') AS duration_ms,
            analytics_amount(r.data -> 'status_code') AS status_code
        FROM analytics_events AS r
        WHERE r.timestamp >= $1 AND r.timestamp < $2 AND r.event_type = 'api_request'
            AND ($6::text IS NULL OR r.service = $6)
        UNION ALL
        SELECT r.timestamp, r.service, r.data ->> 'endpoint', r.data ->> 'method',
            analytics_amount(r.data -> 'duration_ms'), analytics_amount(r.data -> 'status_code')
        FROM analytics_events AS r
        WHERE r.timestamp >= $3 AND r.timestamp < $4 AND r.event_type = 'api_request'
            AND ($6::text IS NULL OR r.service = $6)
    ) AS e
    GROUP BY 1, 2, 3, 4
) AS h
ORDER BY h.bucket DESC, h.service, h.request_count DESC, h.endpoint, h.method
LIMIT $7;

-- merged --
-- Describe each bucket of each endpoint by adding up hours; percentiles come from the histogram. $1 to $4 are the bounds
-- of the three parts, $5 the edges of the buckets, $6 is the service, $7 the least number of requests; $8 orders by the
-- 99th percentile instead of the time; $9 is the greatest number of rows.
WITH counts AS (
    SELECT
        a.bucket, a.service, a.endpoint, a.method, sum(a.requests) AS requests, sum(a.measured) AS measured,
        sum(a.duration_ms) AS duration_ms, sum(a.errors_4xx) AS errors_4xx, sum(a.errors_5xx) AS errors_5xx
    FROM (
        SELECT width_bucket(h.hour, $5::timestamptz[]) AS bucket, h.service, h.endpoint, h.method, h.requests,
            h.measured, h.duration_ms, h.errors_4xx, h.errors_5xx
        FROM analytics_endpoint_hours AS h
        WHERE h.hour >= $2 AND h.hour < $3 AND ($6::text IS NULL OR h.service = $6)
        UNION ALL
        SELECT width_bucket(r.timestamp, $5::timestamptz[]), r.service, r.data ->> 'endpoint', r.data ->> 'method', 1,
            (analytics_amount(r.data -> 'duration_ms') IS NOT NULL)::integer,
            analytics_amount(r.data -> 'duration_ms'),
            coalesce(analytics_amount(r.data -> 'status_code') BETWEEN 400 AND 499, false)::integer,
            coalesce(analytics_amount(r.data -> 'status_code') BETWEEN 500 AND 599, false)::integer
        FROM analytics_events AS r
        WHERE r.timestamp >= $1 AND r.timestamp < $2 AND r.event_type = 'api_request'
            AND ($6::text IS NULL OR r.service = $6)
        UNION ALL
        SELECT width_bucket(r.timestamp, $5::timestamptz[]), r.service, r.data ->> 'endpoint', r.data ->> 'method', 1,
            (analytics_amount(r.data -> 'duration_ms') IS NOT NULL)::integer,
            analytics_amount(r.data -> 'duration_ms'),
            coalesce(analytics_amount(r.data -> 'status_code') BETWEEN 400 AND 499, false)::integer,
            coalesce(analytics_amount(r.data -> 'status_code') BETWEEN 500 AND 599, false)::integer
        FROM analytics_events AS r
        WHERE r.timestamp >= $3 AND r.timestamp < $4 AND r.event_type = 'api_request'
            AND ($6::text IS NULL OR r.service = $6)
    ) AS a
    GROUP BY 1, 2, 3, 4
),
bins AS (
    SELECT a.bucket, a.service, a.endpoint, a.method, a.bin, sum(a.requests) AS requests
    FROM (
        SELECT width_bucket(h.hour, $5::timestamptz[]) AS bucket, h.service, h.endpoint, h.method, h.bin, h.requests
        FROM analytics_latency_histogram AS h
        WHERE h.hour >= $2 AND h.hour < $3 AND ($6::text IS NULL OR h.service = $6)
        UNION ALL
        SELECT width_bucket(r.timestamp, $5::timestamptz[]), r.service, r.data ->> 'endpoint', r.data ->> 'method',
            analytics_latency_bin(analytics_amount(r.data -> 'duration_ms')), 1
        FROM analytics_events AS r
        WHERE r.timestamp >= $1 AND r.timestamp < $2 AND r.event_type = 'api_request'
            AND ($6::text IS NULL OR r.service = $6) AND analytics_amount(r.data -> 'duration_ms') IS NOT NULL
        UNION ALL
        SELECT width_bucket(r.timestamp, $5::timestamptz[]), r.service, r.data ->> 'endpoint', r.data ->> 'method',
            analytics_latency_bin(analytics_amount(r.data -> 'duration_ms')), 1
        FROM analytics_events AS r
        WHERE r.timestamp >= $3 AND r.timestamp < $4 AND r.event_type = 'api_request'
            AND ($6::text IS NULL OR r.service = $6) AND analytics_amount(r.data -> 'duration_ms') IS NOT NULL
    ) AS a
    GROUP BY 1, 2, 3, 4, 5
),
ranked AS (
    SELECT
        b.*,
        sum(b.requests) OVER (PARTITION BY b.bucket, b.service, b.endpoint, b.method ORDER BY b.bin) AS below,
        sum(b.requests) OVER (PARTITION BY b.bucket, b.service, b.endpoint, b.method) - 1 AS last
    FROM bins AS b
),
ends AS (
    -- The first bin with more requests below its upper end than the rank, which counts from 0; as percentile_cont does,
    -- between the requests at the ranks before and after q times the last rank.
    SELECT
        r.bucket, r.service, r.endpoint, r.method, min(r.last)::float8 AS last,
        analytics_latency_of_bin(min(r.bin) FILTER (WHERE r.below > floor(0.5 * r.last))) AS p50_low,
        analytics_latency_of_bin(min(r.bin) FILTER (WHERE r.below > ceil(0.5 * r.last))) AS p50_high,
        analytics_latency_of_bin(min(r.bin) FILTER (WHERE r.below > floor(0.95 * r.last))) AS p95_low,
        analytics_latency_of_bin(min(r.bin) FILTER (WHERE r.below > ceil(0.95 * r.last))) AS p95_high,
        analytics_latency_of_bin(min(r.bin) FILTER (WHERE r.below > floor(0.99 * r.last))) AS p99_low,
        analytics_latency_of_bin(min(r.bin) FILTER (WHERE r.below > ceil(0.99 * r.last))) AS p99_high
    FROM ranked AS r
    GROUP BY 1, 2, 3, 4
)
SELECT
    c.bucket,
    c.service,
    c.endpoint,
    c.method,
    c.requests::bigint AS request_count,
    c.duration_ms / nullif(c.measured, 0)::float8 AS avg_duration_ms,
    e.p50_low + (e.p50_high - e.p50_low) * (0.5 * e.last - floor(0.5 * e.last)) AS p50_duration_ms,
    e.p95_low + (e.p95_high - e.p95_low) * (0.95 * e.last - floor(0.95 * e.last)) AS p95_duration_ms,
    e.p99_low + (e.p99_high - e.p99_low) * (0.99 * e.last - floor(0.99 * e.last)) AS p99_duration_ms,
    c.errors_4xx::bigint AS error_4xx_count,
    c.errors_5xx::bigint AS error_5xx_count,
    c.errors_5xx::float8 / nullif(c.requests, 0)::float8 AS error_rate,
    coalesce(c.duration_ms, 0) AS total_duration_ms
FROM counts AS c
LEFT JOIN ends AS e
    -- Arrays, because nulls in them are equal, and because they can be hashed.
    ON ARRAY[e.bucket::text, e.service, e.endpoint, e.method] = ARRAY[c.bucket::text, c.service, c.endpoint, c.method]
WHERE c.requests >= $7
ORDER BY
    CASE WHEN $8 THEN e.p99_low + (e.p99_high - e.p99_low) * (0.99 * e.last - floor(0.99 * e.last)) END DESC NULLS LAST,
    c.bucket DESC, c.service, c.requests DESC, c.endpoint, c.method
LIMIT $9;

-- apdex --
-- Rate each endpoint by how satisfied its callers are: within the threshold satisfied, within four times of it
-- tolerating, and frustrated beyond that or by an answer of 500 and above. $1 to $4 are the bounds of the three parts,
-- $5 is the service, $6 the threshold in ms, $7 the greatest number of rows. A bin counts as the duration that stands for
-- it.
WITH bins AS (
    SELECT h.endpoint, h.method, analytics_latency_of_bin(h.bin) AS duration_ms, h.requests, h.errors_5xx
    FROM analytics_latency_histogram AS h
    WHERE h.hour >= $2 AND h.hour < $3 AND ($5::text IS NULL OR h.service = $5)
    UNION ALL
    SELECT r.data ->> 'endpoint', r.data ->> 'method', analytics_amount(r.data -> 'duration_ms'), 1,
        coalesce(analytics_amount(r.data -> 'status_code') BETWEEN 500 AND 599, false)::integer
    FROM analytics_events AS r
    WHERE r.timestamp >= $1 AND r.timestamp < $2 AND r.event_type = 'api_request'
        AND ($5::text IS NULL OR r.service = $5) AND analytics_amount(r.data -> 'duration_ms') IS NOT NULL
    UNION ALL
    SELECT r.data ->> 'endpoint', r.data ->> 'method', analytics_amount(r.data -> 'duration_ms'), 1,
        coalesce(analytics_amount(r.data -> 'status_code') BETWEEN 500 AND 599, false)::integer
    FROM analytics_events AS r
    WHERE r.timestamp >= $3 AND r.timestamp < $4 AND r.event_type = 'api_request'
        AND ($5::text IS NULL OR r.service = $5) AND analytics_amount(r.data -> 'duration_ms') IS NOT NULL
)
SELECT
    b.endpoint,
    b.method,
    (
        coalesce(sum(b.requests - b.errors_5xx) FILTER (WHERE b.duration_ms <= $6::float8), 0)
        + coalesce(
            sum(b.requests - b.errors_5xx) FILTER (WHERE b.duration_ms > $6::float8 AND b.duration_ms <= 4 * $6::float8), 0
        ) / 2.0
    )::float8 / sum(b.requests)::float8 AS apdex
FROM bins AS b
GROUP BY b.endpoint, b.method
ORDER BY apdex, b.endpoint, b.method
LIMIT $7;
