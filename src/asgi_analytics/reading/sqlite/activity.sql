-- What one user did.

-- days --
-- Count the events and the sessions of a user by day, oldest first. $1 are the edges of the days, $2 is the user, $3
-- the service, $4 the greatest number of rows. A session counts on the day it began.
WITH events AS (
    SELECT
        c.bucket, sum(c.events) AS events, min(c.first_at) AS first_at, max(c.last_at) AS last_at,
        json_group_object(c.event_type, c.events) AS breakdown
    FROM (
        SELECT
            analytics_bucket(e.timestamp, 1) AS bucket, e.event_type, count(*) AS events,
            min(e.timestamp) AS first_at, max(e.timestamp) AS last_at
        FROM analytics_events AS e
        WHERE e.user_id = $2
            AND e.hour IN (
                SELECT h.hour FROM analytics_hours AS h
                WHERE h.hour >= substr(json_extract($1, '$[0]'), 1, 13) AND h.hour <= json_extract($1, '$[#-1]')
            )
            AND +e.timestamp >= json_extract($1, '$[0]') AND +e.timestamp < json_extract($1, '$[#-1]')
            AND e.event_type <> 'page_engaged'
            AND ($3 IS NULL OR e.service = $3)
        GROUP BY 1, 2
    ) AS c
    GROUP BY c.bucket
),
sessions AS (
    SELECT analytics_bucket(s.started_at, 1) AS bucket, count(*) AS sessions, sum(s.duration_ms) AS duration_ms
    FROM analytics_session_rows AS s
    WHERE s.started_at >= json_extract($1, '$[0]') AND s.started_at < json_extract($1, '$[#-1]')
        AND s.user_id = $2
        AND ($3 IS NULL OR s.service = $3)
    GROUP BY 1
)
SELECT
    b.bucket,
    coalesce(s.sessions, 0) AS session_count,
    coalesce(e.events, 0) AS event_count,
    coalesce(s.duration_ms, 0.0) AS total_duration_ms,
    e.first_at AS "first_seen_at::timestamptz",
    e.last_at AS "last_seen_at::timestamptz",
    coalesce(e.breakdown, '{}') AS events_breakdown
FROM (SELECT e.bucket FROM events AS e UNION SELECT s.bucket FROM sessions AS s) AS b
LEFT JOIN events AS e ON e.bucket = b.bucket
LEFT JOIN sessions AS s ON s.bucket = b.bucket
ORDER BY b.bucket
LIMIT $4;
