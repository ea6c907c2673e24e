-- The application's own queries: what is slow, and what is repeated within one request.

-- slow --
-- Describe each statement by its fingerprint, the greatest total time first. $1 to $4 are the bounds of the three parts,
-- $5 is the service, $6 the environment, $7 the endpoint, each null for any; $8 is the greatest number of rows.
WITH days AS (
    SELECT d.fingerprint, d.calls, d.measured, d.duration_ms, d.errors, d.newest_at, d.bins, d.bin_calls, d.endpoints
    FROM analytics_statement_days_filled AS d
    WHERE $7::text IS NULL AND d.day >= $2 AND d.day < $3
        AND ($5::text IS NULL OR d.service = $5)
        AND ($6::text IS NULL OR d.environment = $6)
    UNION ALL
    -- Which endpoint a call was made for, only these rows know.
    SELECT d.fingerprint, d.calls, CASE WHEN d.bin IS NULL THEN 0 ELSE d.calls END, d.duration_ms, d.errors, d.newest_at,
        CASE WHEN d.bin IS NOT NULL THEN ARRAY[d.bin] END, ARRAY[d.calls::integer], ARRAY[d.endpoint]
    FROM analytics_query_days_filled AS d
    WHERE d.endpoint = $7 AND d.day >= $2 AND d.day < $3
        AND ($5::text IS NULL OR d.service = $5)
        AND ($6::text IS NULL OR d.environment = $6)
),
raw AS (
    SELECT e.data ->> 'fingerprint' AS fingerprint, e.data ->> 'endpoint' AS endpoint,
        analytics_amount(e.data -> 'duration_ms') AS duration_ms,
        coalesce(e.data ->> 'outcome' <> 'ok', false)::integer AS errors, e.timestamp
    FROM (
        SELECT a.timestamp, a.data FROM analytics_events AS a
        WHERE a.timestamp >= $1 AND a.timestamp < $2 AND a.event_type = 'database_query'
            AND ($5::text IS NULL OR a.service = $5)
            AND ($6::text IS NULL OR a.context ->> 'environment' = $6)
            AND ($7::text IS NULL OR a.data ->> 'endpoint' = $7)
        UNION ALL
        SELECT a.timestamp, a.data FROM analytics_events AS a
        WHERE a.timestamp >= $3 AND a.timestamp < $4 AND a.event_type = 'database_query'
            AND ($5::text IS NULL OR a.service = $5)
            AND ($6::text IS NULL OR a.context ->> 'environment' = $6)
            AND ($7::text IS NULL OR a.data ->> 'endpoint' = $7)
    ) AS e
),
statements AS (
    SELECT
        row_number() OVER () AS number,
        a.fingerprint,
        sum(a.calls)::bigint AS call_count,
        coalesce(sum(a.duration_ms), 0) AS total_duration_ms,
        sum(a.duration_ms) / nullif(sum(a.measured), 0)::float8 AS avg_duration_ms,
        sum(a.errors)::bigint AS error_count,
        max(a.newest_at) AS newest_at
    FROM (
        SELECT d.fingerprint, d.calls, d.measured, d.duration_ms, d.errors, d.newest_at FROM days AS d
        UNION ALL
        SELECT r.fingerprint, 1, (r.duration_ms IS NOT NULL)::integer, r.duration_ms, r.errors, r.timestamp FROM raw AS r
    ) AS a
    GROUP BY a.fingerprint
    ORDER BY total_duration_ms DESC, a.fingerprint
    LIMIT $8
),
bins AS (
    -- By number, since texts take longer to compare; arrays, because nulls in them are equal and they can be hashed.
    SELECT a.number, a.bin, sum(a.calls) AS calls
    FROM (
        SELECT s.number, b.bin, b.calls
        FROM statements AS s
        JOIN days AS d ON ARRAY[d.fingerprint] = ARRAY[s.fingerprint]
        CROSS JOIN LATERAL unnest(d.bins, d.bin_calls) AS b (bin, calls)
        WHERE b.bin IS NOT NULL
        UNION ALL
        SELECT s.number, analytics_latency_bin(r.duration_ms), 1
        FROM statements AS s
        JOIN raw AS r ON ARRAY[r.fingerprint] = ARRAY[s.fingerprint]
        WHERE r.duration_ms IS NOT NULL
    ) AS a
    GROUP BY a.number, a.bin
),
percentiles AS (
    SELECT
        r.number,
        min(0.95 * r.last)::float8 AS rank,
        analytics_latency_of_bin(min(r.bin) FILTER (WHERE r.below > floor(0.95 * r.last))) AS low,
        analytics_latency_of_bin(min(r.bin) FILTER (WHERE r.below > ceil(0.95 * r.last))) AS high
    FROM (
        SELECT
            b.number,
            b.bin,
            sum(b.calls) OVER (PARTITION BY b.number ORDER BY b.bin) AS below,
            sum(b.calls) OVER (PARTITION BY b.number) - 1 AS last
        FROM bins AS b
    ) AS r
    GROUP BY r.number
),
endpoints AS (
    SELECT u.number, array_agg(u.endpoint ORDER BY u.endpoint) AS endpoints
    FROM (
        SELECT s.number, e.endpoint
        FROM statements AS s
        JOIN days AS d ON ARRAY[d.fingerprint] = ARRAY[s.fingerprint]
        CROSS JOIN LATERAL unnest(d.endpoints) AS e (endpoint)
        UNION
        SELECT s.number, r.endpoint
        FROM statements AS s
        JOIN raw AS r ON ARRAY[r.fingerprint] = ARRAY[s.fingerprint]
        WHERE r.endpoint IS NOT NULL
    ) AS u
    GROUP BY u.number
)
SELECT
    s.fingerprint, n.query_type, n.table_name, n.statement, s.call_count, s.total_duration_ms, s.avg_duration_ms,
    p.low + (p.high - p.low) * (p.rank - floor(p.rank)) AS p95_duration_ms,
    s.error_count, coalesce(u.endpoints, '{}') AS endpoints
FROM statements AS s
LEFT JOIN percentiles AS p ON p.number = s.number
LEFT JOIN endpoints AS u ON u.number = s.number
LEFT JOIN LATERAL (
    -- What is the same for all calls of a fingerprint is looked up once; it is null when the row is gone.
    SELECT e.data ->> 'query_type' AS query_type, e.data ->> 'table' AS table_name, e.data ->> 'statement' AS statement
    FROM analytics_events AS e
    WHERE e.timestamp = s.newest_at AND e.event_type = 'database_query'
        AND e.data ->> 'fingerprint' IS NOT DISTINCT FROM s.fingerprint
    LIMIT 1
) AS n ON true
ORDER BY s.total_duration_ms DESC, s.fingerprint;

-- repeated --
-- Describe how many queries the requests of each endpoint make, the most repeats first. $1 to $6 are the bounds of the
-- five parts, $7 is the service, $8 the environment, each null for any; $9 the greatest number of rows.
SELECT
    r.endpoint,
    r.method,
    sum(r.requests)::bigint AS request_count,
    sum(r.db_queries) / nullif(sum(r.with_queries), 0)::float8 AS avg_db_queries,
    max(r.max_db_repeats)::bigint AS max_db_repeats
FROM (
    SELECT d.endpoint, d.method, d.requests, d.with_queries, d.db_queries, d.max_db_repeats
    FROM analytics_endpoint_days_filled AS d
    WHERE d.day >= $3 AND d.day < $4 AND ($7::text IS NULL OR d.service = $7)
    UNION ALL
    SELECT h.endpoint, h.method, h.requests, h.with_queries, h.db_queries, h.max_db_repeats
    FROM analytics_endpoint_hours AS h
    WHERE (h.hour >= $2 AND h.hour < $3 OR h.hour >= $4 AND h.hour < $5)
        AND ($7::text IS NULL OR h.service = $7) AND ($8::text IS NULL OR h.environment = $8)
    UNION ALL
    SELECT e.data ->> 'endpoint', e.data ->> 'method', 1,
        (analytics_amount(e.data -> 'db_queries') IS NOT NULL)::integer, analytics_amount(e.data -> 'db_queries'),
        analytics_amount(e.data -> 'db_repeats')
    FROM analytics_events AS e
    WHERE e.timestamp >= $1 AND e.timestamp < $2 AND e.event_type = 'api_request'
        AND ($7::text IS NULL OR e.service = $7) AND ($8::text IS NULL OR e.context ->> 'environment' = $8)
    UNION ALL
    SELECT e.data ->> 'endpoint', e.data ->> 'method', 1,
        (analytics_amount(e.data -> 'db_queries') IS NOT NULL)::integer, analytics_amount(e.data -> 'db_queries'),
        analytics_amount(e.data -> 'db_repeats')
    FROM analytics_events AS e
    WHERE e.timestamp >= $5 AND e.timestamp < $6 AND e.event_type = 'api_request'
        AND ($7::text IS NULL OR e.service = $7) AND ($8::text IS NULL OR e.context ->> 'environment' = $8)
) AS r
GROUP BY r.endpoint, r.method
HAVING sum(r.with_queries) > 0
ORDER BY max_db_repeats DESC NULLS LAST, avg_db_queries DESC, r.endpoint, r.method
LIMIT $9;
