-- The application's own queries: what is slow, and what is repeated within one request.

-- slow --
-- Describe each statement by its fingerprint, the greatest total time first. $1 and $2 are the range, $3 is the service,
-- $4 the environment, $5 the endpoint, each null for any; $6 is the greatest number of rows.
WITH statements AS (
    SELECT
        q.fingerprint,
        max(q.timestamp) AS newest_at,
        count(*) AS call_count,
        coalesce(sum(q.duration_ms), 0) AS total_duration_ms,
        avg(q.duration_ms) AS avg_duration_ms,
        percentile_cont(0.95) WITHIN GROUP (ORDER BY q.duration_ms) AS p95_duration_ms,
        count(*) FILTER (WHERE q.outcome <> 'ok') AS error_count,
        coalesce(array_agg(DISTINCT q.endpoint) FILTER (WHERE q.endpoint IS NOT NULL), '{}') AS endpoints
    FROM (
        SELECT
            e.timestamp, e.data ->> 'fingerprint' AS fingerprint, analytics_amount(e.data -> 'duration_ms') AS duration_ms,
            e.data ->> 'outcome' AS outcome, e.data ->> 'endpoint' AS endpoint
        FROM analytics_events AS e
        WHERE e.timestamp >= $1 AND e.timestamp < $2 AND e.event_type = 'database_query'
            AND ($3::text IS NULL OR e.service = $3)
            AND ($4::text IS NULL OR e.context ->> 'environment' = $4)
            AND ($5::text IS NULL OR e.data ->> 'endpoint' = $5)
    ) AS q
    GROUP BY q.fingerprint
    ORDER BY total_duration_ms DESC, q.fingerprint
    LIMIT $6
)
SELECT
    s.fingerprint, n.query_type, n.table_name, n.statement, s.call_count, s.total_duration_ms, s.avg_duration_ms,
    s.p95_duration_ms, s.error_count, s.endpoints
FROM statements AS s
CROSS JOIN LATERAL (
    -- What is the same for all calls of a fingerprint is looked up once.
    SELECT e.data ->> 'query_type' AS query_type, e.data ->> 'table' AS table_name, e.data ->> 'statement' AS statement
    FROM analytics_events AS e
    WHERE e.timestamp = s.newest_at AND e.event_type = 'database_query'
        AND e.data ->> 'fingerprint' IS NOT DISTINCT FROM s.fingerprint
    LIMIT 1
) AS n
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
