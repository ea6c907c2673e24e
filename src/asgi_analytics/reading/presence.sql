-- When users were there: days of UTC of each user where no bucket begins within one, else quarter hours of users, or raw
-- rows where one type of event is meant; and raw rows for what is not computed yet, or no whole quarter hour.

-- presence --
-- List when users had an event: any, whose event_type is null here, or one of some types. $1 are the types, $2 tells
-- whether any event is meant too; $3 is the service; $4 and $5 are the bounds; $6 are the days that cannot be taken as a
-- whole, and $7 the quarter hours. Of any event, $8 tells up to where days are taken, $9 from where on quarter hours are
-- looked at and $10 up to where, and $11 and $12 are the parts that raw rows are looked at for. Of types, $13 tells up to
-- where days are taken, and $14 and $15 are the parts that raw rows are looked at for.
--
-- What is an aggregate is at its beginning, which lies in the same bucket as all of it. The parts are in order, so that
-- the first and the last element tell which partitions need not be planned for. OFFSET 0 has each part looked up by itself.
SELECT d.user_id, d.day AS at, NULL::text AS event_type
FROM analytics_user_days_filled AS d
WHERE $2::boolean AND d.user_id IS NOT NULL
    AND d.day >= $4::timestamptz AND d.day < $5::timestamptz AND d.day < $8::timestamptz
    AND d.day <> ALL ($6::timestamptz[])
UNION ALL
SELECT q.user_id, q.quarter, NULL
FROM analytics_user_quarters_filled AS q
WHERE $2::boolean AND q.user_id IS NOT NULL AND ($3::text IS NULL OR q.service = $3)
    AND q.quarter >= $9::timestamptz AND q.quarter < $5::timestamptz AND q.quarter < $10::timestamptz
    AND (
        q.quarter >= $8::timestamptz
        OR date_bin('1 day', q.quarter, '2000-01-01 00:00:00+00') = ANY ($6::timestamptz[])
    )
    AND q.quarter <> ALL ($7::timestamptz[])
UNION ALL
SELECT e.user_id, e.timestamp, NULL
FROM unnest($11::timestamptz[], $12::timestamptz[]) AS b (since, until)
CROSS JOIN LATERAL (
    SELECT r.user_id, r.timestamp
    FROM analytics_events AS r
    WHERE cardinality($11::timestamptz[]) > 0 AND r.user_id IS NOT NULL AND ($3::text IS NULL OR r.service = $3)
        AND r.timestamp >= b.since AND r.timestamp < b.until
        AND r.timestamp >= ($11::timestamptz[])[1]
        AND r.timestamp < ($12::timestamptz[])[cardinality($12::timestamptz[])]
    OFFSET 0
) AS e
UNION ALL
SELECT d.user_id, d.day, d.event_type
FROM analytics_user_types_daily_filled AS d
WHERE cardinality($1::text[]) > 0
    AND d.event_type = ANY ($1) AND d.user_id IS NOT NULL AND ($3::text IS NULL OR d.service = $3)
    AND d.day >= $4::timestamptz AND d.day < $5::timestamptz AND d.day < $13::timestamptz
    AND d.day <> ALL ($6::timestamptz[])
UNION ALL
SELECT e.user_id, e.timestamp, e.event_type
FROM unnest($14::timestamptz[], $15::timestamptz[]) AS b (since, until)
CROSS JOIN LATERAL (
    SELECT r.user_id, r.timestamp, r.event_type
    FROM analytics_events AS r
    WHERE cardinality($14::timestamptz[]) > 0
        AND r.event_type = ANY ($1::text[]) AND r.user_id IS NOT NULL AND ($3::text IS NULL OR r.service = $3)
        AND r.timestamp >= b.since AND r.timestamp < b.until
        AND r.timestamp >= ($14::timestamptz[])[1]
        AND r.timestamp < ($15::timestamptz[])[cardinality($15::timestamptz[])]
    OFFSET 0
) AS e;
