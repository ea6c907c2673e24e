-- What one user did.

-- days --
-- Count the events and the sessions of a user by day, oldest first. $1 are the edges of the days, $2 is the user, $3
-- the service, $4 the greatest number of rows. A session counts on the day it began.
--
-- Days of UTC on which the user did anything are looked up first: to look for few events in columns takes long. Days that
-- are to be computed again are looked at too, for the user may have come in late.
WITH active AS MATERIALIZED (
    SELECT
        greatest(d.day, ($1::timestamptz[])[1]) AS since,
        least(d.day + INTERVAL '1 day', ($1::timestamptz[])[cardinality($1::timestamptz[])]) AS until
    FROM (
        SELECT u.day FROM analytics_user_days AS u WHERE u.user_id = $2::uuid
        UNION
        SELECT b.day
        FROM analytics_pending() AS p
        CROSS JOIN LATERAL generate_series(
            p.window_start, p.window_end - INTERVAL '1 day', INTERVAL '1 day'
        ) AS b (day)
        WHERE p.view_name = 'analytics_user_days'
    ) AS d
    WHERE d.day > ($1::timestamptz[])[1] - INTERVAL '1 day'
        AND d.day < ($1::timestamptz[])[cardinality($1::timestamptz[])]
),
events AS (
    SELECT
        c.bucket, sum(c.events)::bigint AS events, min(c.first_at) AS first_at, max(c.last_at) AS last_at,
        jsonb_object_agg(c.event_type, c.events) AS breakdown
    FROM (
        SELECT
            width_bucket(e.timestamp, $1::timestamptz[]) AS bucket, e.event_type, count(*) AS events,
            min(e.timestamp) AS first_at, max(e.timestamp) AS last_at
        FROM active AS a
        CROSS JOIN LATERAL (
            SELECT r.timestamp, r.event_type
            FROM analytics_events AS r
            WHERE r.timestamp >= a.since AND r.timestamp < a.until
                AND r.user_id = $2::uuid AND r.event_type <> 'page_engaged'
                AND ($3::text IS NULL OR r.service = $3)
        ) AS e
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
