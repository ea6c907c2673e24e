-- Active users: days of each user where those of UTC will do, else quarter hours, and raw rows at the ends of a range
-- that are not a whole quarter hour.

-- daily --
-- Count users by day, and those of the 7 and 30 days to each day, which may begin before the range.
-- $1 to $6 are the bounds of the five parts, $7 the edges of the days, 29 before the range among them, $8 is the
-- service; $9 is where the first of those days begins, $10 the last whole quarter hour before the range; $11 tells whether
-- days of UTC will do; $12 is the greatest number of rows.
--
-- A user counts from each active day on for 1, 7 or 30 days, or until the next active day, which counts in turn. So
-- each is one that comes and one that goes, and the number of a day is the sum of all until then.
WITH hits AS (
    SELECT d.day AS at, d.user_id, d.events
    FROM analytics_user_days_filled AS d
    WHERE d.day >= $3 AND d.day < $4
    UNION ALL
    SELECT q.quarter, q.user_id, q.events
    FROM analytics_user_quarters AS q
    WHERE (q.quarter >= $2 AND q.quarter < $3 OR q.quarter >= $4 AND q.quarter < $5)
        AND ($8 IS NULL OR q.service = $8)
    UNION ALL
    SELECT e.timestamp, e.user_id, 1
    FROM analytics_event_facts AS e
    WHERE e.timestamp >= $1 AND e.timestamp < $2 AND ($8 IS NULL OR e.service = $8)
    UNION ALL
    SELECT e.timestamp, e.user_id, 1
    FROM analytics_event_facts AS e
    WHERE e.timestamp >= $5 AND e.timestamp < $6 AND ($8 IS NULL OR e.service = $8)
    UNION ALL
    -- Who was there before the range: their events do not count.
    SELECT d.day, d.user_id, 0
    FROM analytics_user_days_filled AS d
    WHERE $11 AND d.day >= $9 AND d.day < $10
    UNION ALL
    SELECT q.quarter, q.user_id, 0
    FROM analytics_user_quarters AS q
    WHERE NOT $11 AND q.quarter >= $9 AND q.quarter < $10 AND ($8 IS NULL OR q.service = $8)
    UNION ALL
    SELECT e.timestamp, e.user_id, 0
    FROM analytics_event_facts AS e
    WHERE e.timestamp >= $10 AND e.timestamp < $1 AND ($8 IS NULL OR e.service = $8)
),
days AS (
    SELECT analytics_bucket(h.at, 7) AS day, h.user_id, sum(h.events) AS events
    FROM hits AS h
    GROUP BY 1, 2
),
spans AS (
    SELECT
        d.day,
        d.ends,
        d.user_id IS NOT NULL AS known,
        count(*) AS users,
        count(*) FILTER (WHERE d.events > 0) AS users_in_range,
        sum(d.events) AS events
    FROM (
        SELECT u.*, min(
            u.day + 30, coalesce(lead(u.day) OVER (PARTITION BY u.user_id ORDER BY u.day), u.day + 30)
        ) AS ends FROM days AS u
    ) AS d
    GROUP BY d.day, d.ends, d.user_id IS NOT NULL
),
steps AS (
    SELECT s.day, s.users_in_range AS daily, s.users AS weekly, s.users AS monthly, s.events
    FROM spans AS s
    WHERE s.known
    UNION ALL
    SELECT min(s.day + 7, s.ends), 0, -s.users, 0, 0 FROM spans AS s WHERE s.known
    UNION ALL
    SELECT s.ends, 0, 0, -s.users, 0 FROM spans AS s WHERE s.known
    UNION ALL
    SELECT s.day, 0, 0, 0, s.events FROM spans AS s WHERE NOT s.known
),
sums AS (
    SELECT
        s.day,
        sum(s.daily) AS active_users,
        sum(s.events) AS total_events,
        sum(sum(s.weekly)) OVER (ORDER BY s.day) AS weekly_active_users,
        sum(sum(s.monthly)) OVER (ORDER BY s.day) AS monthly_active_users
    FROM steps AS s
    GROUP BY s.day
)
SELECT day, active_users, total_events, weekly_active_users, monthly_active_users
FROM sums
WHERE total_events > 0
ORDER BY day DESC
LIMIT $12;

-- by_bucket --
-- Count users by bucket. $1 to $6 are the bounds of the five parts, $7 the edges of the buckets, $8 is the service,
-- $9 is -1 for the newest first and 1 for the oldest first; $10 is the greatest number of rows.
SELECT
    h.bucket,
    count(h.user_id) AS active_users,
    sum(h.events) AS total_events
FROM (
    SELECT analytics_bucket(a.at, 7) AS bucket, a.user_id, sum(a.events) AS events
    FROM (
        SELECT d.day AS at, d.user_id, d.events
        FROM analytics_user_days_filled AS d
        WHERE d.day >= $3 AND d.day < $4
        UNION ALL
        SELECT q.quarter, q.user_id, q.events
        FROM analytics_user_quarters AS q
        WHERE (q.quarter >= $2 AND q.quarter < $3 OR q.quarter >= $4 AND q.quarter < $5)
            AND ($8 IS NULL OR q.service = $8)
        UNION ALL
        SELECT e.timestamp, e.user_id, 1
        FROM analytics_event_facts AS e
        WHERE e.timestamp >= $1 AND e.timestamp < $2 AND ($8 IS NULL OR e.service = $8)
        UNION ALL
        SELECT e.timestamp, e.user_id, 1
        FROM analytics_event_facts AS e
        WHERE e.timestamp >= $5 AND e.timestamp < $6 AND ($8 IS NULL OR e.service = $8)
    ) AS a
    GROUP BY 1, 2
) AS h
GROUP BY h.bucket
ORDER BY h.bucket * $9
LIMIT $10;
