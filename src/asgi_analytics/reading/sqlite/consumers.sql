-- Who calls the API: days of UTC from their aggregate, raw rows for what is not a whole day.

-- consumers --
-- Describe the requests of each user. $1 to $4 are the bounds of the three parts, $5 is the service, $6 the greatest
-- number of rows.
WITH raw AS MATERIALIZED (
    SELECT e.user_id, e.timestamp, e.status_code, e.duration_ms
    FROM analytics_event_facts AS e
    WHERE (e.timestamp >= $1 AND e.timestamp < $2 OR e.timestamp >= $3 AND e.timestamp < $4)
        AND e.event_type = 'api_request' AND e.user_id IS NOT NULL
        AND ($5 IS NULL OR e.service = $5)
),
consumers AS MATERIALIZED (
    SELECT
        a.user_id,
        sum(a.requests) AS request_count,
        sum(a.errors_4xx) AS error_4xx_count,
        sum(a.errors_5xx) AS error_5xx_count,
        min(a.first_seen_at) AS first_seen_at,
        max(a.last_seen_at) AS last_seen_at
    FROM (
        SELECT d.user_id, d.requests, d.errors_4xx, d.errors_5xx, d.first_seen_at, d.last_seen_at
        FROM analytics_consumer_days_filled AS d
        WHERE d.day >= $2 AND d.day < $3 AND ($5 IS NULL OR d.service = $5)
        UNION ALL
        SELECT r.user_id, 1, coalesce(r.status_code BETWEEN 400 AND 499, 0),
            coalesce(r.status_code BETWEEN 500 AND 599, 0), r.timestamp, r.timestamp
        FROM raw AS r
    ) AS a
    GROUP BY a.user_id
    ORDER BY request_count DESC, a.user_id
    LIMIT $6
),
durations AS (
    -- Only of those who are shown.
    SELECT c.user_id, u.value AS ms
    FROM consumers AS c
    CROSS JOIN analytics_consumer_days_filled AS d ON d.user_id = c.user_id
    CROSS JOIN json_each(d.durations_ms) AS u
    WHERE d.day >= $2 AND d.day < $3 AND ($5 IS NULL OR d.service = $5)
    UNION ALL
    SELECT r.user_id, r.duration_ms
    FROM raw AS r
    WHERE r.duration_ms IS NOT NULL AND r.user_id IN (SELECT c.user_id FROM consumers AS c)
)
SELECT
    c.user_id AS "user_id::uuid",
    c.request_count,
    c.error_4xx_count,
    c.error_5xx_count,
    p.p95_duration_ms AS "p95_duration_ms::float8",
    c.first_seen_at AS "first_seen_at::timestamptz",
    c.last_seen_at AS "last_seen_at::timestamptz"
FROM consumers AS c
LEFT JOIN (
    SELECT d.user_id, analytics_quantile(d.ms, 0.95) AS p95_duration_ms FROM durations AS d GROUP BY d.user_id
) AS p ON p.user_id = c.user_id
ORDER BY c.request_count DESC, c.user_id;
