-- When users were there: days of UTC of each user where no bucket begins within one, else quarter hours of users, or raw
-- rows where one type of event is meant; and raw rows for what is not computed yet, or no whole quarter hour.

-- presence --
-- List when users had an event: any, whose event_type is null here, or one of some types. $1 are the types, $2 tells
-- whether any event is meant too; $3 is the service; $4 and $5 are the bounds; $6 are the days that cannot be taken as a
-- whole, and $7 the quarter hours. Of any event, $8 tells up to where days are taken, $9 from where on quarter hours are
-- looked at and $10 up to where, and $11 and $12 are the parts that raw rows are looked at for. Of types, $13 tells up to
-- where days are taken, and $14 and $15 are the parts that raw rows are looked at for.
--
-- What is an aggregate is at its beginning, which lies in the same bucket as all of it.
SELECT d.user_id, d.day AS at, NULL AS event_type
FROM analytics_user_days_filled AS d
WHERE $2 AND d.user_id IS NOT NULL
    AND d.day >= $4 AND d.day < $5 AND d.day < $8
    AND d.day NOT IN (SELECT j.value FROM json_each($6) AS j)
UNION ALL
SELECT q.user_id, q.quarter, NULL
FROM analytics_user_quarters_filled AS q
WHERE $2 AND q.user_id IS NOT NULL AND ($3 IS NULL OR q.service = $3)
    AND q.quarter >= $9 AND q.quarter < $5 AND q.quarter < $10
    AND (
        q.quarter >= $8 OR substr(q.quarter, 1, 10) || 'T00:00:00.000000Z' IN (SELECT j.value FROM json_each($6) AS j)
    )
    AND q.quarter NOT IN (SELECT j.value FROM json_each($7) AS j)
UNION ALL
SELECT e.user_id, e.timestamp, NULL
FROM json_each($11) AS b
JOIN json_each($12) AS u ON u.key = b.key
CROSS JOIN analytics_events AS e ON e.timestamp >= b.value AND e.timestamp < u.value
WHERE e.user_id IS NOT NULL AND ($3 IS NULL OR e.service = $3)
UNION ALL
SELECT d.user_id, d.day, d.event_type
FROM analytics_user_types_daily_filled AS d
WHERE d.event_type IN (SELECT j.value FROM json_each($1) AS j) AND d.user_id IS NOT NULL
    AND ($3 IS NULL OR d.service = $3)
    AND d.day >= $4 AND d.day < $5 AND d.day < $13
    AND d.day NOT IN (SELECT j.value FROM json_each($6) AS j)
UNION ALL
SELECT e.user_id, e.timestamp, e.event_type
FROM json_each($14) AS b
JOIN json_each($15) AS u ON u.key = b.key
JOIN json_each($1) AS t
CROSS JOIN analytics_events AS e ON e.event_type = t.value AND e.timestamp >= b.value AND e.timestamp < u.value
WHERE e.user_id IS NOT NULL AND ($3 IS NULL OR e.service = $3);
