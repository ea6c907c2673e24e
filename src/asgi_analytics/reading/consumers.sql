-- Who calls the API.

-- consumers --
-- Describe the requests of each user. $1 and $2 are the range, $3 is the service, $4 the greatest number of rows.
SELECT
    r.user_id,
    count(*) AS request_count,
    count(*) FILTER (WHERE r.status_code BETWEEN 400 AND 499) AS error_4xx_count,
    count(*) FILTER (WHERE r.status_code BETWEEN 500 AND 599) AS error_5xx_count,
    percentile_cont(0.95) WITHIN GROUP (ORDER BY r.duration_ms) AS p95_duration_ms,
    min(r.timestamp) AS first_seen_at,
    max(r.timestamp) AS last_seen_at
FROM (
    SELECT e.user_id, e.timestamp, analytics_amount(e.data -> 'status_code') AS status_code,
        analytics_amount(e.data -> 'duration_ms') AS duration_ms
    FROM analytics_events AS e
    WHERE e.timestamp >= $1 AND e.timestamp < $2 AND e.event_type = 'api_request' AND e.user_id IS NOT NULL
        AND ($3::text IS NULL OR e.service = $3)
) AS r
GROUP BY r.user_id
ORDER BY request_count DESC, r.user_id
LIMIT $4;
