-- When users were there: days of UTC of each user where no bucket begins within one, else quarter hours of users, or raw
-- rows where one type of event is meant, and raw rows for a quarter hour within which a bucket begins.

-- presence --
-- List when users had an event: any, whose event_type is null here, or one of some types. $1 are the types, $2 tells
-- whether any event is meant too, and $3 whether days of UTC know it; $4 is the service; $5 and $6 are the bounds, and $7
-- tells up to where days are computed; $8 are the days that cannot be taken as a whole, $9 the quarter hours; $10 and $11
-- are the parts that types are looked up in raw rows for.
--
-- What is an aggregate is at its beginning, which lies in the same bucket as all of it.
SELECT d.user_id, d.day AS at, NULL::text AS event_type
FROM analytics_user_days_filled AS d
WHERE $2::boolean AND $3::boolean AND d.user_id IS NOT NULL
    AND d.day >= $5::timestamptz AND d.day < $6::timestamptz AND d.day < $7::timestamptz
    AND d.day <> ALL ($8::timestamptz[])
UNION ALL
SELECT q.user_id, q.quarter, NULL
FROM analytics_user_quarters AS q
WHERE $2::boolean AND q.user_id IS NOT NULL AND ($4::text IS NULL OR q.service = $4)
    AND q.quarter >= $5::timestamptz AND q.quarter < $6::timestamptz
    AND (
        NOT $3::boolean
        OR q.quarter >= $7::timestamptz
        OR date_bin('1 day', q.quarter, '2000-01-01 00:00:00+00') = ANY ($8::timestamptz[])
    )
    AND q.quarter <> ALL ($9::timestamptz[])
UNION ALL
SELECT e.user_id, e.timestamp, NULL
FROM unnest($9::timestamptz[]) AS b (quarter)
CROSS JOIN LATERAL (
    SELECT r.user_id, r.timestamp
    FROM analytics_events AS r
    WHERE $2::boolean AND r.user_id IS NOT NULL AND ($4::text IS NULL OR r.service = $4)
        AND r.timestamp >= greatest(b.quarter, $5::timestamptz)
        AND r.timestamp < least(b.quarter + INTERVAL '15 minutes', $6::timestamptz)
) AS e
UNION ALL
SELECT d.user_id, d.day, d.event_type
FROM analytics_user_types_daily_filled AS d
WHERE d.event_type = ANY ($1::text[]) AND d.user_id IS NOT NULL AND ($4::text IS NULL OR d.service = $4)
    AND d.day >= $5::timestamptz AND d.day < $6::timestamptz AND d.day < $7::timestamptz
    AND d.day <> ALL ($8::timestamptz[])
UNION ALL
SELECT e.user_id, e.timestamp, e.event_type
FROM unnest($10::timestamptz[], $11::timestamptz[]) AS b (since, until)
CROSS JOIN LATERAL (
    SELECT r.user_id, r.timestamp, r.event_type
    FROM analytics_events AS r
    WHERE r.event_type = ANY ($1::text[]) AND r.user_id IS NOT NULL AND ($4::text IS NULL OR r.service = $4)
        AND r.timestamp >= b.since AND r.timestamp < b.until
) AS e;
