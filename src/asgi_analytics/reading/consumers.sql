-- Who calls the API: days of UTC from their aggregate, raw rows for what is not a whole day.

-- consumers --
-- Describe the requests of each user. $1 to $4 are the bounds of the three parts, $5 is the service, $6 the greatest
-- number of rows.
WITH raw AS (
    SELECT e.user_id, e.timestamp, analytics_amount(e.data -> 'status_code') AS status_code,
        analytics_amount(e.data -> 'duration_ms') AS duration_ms
    FROM analytics_events AS e
    WHERE e.timestamp >= $1 AND e.timestamp < $2 AND e.event_type = 'api_request' AND e.user_id IS NOT NULL
        AND ($5::text IS NULL OR e.service = $5)
    UNION ALL
    SELECT e.user_id, e.timestamp, analytics_amount(e.data -> 'status_code'),
        analytics_amount(e.data -> 'duration_ms')
    FROM analytics_events AS e
    WHERE e.timestamp >= $3 AND e.timestamp < $4 AND e.event_type = 'api_request' AND e.user_id IS NOT NULL
        AND ($5::text IS NULL OR e.service = $5)
),
consumers AS (
    SELECT
        a.user_id,
        sum(a.requests)::bigint AS request_count,
        sum(a.errors_4xx)::bigint AS error_4xx_count,
        sum(a.errors_5xx)::bigint AS error_5xx_count,
        min(a.first_seen_at) AS first_seen_at,
        max(a.last_seen_at) AS last_seen_at
    FROM (
        SELECT d.user_id, d.requests, d.errors_4xx, d.errors_5xx, d.first_seen_at, d.last_seen_at
        FROM analytics_consumer_days_filled AS d
        WHERE d.day >= $2 AND d.day < $3 AND ($5::text IS NULL OR d.service = $5)
        UNION ALL
        SELECT r.user_id, 1, coalesce(r.status_code BETWEEN 400 AND 499, false)::integer,
            coalesce(r.status_code BETWEEN 500 AND 599, false)::integer, r.timestamp, r.timestamp
        FROM raw AS r
    ) AS a
    GROUP BY a.user_id
    ORDER BY request_count DESC, a.user_id
    LIMIT $6
),
durations AS (
    -- Only of those who are shown.
    SELECT c.user_id, u.ms
    FROM consumers AS c
    JOIN analytics_consumer_days_filled AS d ON d.user_id = c.user_id
    CROSS JOIN LATERAL unnest(d.durations_ms) AS u (ms)
    WHERE d.day >= $2 AND d.day < $3 AND ($5::text IS NULL OR d.service = $5)
    UNION ALL
    SELECT c.user_id, r.duration_ms
    FROM consumers AS c
    JOIN raw AS r ON r.user_id = c.user_id
    WHERE r.duration_ms IS NOT NULL
)
SELECT
    c.user_id, c.request_count, c.error_4xx_count, c.error_5xx_count, p.p95_duration_ms, c.first_seen_at, c.last_seen_at
FROM consumers AS c
LEFT JOIN (
    SELECT d.user_id, percentile_cont(0.95) WITHIN GROUP (ORDER BY d.ms) AS p95_duration_ms
    FROM durations AS d
    GROUP BY d.user_id
) AS p ON p.user_id = c.user_id
ORDER BY c.request_count DESC, c.user_id;
