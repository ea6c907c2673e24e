-- Trends: how often events of a step happened, how many users they are of, or what their numbers are, by bucket.
--
-- A statement is `labelled` over the events of one of the blocks below, and then `counted` or `measured`. What stands in
-- braces is filled in by trends.py with fixed SQL, in which each value and name is a parameter. Of every statement $1 are
-- the edges of the buckets, $2 is the greatest number of values that are told apart, $3 are these values, null for the
-- most frequent, and $4 is the service.

-- labelled --
-- Tell apart the values of events. A text that is not among them is 'other', as is one that is so called.
WITH hits AS MATERIALIZED (
    {hits}
),
named AS (
    SELECT unnest($3::text[]) AS value
    UNION ALL
    (
        SELECT h.value
        FROM hits AS h
        WHERE $3::text[] IS NULL AND h.value <> 'other'
        GROUP BY h.value
        ORDER BY sum(h.events) DESC, h.value COLLATE "C"
        LIMIT $2::bigint
    )
),
labelled AS (
    SELECT
        CASE WHEN h.value IS NULL OR h.value IN (SELECT n.value FROM named AS n) THEN h.value ELSE 'other' END AS label,
        h.*
    FROM hits AS h
)

-- counted --
-- Count the events and the distinct users of each type and value by bucket, and in the row without a bucket over all.
-- Users are made distinct by a hash, where count(DISTINCT …) would sort them.
SELECT u.event_type, u.label, u.bucket, sum(u.events)::bigint AS events, {math} AS number
FROM (
    SELECT h.event_type, h.label, h.bucket, h.user_id, sum(h.events) AS events
    FROM labelled AS h
    GROUP BY GROUPING SETS ((h.event_type, h.label, h.bucket, h.user_id), (h.event_type, h.label, h.user_id))
) AS u
GROUP BY u.event_type, u.label, u.bucket
LIMIT 20001;

-- measured --
-- Compute something of the numbers of each type and value by bucket, and in the row without a bucket of all.
SELECT h.event_type, h.label, h.bucket, sum(h.events)::bigint AS events, {math} AS number
FROM labelled AS h
GROUP BY GROUPING SETS ((h.event_type, h.label, h.bucket), (h.event_type, h.label))
LIMIT 20001;

-- events --
-- Count the events of a step by bucket, value and user. $5 and $6 are the range, $7 is the environment.
SELECT
    e.event_type,
    width_bucket(e.timestamp, $1::timestamptz[]) AS bucket,
    {value} AS value,
    {user} AS user_id,
    count(*) AS events
FROM analytics_events AS e
WHERE e.timestamp >= $5 AND e.timestamp < $6
    AND {step}
    AND ($4::text IS NULL OR e.service = $4)
    AND ($7::text IS NULL OR e.context ->> 'environment' = $7)
GROUP BY 1, 2, 3, 4;

-- numbers --
-- List the events of a step with a number of theirs. $5 and $6 are the range, $7 is the environment.
SELECT
    f.event_type,
    width_bucket(f.timestamp, $1::timestamptz[]) AS bucket,
    f.value,
    analytics_number(f.property) AS number,
    1 AS events
FROM (
    SELECT e.event_type, e.timestamp, {value} AS value, {property} AS property
    FROM analytics_events AS e
    WHERE e.timestamp >= $5 AND e.timestamp < $6
        AND {step}
        AND ($4::text IS NULL OR e.service = $4)
        AND ($7::text IS NULL OR e.context ->> 'environment' = $7)
    OFFSET 0  -- or the property would be looked for wherever the function, which is inlined, names it
) AS f;

-- types --
-- List how often events of the types $5 happened, from what was counted before. $6 to $11 are the bounds of the five
-- parts: raw rows, quarter hours, days of UTC, quarter hours and raw rows.
SELECT
    a.event_type,
    width_bucket(a.at, $1::timestamptz[]) AS bucket,
    NULL::text AS value,
    NULL::uuid AS user_id,
    sum(a.events) AS events
FROM (
    SELECT d.day AS at, d.event_type, d.events
    FROM analytics_type_days_filled AS d
    WHERE $4::text IS NULL AND d.day >= $8 AND d.day < $9 AND d.event_type = ANY ($5::text[])
    UNION ALL
    SELECT d.day, d.event_type, d.events
    FROM analytics_service_type_days_filled AS d
    WHERE d.service = $4 AND d.day >= $8 AND d.day < $9 AND d.event_type = ANY ($5)
    UNION ALL
    SELECT q.quarter, q.event_type, q.events
    FROM analytics_type_quarters AS q
    WHERE (q.quarter >= $7 AND q.quarter < $8 OR q.quarter >= $9 AND q.quarter < $10)
        AND q.event_type = ANY ($5) AND ($4::text IS NULL OR q.service = $4)
    UNION ALL
    SELECT e.timestamp, e.event_type, 1
    FROM analytics_events AS e
    WHERE e.timestamp >= $6 AND e.timestamp < $7 AND e.event_type = ANY ($5) AND ($4::text IS NULL OR e.service = $4)
    UNION ALL
    SELECT e.timestamp, e.event_type, 1
    FROM analytics_events AS e
    WHERE e.timestamp >= $10 AND e.timestamp < $11 AND e.event_type = ANY ($5) AND ($4::text IS NULL OR e.service = $4)
) AS a
GROUP BY 1, 2;

-- users --
-- List the users of the types $5, from those of each day. $6 to $9 are the bounds of the three parts: raw rows, days of
-- UTC and raw rows.
SELECT
    a.event_type,
    width_bucket(a.at, $1::timestamptz[]) AS bucket,
    NULL::text AS value,
    a.user_id,
    a.events
FROM (
    SELECT d.day AS at, d.event_type, d.user_id, d.events
    FROM analytics_user_types_daily_filled AS d
    WHERE d.day >= $7 AND d.day < $8 AND d.event_type = ANY ($5::text[]) AND ($4::text IS NULL OR d.service = $4)
    UNION ALL
    SELECT e.timestamp, e.event_type, e.user_id, 1
    FROM analytics_events AS e
    WHERE e.timestamp >= $6 AND e.timestamp < $7 AND e.event_type = ANY ($5) AND ($4::text IS NULL OR e.service = $4)
    UNION ALL
    SELECT e.timestamp, e.event_type, e.user_id, 1
    FROM analytics_events AS e
    WHERE e.timestamp >= $8 AND e.timestamp < $9 AND e.event_type = ANY ($5) AND ($4::text IS NULL OR e.service = $4)
) AS a;
