-- The application's own queries: what is slow, and what is repeated within one request.

-- slow --
-- Describe each statement by its fingerprint, the greatest total time first. $1 to $4 are the bounds of the three parts,
-- $5 is the service, $6 the environment, $7 the endpoint, each null for any; $8 is the greatest number of rows.
WITH parts AS MATERIALIZED (
    SELECT d.fingerprint, d.endpoint, d.bin, d.calls, d.duration_ms, d.errors, d.newest_at
    FROM analytics_query_days_filled AS d
    WHERE ($7 IS NULL OR d.endpoint = $7) AND d.day >= $2 AND d.day < $3
        AND ($5 IS NULL OR d.service = $5)
        AND ($6 IS NULL OR d.environment = $6)
    UNION ALL
    SELECT
        e.fingerprint, e.endpoint, analytics_latency_bin(e.duration_ms), 1, e.duration_ms, coalesce(e.outcome <> 'ok', 0),
        e.timestamp
    FROM analytics_event_facts AS e
    WHERE (e.timestamp >= $1 AND e.timestamp < $2 OR e.timestamp >= $3 AND e.timestamp < $4)
        AND e.event_type = 'database_query'
        AND ($5 IS NULL OR e.service = $5)
        AND ($6 IS NULL OR e.environment = $6)
        AND ($7 IS NULL OR e.endpoint = $7)
),
statements AS (
    SELECT
        p.fingerprint,
        sum(p.calls) AS call_count,
        coalesce(sum(p.duration_ms), 0.0) AS total_duration_ms,
        sum(p.duration_ms) / nullif(sum(CASE WHEN p.bin IS NOT NULL THEN p.calls ELSE 0 END), 0) AS avg_duration_ms,
        analytics_quantiles_of_bins(p.bin, p.calls, '[0.95]') AS percentiles,
        sum(p.errors) AS error_count,
        max(p.newest_at) AS newest_at
    FROM parts AS p
    GROUP BY p.fingerprint
    ORDER BY total_duration_ms DESC, p.fingerprint NULLS LAST
    LIMIT $8
),
endpoints AS (
    SELECT u.fingerprint, json_group_array(u.endpoint) AS endpoints
    FROM (
        SELECT DISTINCT p.fingerprint, p.endpoint
        FROM parts AS p
        WHERE p.endpoint IS NOT NULL
        ORDER BY p.fingerprint, p.endpoint
    ) AS u
    GROUP BY u.fingerprint
),
newest AS (
    -- What is the same for all calls of a fingerprint is looked up once; it is null when the row is gone.
    SELECT s.fingerprint, max(e.rowid) AS number
    FROM statements AS s
    JOIN analytics_events AS e ON e.timestamp = s.newest_at
    WHERE e.event_type = 'database_query' AND analytics_text(e.data, 'fingerprint') IS s.fingerprint
    GROUP BY s.fingerprint
)
SELECT
    s.fingerprint,
    analytics_text(e.data, 'query_type') AS query_type,
    analytics_text(e.data, 'table') AS table_name,
    analytics_text(e.data, 'statement') AS statement,
    s.call_count,
    s.total_duration_ms,
    s.avg_duration_ms,
    json_extract(s.percentiles, '$[0]') AS p95_duration_ms,
    s.error_count,
    coalesce(u.endpoints, '[]') AS "endpoints::json"
FROM statements AS s
LEFT JOIN endpoints AS u ON u.fingerprint IS s.fingerprint
LEFT JOIN newest AS n ON n.fingerprint IS s.fingerprint
LEFT JOIN analytics_events AS e ON e.rowid = n.number
ORDER BY s.total_duration_ms DESC, s.fingerprint NULLS LAST;

-- repeated --
-- Describe how many queries the requests of each endpoint make, the most repeats first. $1 to $6 are the bounds of the
-- five parts, $7 is the service, $8 the environment, each null for any; $9 the greatest number of rows.
SELECT
    r.endpoint,
    r.method,
    sum(r.requests) AS request_count,
    sum(r.db_queries) / nullif(sum(r.with_queries), 0) AS avg_db_queries,
    CAST(max(r.max_db_repeats) AS INTEGER) AS max_db_repeats
FROM (
    SELECT d.endpoint, d.method, d.requests, d.with_queries, d.db_queries, d.max_db_repeats
    FROM analytics_endpoint_days_filled AS d
    WHERE d.day >= $3 AND d.day < $4 AND ($7 IS NULL OR d.service = $7)
    UNION ALL
    SELECT h.endpoint, h.method, h.requests, h.with_queries, h.db_queries, h.max_db_repeats
    FROM analytics_endpoint_hours AS h
    WHERE (h.hour >= $2 AND h.hour < $3 OR h.hour >= $4 AND h.hour < $5)
        AND ($7 IS NULL OR h.service = $7) AND ($8 IS NULL OR h.environment = $8)
    UNION ALL
    SELECT e.endpoint, e.method, 1,
        e.db_queries IS NOT NULL, e.db_queries,
        e.db_repeats
    FROM analytics_event_facts AS e
    WHERE e.timestamp >= $1 AND e.timestamp < $2 AND e.event_type = 'api_request'
        AND ($7 IS NULL OR e.service = $7) AND ($8 IS NULL OR e.environment = $8)
    UNION ALL
    SELECT e.endpoint, e.method, 1,
        e.db_queries IS NOT NULL, e.db_queries,
        e.db_repeats
    FROM analytics_event_facts AS e
    WHERE e.timestamp >= $5 AND e.timestamp < $6 AND e.event_type = 'api_request'
        AND ($7 IS NULL OR e.service = $7) AND ($8 IS NULL OR e.environment = $8)
) AS r
GROUP BY r.endpoint, r.method
HAVING sum(r.with_queries) > 0
ORDER BY max_db_repeats DESC NULLS LAST, avg_db_queries DESC, r.endpoint NULLS LAST, r.method NULLS LAST
LIMIT $9;
