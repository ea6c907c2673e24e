-- What one user did.

-- days --
-- Count the events and the sessions of a user by day, oldest first. $1 are the edges of the days, $2 is the user, $3
-- the service, $4 the greatest number of rows. A session counts on the day it began.
WITH events AS (
    SELECT c.bucket, sum(c.events)::bigint AS events, min(c.first_at) AS first_at, max(c.last_at) AS last_at,
        jsonb_object_agg(c.event_type, c.events) AS breakdown
    FROM (
        SELECT
            width_bucket(e.timestamp, $1::timestamptz[]) AS bucket, e.event_type, count(*) AS events,
            min(e.timestamp) AS first_at, max(e.timestamp) AS last_at
        FROM analytics_events AS e
        WHERE e.timestamp >= ($1::timestamptz[])[1]
            AND e.timestamp < ($1::timestamptz[])[cardinality($1::timestamptz[])]
            AND e.user_id = $2::uuid AND e.event_type <> 'page_engaged'
            AND ($3::text IS NULL OR e.service = $3)
        GROUP BY 1, 2
    ) AS c
    GROUP BY c.bucket
),
sessions AS (
    SELECT
        width_bucket(s.started_at, $1::timestamptz[]) AS bucket, count(*) AS sessions, sum(s.duration_ms) AS duration_ms
    FROM analytics_session_rows AS s
    WHERE s.started_at >= ($1::timestamptz[])[1]
        AND s.started_at < ($1::timestamptz[])[cardinality($1::timestamptz[])]
        AND s.user_id = $2::uuid
        AND ($3::text IS NULL OR s.service = $3)
    GROUP BY 1
)
SELECT
    coalesce(e.bucket, s.bucket) AS bucket,
    coalesce(s.sessions, 0) AS session_count,
    coalesce(e.events, 0) AS event_count,
    coalesce(s.duration_ms, 0) AS total_duration_ms,
    e.first_at AS first_seen_at,
    e.last_at AS last_seen_at,
    coalesce(e.breakdown, '{}') AS events_breakdown
FROM events AS e
FULL JOIN sessions AS s ON s.bucket = e.bucket
ORDER BY 1
LIMIT $4;
