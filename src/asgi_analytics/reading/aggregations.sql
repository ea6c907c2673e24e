-- How often each type of event happened, and to how many users: days of each type and user, raw rows for what is not a
-- whole day of UTC.

-- types --
-- Count events and users by bucket and type, and over all of them, which is the row without a type. $1 to $4 are the
-- bounds of the three parts, $5 the edges of the buckets, $6 only these types, $7 all types but these, $8 the service,
-- each of the last three null for any.
WITH hits AS (
    SELECT width_bucket(h.at, $5::timestamptz[]) AS bucket, h.event_type, h.user_id, sum(h.events) AS events
    FROM (
        SELECT d.day AS at, d.event_type, d.user_id, d.events
        FROM analytics_user_types_daily AS d
        WHERE d.day >= $2 AND d.day < $3
            AND ($6::text[] IS NULL OR d.event_type = ANY ($6))
            AND ($7::text[] IS NULL OR d.event_type <> ALL ($7))
            AND ($8::text IS NULL OR d.service = $8)
        UNION ALL
        SELECT e.timestamp, e.event_type, e.user_id, 1
        FROM analytics_events AS e
        WHERE e.timestamp >= $1 AND e.timestamp < $2
            AND ($6::text[] IS NULL OR e.event_type = ANY ($6))
            AND ($7::text[] IS NULL OR e.event_type <> ALL ($7))
            AND ($8::text IS NULL OR e.service = $8)
        UNION ALL
        SELECT e.timestamp, e.event_type, e.user_id, 1
        FROM analytics_events AS e
        WHERE e.timestamp >= $3 AND e.timestamp < $4
            AND ($6::text[] IS NULL OR e.event_type = ANY ($6))
            AND ($7::text[] IS NULL OR e.event_type <> ALL ($7))
            AND ($8::text IS NULL OR e.service = $8)
    ) AS h
    GROUP BY 1, 2, 3
)
SELECT h.bucket, h.event_type, sum(h.events)::bigint AS events, count(h.user_id) AS unique_users
FROM hits AS h
GROUP BY 1, 2
UNION ALL
SELECT NULL, NULL, coalesce(sum(u.events), 0)::bigint, count(u.user_id)
FROM (SELECT h.user_id, sum(h.events) AS events FROM hits AS h GROUP BY h.user_id) AS u
ORDER BY 1, 2
LIMIT 10002;
