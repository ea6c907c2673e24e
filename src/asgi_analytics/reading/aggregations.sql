-- How often each type of event happened, and to how many users.

-- types --
-- Count events by bucket and type. $1 and $2 are the range, $3 the edges of the buckets, $4 only these types, $5 all
-- types but these, $6 the service, each of the last three null for any.
SELECT width_bucket(e.timestamp, $3::timestamptz[]) AS bucket, e.event_type, count(*) AS events,
    count(DISTINCT e.user_id) AS unique_users
FROM analytics_events AS e
WHERE e.timestamp >= $1 AND e.timestamp < $2
    AND ($4::text[] IS NULL OR e.event_type = ANY ($4))
    AND ($5::text[] IS NULL OR e.event_type <> ALL ($5))
    AND ($6::text IS NULL OR e.service = $6)
GROUP BY 1, 2
ORDER BY 1, 2
LIMIT 10001;

-- users --
-- Count the distinct users of the same events.
SELECT count(DISTINCT e.user_id)
FROM analytics_events AS e
WHERE e.timestamp >= $1 AND e.timestamp < $2
    AND ($3::text[] IS NULL OR e.event_type = ANY ($3))
    AND ($4::text[] IS NULL OR e.event_type <> ALL ($4))
    AND ($5::text IS NULL OR e.service = $5);
