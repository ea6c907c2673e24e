-- Trends: how often events of a step happened, how many users they are of, or what their numbers are, by bucket.
--
-- Aggregates answer by `types` and `users`, of all steps at once. Raw rows answer by `labelled` over `events` and then
-- `counted`, or by `labelled` over `numbers` and then `measured`, of one step. What stands in braces there is filled in
-- by trends.py with fixed SQL, in which each value and name is a parameter; $1 are the edges of the buckets, $2 is the
-- greatest number of values that are told apart, $3 are these values, null for the most frequent, $4 is the service, $5
-- and $6 are the range, and $7 is the environment.

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
-- Count the events or the distinct users of each value by bucket, and in the row without a bucket over all.
-- Users are made distinct by a hash, where count(DISTINCT …) would sort them.
SELECT NULL AS event_type, u.label, u.bucket, sum(u.events)::bigint AS events, {math} AS number
FROM (
    SELECT h.label, h.bucket, h.user_id, sum(h.events) AS events
    FROM labelled AS h
    GROUP BY GROUPING SETS ((h.label, h.bucket, h.user_id), (h.label, h.user_id))
) AS u
GROUP BY u.label, u.bucket
LIMIT 20001;

-- measured --
-- Compute something of the numbers of each value by bucket, and in the row without a bucket of all.
SELECT NULL AS event_type, h.label, h.bucket, sum(h.events)::bigint AS events, {math} AS number
FROM labelled AS h
GROUP BY GROUPING SETS ((h.label, h.bucket), (h.label))
LIMIT 20001;

-- events --
-- Count the events of a step by bucket, value and user.
SELECT
    width_bucket(e.timestamp, $1::timestamptz[]) AS bucket,
    {value} AS value,
    {user} AS user_id,
    count(*) AS events
FROM analytics_events AS e
WHERE e.timestamp >= $5 AND e.timestamp < $6
    AND {step}
    AND ($4::text IS NULL OR e.service = $4)
    AND ($7::text IS NULL OR e.context ->> 'environment' = $7)
GROUP BY 1, 2, 3;

-- numbers --
-- List the events of a step with a number of theirs.
SELECT
    width_bucket(f.timestamp, $1::timestamptz[]) AS bucket,
    f.value,
    analytics_number(f.property) AS number,
    1 AS events
FROM (
    SELECT e.timestamp, {value} AS value, {property} AS property
    FROM analytics_events AS e
    WHERE e.timestamp >= $5 AND e.timestamp < $6
        AND {step}
        AND ($4::text IS NULL OR e.service = $4)
        AND ($7::text IS NULL OR e.context ->> 'environment' = $7)
    OFFSET 0  -- or the property would be looked for wherever the function, which is inlined, names it
) AS f;

-- types --
-- Count the events of types by bucket, and in the row without a bucket over all, from what was counted before. $1 are the
-- edges of the buckets, $2 is the service, $3 are the types; $4 to $9 are the bounds of the five parts: raw rows, quarter
-- hours, days of UTC, quarter hours and raw rows.
SELECT
    a.event_type,
    NULL AS label,
    width_bucket(a.at, $1::timestamptz[]) AS bucket,
    0 AS events,
    sum(a.events)::bigint AS number
FROM (
    SELECT d.day AS at, d.event_type, d.events
    FROM analytics_type_days_filled AS d
    WHERE $2::text IS NULL AND d.day >= $6 AND d.day < $7 AND d.event_type = ANY ($3::text[])
    UNION ALL
    SELECT d.day, d.event_type, d.events
    FROM analytics_service_type_days_filled AS d
    WHERE d.service = $2 AND d.day >= $6 AND d.day < $7 AND d.event_type = ANY ($3)
    UNION ALL
    SELECT q.quarter, q.event_type, q.events
    FROM analytics_type_quarters AS q
    WHERE (q.quarter >= $5 AND q.quarter < $6 OR q.quarter >= $7 AND q.quarter < $8)
        AND q.event_type = ANY ($3) AND ($2::text IS NULL OR q.service = $2)
    UNION ALL
    SELECT e.timestamp, e.event_type, 1
    FROM analytics_events AS e
    WHERE e.timestamp >= $4 AND e.timestamp < $5 AND e.event_type = ANY ($3) AND ($2::text IS NULL OR e.service = $2)
    UNION ALL
    SELECT e.timestamp, e.event_type, 1
    FROM analytics_events AS e
    WHERE e.timestamp >= $8 AND e.timestamp < $9 AND e.event_type = ANY ($3) AND ($2::text IS NULL OR e.service = $2)
) AS a
GROUP BY GROUPING SETS ((1, 3), (1));

-- users --
-- Count the distinct users of the types $4 by bucket, and in the row without a bucket over all, from the users of each
-- day. $1 are the edges of the buckets, $2 tells that each day is a bucket of its own, whose users are counted, $3 is the
-- service, $4 the types; $5 to $8 are the bounds of the three parts: raw rows, days of UTC and raw rows.
WITH hits AS MATERIALIZED (
    SELECT d.event_type, width_bucket(d.day, $1::timestamptz[]) AS bucket, d.user_id, false AS is_raw
    FROM analytics_user_types_daily_filled AS d
    WHERE d.day >= $6 AND d.day < $7 AND d.event_type = ANY ($4::text[]) AND ($3::text IS NULL OR d.service = $3)
    UNION ALL
    SELECT e.event_type, width_bucket(e.timestamp, $1::timestamptz[]), e.user_id, true
    FROM analytics_events AS e
    WHERE e.timestamp >= $5 AND e.timestamp < $6 AND e.event_type = ANY ($4) AND ($3::text IS NULL OR e.service = $3)
    UNION ALL
    SELECT e.event_type, width_bucket(e.timestamp, $1::timestamptz[]), e.user_id, true
    FROM analytics_events AS e
    WHERE e.timestamp >= $7 AND e.timestamp < $8 AND e.event_type = ANY ($4) AND ($3::text IS NULL OR e.service = $3)
)
SELECT t.event_type, NULL AS label, width_bucket(t.day, $1::timestamptz[]) AS bucket, 0 AS events, t.unique_users AS number
FROM (
    SELECT d.day, d.event_type, d.unique_users
    FROM analytics_type_days_filled AS d
    WHERE $3::text IS NULL
    UNION ALL
    SELECT d.day, d.event_type, d.unique_users
    FROM analytics_service_type_days_filled AS d
    WHERE d.service = $3
) AS t
WHERE $2::boolean AND t.day >= $6 AND t.day < $7 AND t.event_type = ANY ($4)
UNION ALL
SELECT u.event_type, NULL, u.bucket, 0, count(u.user_id)
FROM (
    SELECT h.event_type, h.bucket, h.user_id
    FROM hits AS h
    WHERE h.is_raw OR NOT $2
    GROUP BY h.event_type, h.bucket, h.user_id
) AS u
GROUP BY u.event_type, u.bucket
UNION ALL
SELECT u.event_type, NULL, NULL, 0, count(u.user_id)
FROM (SELECT h.event_type, h.user_id FROM hits AS h GROUP BY h.event_type, h.user_id) AS u
GROUP BY u.event_type;
