-- The application's own queries: what is slow, and what is repeated within one request.

-- slow --
-- Describe each statement by its fingerprint, the greatest total time first. $1 to $4 are the bounds of the three parts,
-- $5 is the service, $6 the environment, $7 the endpoint, each null for any; $8 is the greatest number of rows.
WITH calls AS (
    SELECT d.fingerprint, d.endpoint, d.bin, d.calls, d.duration_ms, d.errors, d.newest_at
    FROM analytics_query_days AS d
    WHERE d.day >= $2 AND d.day < $3
        AND ($5::text IS NULL OR d.service = $5)
        AND ($6::text IS NULL OR d.environment = $6)
        AND ($7::text IS NULL OR d.endpoint = $7)
    UNION ALL
    SELECT
        e.data ->> 'fingerprint', e.data ->> 'endpoint',
        CASE
            WHEN analytics_amount(e.data -> 'duration_ms') IS NOT NULL
                THEN analytics_latency_bin(analytics_amount(e.data -> 'duration_ms'))
        END,
        1, analytics_amount(e.data -> 'duration_ms'), coalesce(e.data ->> 'outcome' <> 'ok', false)::integer, e.timestamp
    FROM analytics_events AS e
    WHERE e.timestamp >= $1 AND e.timestamp < $2 AND e.event_type = 'database_query'
        AND ($5::text IS NULL OR e.service = $5)
        AND ($6::text IS NULL OR e.context ->> 'environment' = $6)
        AND ($7::text IS NULL OR e.data ->> 'endpoint' = $7)
    UNION ALL
    SELECT
        e.data ->> 'fingerprint', e.data ->> 'endpoint',
        CASE
            WHEN analytics_amount(e.data -> 'duration_ms') IS NOT NULL
                THEN analytics_latency_bin(analytics_amount(e.data -> 'duration_ms'))
        END,
        1, analytics_amount(e.data -> 'duration_ms'), coalesce(e.data ->> 'outcome' <> 'ok', false)::integer, e.timestamp
    FROM analytics_events AS e
    WHERE e.timestamp >= $3 AND e.timestamp < $4 AND e.event_type = 'database_query'
        AND ($5::text IS NULL OR e.service = $5)
        AND ($6::text IS NULL OR e.context ->> 'environment' = $6)
        AND ($7::text IS NULL OR e.data ->> 'endpoint' = $7)
),
bins AS (
    SELECT
        c.fingerprint, c.bin, sum(c.calls) AS calls, sum(c.duration_ms) AS duration_ms, sum(c.errors) AS errors,
        max(c.newest_at) AS newest_at
    FROM calls AS c
    GROUP BY c.fingerprint, c.bin
),
ranked AS (
    -- The last bin is the one of the calls without a duration, which have no rank.
    SELECT
        b.*,
        sum(b.calls) OVER (PARTITION BY b.fingerprint ORDER BY b.bin) AS below,
        sum(b.calls) FILTER (WHERE b.bin IS NOT NULL) OVER (PARTITION BY b.fingerprint) - 1 AS last
    FROM bins AS b
),
statements AS (
    SELECT
        r.fingerprint,
        sum(r.calls)::bigint AS call_count,
        coalesce(sum(r.duration_ms), 0) AS total_duration_ms,
        sum(r.duration_ms) / nullif(sum(r.calls) FILTER (WHERE r.bin IS NOT NULL), 0)::float8 AS avg_duration_ms,
        min(0.95 * r.last)::float8 AS rank,
        analytics_latency_of_bin(min(r.bin) FILTER (WHERE r.below > floor(0.95 * r.last))) AS p95_low,
        analytics_latency_of_bin(min(r.bin) FILTER (WHERE r.below > ceil(0.95 * r.last))) AS p95_high,
        sum(r.errors)::bigint AS error_count,
        max(r.newest_at) AS newest_at
    FROM ranked AS r
    GROUP BY r.fingerprint
    ORDER BY total_duration_ms DESC, r.fingerprint
    LIMIT $8
),
endpoints AS (
    SELECT u.fingerprint, array_agg(u.endpoint ORDER BY u.endpoint) AS endpoints
    FROM (SELECT DISTINCT c.fingerprint, c.endpoint FROM calls AS c WHERE c.endpoint IS NOT NULL) AS u
    GROUP BY u.fingerprint
)
SELECT
    s.fingerprint, n.query_type, n.table_name, n.statement, s.call_count, s.total_duration_ms, s.avg_duration_ms,
    s.p95_low + (s.p95_high - s.p95_low) * (s.rank - floor(s.rank)) AS p95_duration_ms,
    s.error_count, coalesce(u.endpoints, '{}') AS endpoints
FROM statements AS s
-- Arrays, because nulls in them are equal, and because they can be hashed.
LEFT JOIN endpoints AS u ON ARRAY[u.fingerprint] = ARRAY[s.fingerprint]
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
-- Describe how many queries the requests of each endpoint make, the most repeats first. $1 to $4 are the bounds of the
-- three parts, $5 is the service, $6 the environment, each null for any; $7 the greatest number of rows.
SELECT
    r.endpoint,
    r.method,
    sum(r.requests)::bigint AS request_count,
    sum(r.db_queries) / nullif(sum(r.with_queries), 0)::float8 AS avg_db_queries,
    max(r.max_db_repeats)::bigint AS max_db_repeats
FROM (
    SELECT h.endpoint, h.method, h.requests, h.with_queries, h.db_queries, h.max_db_repeats
    FROM analytics_endpoint_hours AS h
    WHERE h.hour >= $2 AND h.hour < $3
        AND ($5::text IS NULL OR h.service = $5) AND ($6::text IS NULL OR h.environment = $6)
    UNION ALL
    SELECT e.data ->> 'endpoint', e.data ->> 'method', 1,
        (analytics_amount(e.data -> 'db_queries') IS NOT NULL)::integer, analytics_amount(e.data -> 'db_queries'),
        analytics_amount(e.data -> 'db_repeats')
    FROM analytics_events AS e
    WHERE e.timestamp >= $1 AND e.timestamp < $2 AND e.event_type = 'api_request'
        AND ($5::text IS NULL OR e.service = $5) AND ($6::text IS NULL OR e.context ->> 'environment' = $6)
    UNION ALL
    SELECT e.data ->> 'endpoint', e.data ->> 'method', 1,
        (analytics_amount(e.data -> 'db_queries') IS NOT NULL)::integer, analytics_amount(e.data -> 'db_queries'),
        analytics_amount(e.data -> 'db_repeats')
    FROM analytics_events AS e
    WHERE e.timestamp >= $3 AND e.timestamp < $4 AND e.event_type = 'api_request'
        AND ($5::text IS NULL OR e.service = $5) AND ($6::text IS NULL OR e.context ->> 'environment' = $6)
) AS r
GROUP BY r.endpoint, r.method
HAVING sum(r.with_queries) > 0
ORDER BY max_db_repeats DESC NULLS LAST, avg_db_queries DESC, r.endpoint, r.method
LIMIT $7;
