-- How often each type of event happened, and to how many users: days from their aggregates, raw rows for what is not a
-- whole day of UTC.

-- types --
-- Count events and users by bucket and type, and over all of them, which is the row without a type. $1 to $4 are the
-- bounds of the three parts, $5 the edges of the buckets, $6 only these types, $7 all types but these, $8 the service,
-- each of the last three null for any; $9 tells that each day is a bucket of its own, whose users are counted.
WITH hits AS (
    -- The users of each type, where they are not counted yet.
    SELECT analytics_bucket(d.day, 5) AS bucket, d.event_type, d.user_id, d.events, false AS is_raw
    FROM analytics_user_types_daily_filled AS d
    WHERE d.day >= $2 AND d.day < $3
        AND (NOT $9 OR $6 IS NOT NULL OR $7 IS NOT NULL)
        AND ($6 IS NULL OR d.event_type IN (SELECT j.value FROM json_each($6) AS j))
        AND ($7 IS NULL OR d.event_type NOT IN (SELECT j.value FROM json_each($7) AS j))
        AND ($8 IS NULL OR d.service = $8)
    UNION ALL
    SELECT analytics_bucket(e.timestamp, 5), e.event_type, e.user_id, 1, true
    FROM analytics_event_facts AS e
    WHERE e.timestamp >= $1 AND e.timestamp < $2
        AND ($6 IS NULL OR e.event_type IN (SELECT j.value FROM json_each($6) AS j))
        AND ($7 IS NULL OR e.event_type NOT IN (SELECT j.value FROM json_each($7) AS j))
        AND ($8 IS NULL OR e.service = $8)
    UNION ALL
    SELECT analytics_bucket(e.timestamp, 5), e.event_type, e.user_id, 1, true
    FROM analytics_event_facts AS e
    WHERE e.timestamp >= $3 AND e.timestamp < $4
        AND ($6 IS NULL OR e.event_type IN (SELECT j.value FROM json_each($6) AS j))
        AND ($7 IS NULL OR e.event_type NOT IN (SELECT j.value FROM json_each($7) AS j))
        AND ($8 IS NULL OR e.service = $8)
),
counted AS (
    SELECT analytics_bucket(d.day, 5) AS bucket, d.event_type, d.events, d.unique_users
    FROM (
        SELECT t.day, t.event_type, t.events, t.unique_users
        FROM analytics_type_days_filled AS t
        WHERE $9 AND $8 IS NULL AND t.day >= $2 AND t.day < $3
        UNION ALL
        SELECT t.day, t.event_type, t.events, t.unique_users
        FROM analytics_service_type_days_filled AS t
        WHERE $9 AND t.service = $8 AND t.day >= $2 AND t.day < $3
    ) AS d
    WHERE ($6 IS NULL OR d.event_type IN (SELECT j.value FROM json_each($6) AS j))
        AND ($7 IS NULL OR d.event_type NOT IN (SELECT j.value FROM json_each($7) AS j))
    UNION ALL
    SELECT u.bucket, u.event_type, sum(u.events), count(u.user_id)
    FROM (
        SELECT h.bucket, h.event_type, h.user_id, sum(h.events) AS events
        FROM hits AS h
        WHERE h.is_raw OR NOT $9
        GROUP BY h.bucket, h.event_type, h.user_id
    ) AS u
    GROUP BY u.bucket, u.event_type
),
users AS (
    SELECT h.user_id FROM hits AS h
    UNION
    SELECT d.user_id
    FROM analytics_user_days_filled AS d
    WHERE $9 AND $6 IS NULL AND $7 IS NULL AND $8 IS NULL AND d.day >= $2 AND d.day < $3
    UNION
    SELECT q.user_id
    FROM analytics_user_quarters AS q
    WHERE $9 AND $6 IS NULL AND $7 IS NULL AND q.service = $8
        AND q.quarter >= $2 AND q.quarter < $3
)
SELECT r.bucket, r.event_type, r.events, r.unique_users FROM counted AS r
UNION ALL
SELECT NULL, NULL, (SELECT coalesce(sum(r.events), 0) FROM counted AS r), (SELECT count(u.user_id) FROM users AS u)
ORDER BY 1 NULLS LAST, 2 NULLS LAST
LIMIT 10002;
