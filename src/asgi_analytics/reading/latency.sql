-- Requests by endpoint: days and hours of UTC from their aggregates, raw rows for what is not a whole hour.

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
-- Describe each bucket of each endpoint by adding up days and hours; percentiles come from their histograms. $1 to $6 are
-- the bounds of the five parts, $7 the edges of the buckets, $8 is the service, $9 the least number of requests; $10
-- orders by the 99th percentile instead of the time; $11 tells that each day is a bucket of its own, whose percentiles are
-- known; $12 is the greatest number of rows.
WITH days AS (
    SELECT width_bucket(d.day, $7::timestamptz[]) AS bucket, d.*
    FROM analytics_endpoint_days_filled AS d
    WHERE d.day >= $3 AND d.day < $4 AND ($8::text IS NULL OR d.service = $8)
),
raw AS (
    SELECT width_bucket(r.timestamp, $7::timestamptz[]) AS bucket, r.service, r.data ->> 'endpoint' AS endpoint,
        r.data ->> 'method' AS method, analytics_amount(r.data -> 'duration_ms') AS duration_ms,
        analytics_amount(r.data -> 'status_code') AS status_code
    FROM (
        SELECT e.timestamp, e.service, e.data FROM analytics_events AS e
        WHERE e.timestamp >= $1 AND e.timestamp < $2 AND e.event_type = 'api_request'
            AND ($8::text IS NULL OR e.service = $8)
        UNION ALL
        SELECT e.timestamp, e.service, e.data FROM analytics_events AS e
        WHERE e.timestamp >= $5 AND e.timestamp < $6 AND e.event_type = 'api_request'
            AND ($8::text IS NULL OR e.service = $8)
    ) AS r
),
counts AS (
    SELECT
        row_number() OVER () AS number, a.bucket, a.service, a.endpoint, a.method, sum(a.requests) AS requests,
        sum(a.measured) AS measured, sum(a.duration_ms) AS duration_ms, sum(a.errors_4xx) AS errors_4xx,
        sum(a.errors_5xx) AS errors_5xx, max(a.p50) AS p50, max(a.p95) AS p95, max(a.p99) AS p99
    FROM (
        SELECT d.bucket, d.service, d.endpoint, d.method, d.requests, d.measured, d.duration_ms, d.errors_4xx,
            d.errors_5xx, d.p50_duration_ms AS p50, d.p95_duration_ms AS p95, d.p99_duration_ms AS p99
        FROM days AS d
        UNION ALL
        SELECT width_bucket(h.hour, $7::timestamptz[]), h.service, h.endpoint, h.method, h.requests, h.measured,
            h.duration_ms, h.errors_4xx, h.errors_5xx, NULL, NULL, NULL
        FROM analytics_endpoint_hours AS h
        WHERE (h.hour >= $2 AND h.hour < $3 OR h.hour >= $4 AND h.hour < $5)
            AND ($8::text IS NULL OR h.service = $8)
        UNION ALL
        SELECT r.bucket, r.service, r.endpoint, r.method, 1, (r.duration_ms IS NOT NULL)::integer, r.duration_ms,
            coalesce(r.status_code BETWEEN 400 AND 499, false)::integer,
            coalesce(r.status_code BETWEEN 500 AND 599, false)::integer, NULL, NULL, NULL
        FROM raw AS r
    ) AS a
    GROUP BY a.bucket, a.service, a.endpoint, a.method
),
bins AS (
    -- By number, since texts take longer to compare.
    SELECT a.number, a.bin, sum(a.requests) AS requests
    FROM (
        SELECT c.number, b.bin, b.requests
        FROM days AS d
        -- Arrays, because nulls in them are equal, and because they can be hashed.
        JOIN counts AS c
            ON ARRAY[c.bucket::text, c.service, c.endpoint, c.method]
            = ARRAY[d.bucket::text, d.service, d.endpoint, d.method]
        CROSS JOIN LATERAL unnest(d.bins, d.bin_requests) AS b (bin, requests)
        WHERE NOT $11::boolean
        UNION ALL
        SELECT c.number, h.bin, h.requests
        FROM (
            SELECT width_bucket(h.hour, $7::timestamptz[]) AS bucket, h.service, h.endpoint, h.method, h.bin,
                sum(h.requests) AS requests
            FROM analytics_latency_histogram AS h
            WHERE (h.hour >= $2 AND h.hour < $3 OR h.hour >= $4 AND h.hour < $5)
                AND ($8::text IS NULL OR h.service = $8)
            GROUP BY 1, 2, 3, 4, 5
            UNION ALL
            SELECT r.bucket, r.service, r.endpoint, r.method, analytics_latency_bin(r.duration_ms), 1
            FROM raw AS r
            WHERE r.duration_ms IS NOT NULL
        ) AS h
        JOIN counts AS c
            ON ARRAY[c.bucket::text, c.service, c.endpoint, c.method]
            = ARRAY[h.bucket::text, h.service, h.endpoint, h.method]
    ) AS a
    GROUP BY a.number, a.bin
),
ranked AS (
    SELECT
        b.number,
        b.bin,
        sum(b.requests) OVER (PARTITION BY b.number ORDER BY b.bin) AS below,
        sum(b.requests) OVER (PARTITION BY b.number) - 1 AS last
    FROM bins AS b
),
ends AS (
    -- The first bin with more requests below its upper end than the rank, which counts from 0; as percentile_cont does,
    -- between the requests at the ranks before and after q times the last rank.
    SELECT
        r.number, min(r.last)::float8 AS last,
        analytics_latency_of_bin(min(r.bin) FILTER (WHERE r.below > floor(0.5 * r.last))) AS p50_low,
        analytics_latency_of_bin(min(r.bin) FILTER (WHERE r.below > ceil(0.5 * r.last))) AS p50_high,
        analytics_latency_of_bin(min(r.bin) FILTER (WHERE r.below > floor(0.95 * r.last))) AS p95_low,
        analytics_latency_of_bin(min(r.bin) FILTER (WHERE r.below > ceil(0.95 * r.last))) AS p95_high,
        analytics_latency_of_bin(min(r.bin) FILTER (WHERE r.below > floor(0.99 * r.last))) AS p99_low,
        analytics_latency_of_bin(min(r.bin) FILTER (WHERE r.below > ceil(0.99 * r.last))) AS p99_high
    FROM ranked AS r
    GROUP BY r.number
),
percentiles AS (
    SELECT
        e.number,
        e.p50_low + (e.p50_high - e.p50_low) * (0.5 * e.last - floor(0.5 * e.last)) AS p50,
        e.p95_low + (e.p95_high - e.p95_low) * (0.95 * e.last - floor(0.95 * e.last)) AS p95,
        e.p99_low + (e.p99_high - e.p99_low) * (0.99 * e.last - floor(0.99 * e.last)) AS p99
    FROM ends AS e
    UNION ALL
    SELECT c.number, c.p50, c.p95, c.p99 FROM counts AS c WHERE $11::boolean AND c.p50 IS NOT NULL
)
SELECT
    c.bucket,
    c.service,
    c.endpoint,
    c.method,
    c.requests::bigint AS request_count,
    c.duration_ms / nullif(c.measured, 0)::float8 AS avg_duration_ms,
    p.p50 AS p50_duration_ms,
    p.p95 AS p95_duration_ms,
    p.p99 AS p99_duration_ms,
    c.errors_4xx::bigint AS error_4xx_count,
    c.errors_5xx::bigint AS error_5xx_count,
    c.errors_5xx::float8 / nullif(c.requests, 0)::float8 AS error_rate,
    coalesce(c.duration_ms, 0) AS total_duration_ms
FROM counts AS c
LEFT JOIN percentiles AS p ON p.number = c.number
WHERE c.requests >= $9
ORDER BY
    CASE WHEN $10 THEN p.p99 END DESC NULLS LAST,
    c.bucket DESC, c.service, c.requests DESC, c.endpoint, c.method
LIMIT $12;

-- series --
-- Describe each bucket of all endpoints together by adding up days and hours; percentiles come from the sum of their
-- histograms. $1 to $6 are the bounds of the five parts, $7 the edges of the buckets, $8 is the service, $9 the endpoint,
-- $10 the method, $11 the greatest number of rows.
WITH days AS (
    SELECT width_bucket(d.day, $7::timestamptz[]) AS bucket, d.*
    FROM analytics_endpoint_days_filled AS d
    WHERE d.day >= $3 AND d.day < $4
        AND ($8::text IS NULL OR d.service = $8)
        AND ($9::text IS NULL OR d.endpoint = $9)
        AND ($10::text IS NULL OR d.method = $10)
),
raw AS (
    SELECT width_bucket(r.timestamp, $7::timestamptz[]) AS bucket, analytics_amount(r.data -> 'duration_ms') AS duration_ms,
        analytics_amount(r.data -> 'status_code') AS status_code
    FROM (
        SELECT e.timestamp, e.service, e.data FROM analytics_events AS e
        WHERE e.timestamp >= $1 AND e.timestamp < $2 AND e.event_type = 'api_request'
        UNION ALL
        SELECT e.timestamp, e.service, e.data FROM analytics_events AS e
        WHERE e.timestamp >= $5 AND e.timestamp < $6 AND e.event_type = 'api_request'
    ) AS r
    WHERE ($8::text IS NULL OR r.service = $8)
        AND ($9::text IS NULL OR r.data ->> 'endpoint' = $9)
        AND ($10::text IS NULL OR r.data ->> 'method' = $10)
),
counts AS (
    SELECT
        a.bucket, sum(a.requests) AS requests, sum(a.measured) AS measured, sum(a.duration_ms) AS duration_ms,
        sum(a.errors_4xx) AS errors_4xx, sum(a.errors_5xx) AS errors_5xx
    FROM (
        SELECT d.bucket, d.requests, d.measured, d.duration_ms, d.errors_4xx, d.errors_5xx FROM days AS d
        UNION ALL
        SELECT width_bucket(h.hour, $7::timestamptz[]), h.requests, h.measured, h.duration_ms, h.errors_4xx, h.errors_5xx
        FROM analytics_endpoint_hours AS h
        WHERE (h.hour >= $2 AND h.hour < $3 OR h.hour >= $4 AND h.hour < $5)
            AND ($8::text IS NULL OR h.service = $8)
            AND ($9::text IS NULL OR h.endpoint = $9)
            AND ($10::text IS NULL OR h.method = $10)
        UNION ALL
        SELECT r.bucket, 1, (r.duration_ms IS NOT NULL)::integer, r.duration_ms,
            coalesce(r.status_code BETWEEN 400 AND 499, false)::integer,
            coalesce(r.status_code BETWEEN 500 AND 599, false)::integer
        FROM raw AS r
    ) AS a
    GROUP BY a.bucket
),
bins AS (
    SELECT a.bucket, a.bin, sum(a.requests) AS requests
    FROM (
        SELECT d.bucket, b.bin, b.requests
        FROM days AS d
        CROSS JOIN LATERAL unnest(d.bins, d.bin_requests) AS b (bin, requests)
        UNION ALL
        SELECT width_bucket(h.hour, $7::timestamptz[]), h.bin, h.requests
        FROM analytics_latency_histogram AS h
        WHERE (h.hour >= $2 AND h.hour < $3 OR h.hour >= $4 AND h.hour < $5)
            AND ($8::text IS NULL OR h.service = $8)
            AND ($9::text IS NULL OR h.endpoint = $9)
            AND ($10::text IS NULL OR h.method = $10)
        UNION ALL
        SELECT r.bucket, analytics_latency_bin(r.duration_ms), 1 FROM raw AS r WHERE r.duration_ms IS NOT NULL
    ) AS a
    GROUP BY a.bucket, a.bin
),
ranked AS (
    SELECT
        b.bucket,
        b.bin,
        sum(b.requests) OVER (PARTITION BY b.bucket ORDER BY b.bin) AS below,
        sum(b.requests) OVER (PARTITION BY b.bucket) - 1 AS last
    FROM bins AS b
),
ends AS (
    -- As in merged.
    SELECT
        r.bucket, min(r.last)::float8 AS last,
        analytics_latency_of_bin(min(r.bin) FILTER (WHERE r.below > floor(0.5 * r.last))) AS p50_low,
        analytics_latency_of_bin(min(r.bin) FILTER (WHERE r.below > ceil(0.5 * r.last))) AS p50_high,
        analytics_latency_of_bin(min(r.bin) FILTER (WHERE r.below > floor(0.95 * r.last))) AS p95_low,
        analytics_latency_of_bin(min(r.bin) FILTER (WHERE r.below > ceil(0.95 * r.last))) AS p95_high,
        analytics_latency_of_bin(min(r.bin) FILTER (WHERE r.below > floor(0.99 * r.last))) AS p99_low,
        analytics_latency_of_bin(min(r.bin) FILTER (WHERE r.below > ceil(0.99 * r.last))) AS p99_high
    FROM ranked AS r
    GROUP BY r.bucket
)
SELECT
    b.bucket,
    coalesce(c.requests, 0)::bigint AS request_count,
    c.duration_ms / nullif(c.measured, 0)::float8 AS avg_duration_ms,
    e.p50_low + (e.p50_high - e.p50_low) * (0.5 * e.last - floor(0.5 * e.last)) AS p50_duration_ms,
    e.p95_low + (e.p95_high - e.p95_low) * (0.95 * e.last - floor(0.95 * e.last)) AS p95_duration_ms,
    e.p99_low + (e.p99_high - e.p99_low) * (0.99 * e.last - floor(0.99 * e.last)) AS p99_duration_ms,
    coalesce(c.errors_4xx, 0)::bigint AS error_4xx_count,
    coalesce(c.errors_5xx, 0)::bigint AS error_5xx_count,
    c.errors_5xx::float8 / nullif(c.requests, 0)::float8 AS error_rate
FROM generate_series(1, cardinality($7::timestamptz[]) - 1) AS b (bucket)
LEFT JOIN counts AS c ON c.bucket = b.bucket
LEFT JOIN ends AS e ON e.bucket = b.bucket
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
        max(b.bin) FILTER (WHERE analytics_latency_of_bin(b.bin::smallint) <= $8::float8) AS satisfied,
        max(b.bin) FILTER (WHERE analytics_latency_of_bin(b.bin::smallint) <= 4 * $8::float8) AS tolerating
    FROM (SELECT -1000 UNION ALL SELECT generate_series(-528, 5871)) AS b (bin)
),
rated AS (
    -- A request within the threshold is worth a point, a tolerated one half of it.
    SELECT
        d.endpoint,
        d.method,
        d.measured AS requests,
        (
            SELECT coalesce(sum(b.requests) FILTER (WHERE b.bin <= l.satisfied), 0)
                + coalesce(sum(b.requests) FILTER (WHERE b.bin > l.satisfied AND b.bin <= l.tolerating), 0) / 2.0
            FROM (
                SELECT u.bin, u.requests FROM unnest(d.bins, d.bin_requests) AS u (bin, requests)
                UNION ALL
                SELECT u.bin, -u.requests FROM unnest(d.error_bins, d.error_bin_requests) AS u (bin, requests)
            ) AS b
        ) AS points
    FROM last AS l, analytics_endpoint_days_filled AS d
    WHERE d.day >= $3 AND d.day < $4 AND ($7::text IS NULL OR d.service = $7)
    UNION ALL
    SELECT
        h.endpoint,
        h.method,
        h.requests,
        (h.requests - h.errors_5xx)
        * CASE WHEN h.bin <= l.satisfied THEN 1 WHEN h.bin <= l.tolerating THEN 0.5 ELSE 0 END
    FROM last AS l, analytics_latency_histogram AS h
    WHERE (h.hour >= $2 AND h.hour < $3 OR h.hour >= $4 AND h.hour < $5)
        AND ($7::text IS NULL OR h.service = $7)
    UNION ALL
    SELECT
        r.endpoint,
        r.method,
        1,
        CASE
            WHEN r.status_code BETWEEN 500 AND 599 THEN 0
            WHEN r.duration_ms <= $8 THEN 1
            WHEN r.duration_ms <= 4 * $8 THEN 0.5
            ELSE 0
        END
    FROM (
        SELECT e.data ->> 'endpoint' AS endpoint, e.data ->> 'method' AS method,
            analytics_amount(e.data -> 'duration_ms') AS duration_ms,
            analytics_amount(e.data -> 'status_code') AS status_code
        FROM (
            SELECT a.data FROM analytics_events AS a
            WHERE a.timestamp >= $1 AND a.timestamp < $2 AND a.event_type = 'api_request'
                AND ($7::text IS NULL OR a.service = $7)
            UNION ALL
            SELECT a.data FROM analytics_events AS a
            WHERE a.timestamp >= $5 AND a.timestamp < $6 AND a.event_type = 'api_request'
                AND ($7::text IS NULL OR a.service = $7)
        ) AS e
    ) AS r
    WHERE r.duration_ms IS NOT NULL
)
SELECT r.endpoint, r.method, (sum(r.points) / nullif(sum(r.requests), 0))::float8 AS apdex
FROM rated AS r
GROUP BY r.endpoint, r.method
HAVING sum(r.requests) > 0
ORDER BY apdex, r.endpoint, r.method
LIMIT $9;
