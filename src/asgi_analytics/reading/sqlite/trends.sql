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
named AS MATERIALIZED (
    SELECT j.value FROM json_each($3) AS j
    UNION ALL
    SELECT f.value
    FROM (
        SELECT h.value
        FROM hits AS h
        WHERE $3 IS NULL AND h.value <> 'other'
        GROUP BY h.value
        ORDER BY sum(h.events) DESC, h.value
        LIMIT $2
    ) AS f
),
labelled AS (
    SELECT
        CASE WHEN h.value IS NULL OR h.value IN (SELECT n.value FROM named AS n) THEN h.value ELSE 'other' END AS label,
        h.*
    FROM hits AS h
)

-- counted --
-- Count the events or the distinct users of each value by bucket, and in the row without a bucket over all.
SELECT NULL AS event_type, u.label, u.bucket, sum(u.events) AS events, {math} AS number
FROM (
    SELECT h.label, h.bucket, h.user_id, sum(h.events) AS events
    FROM labelled AS h
    GROUP BY h.label, h.bucket, h.user_id
    UNION ALL
    SELECT h.label, NULL, h.user_id, sum(h.events)
    FROM labelled AS h
    GROUP BY h.label, h.user_id
) AS u
GROUP BY u.label, u.bucket
LIMIT 20001;

-- measured --
-- Compute something of the numbers of each value by bucket, and in the row without a bucket of all.
SELECT NULL AS event_type, h.label, h.bucket, sum(h.events) AS events, {math} AS number
FROM labelled AS h
GROUP BY h.label, h.bucket
UNION ALL
SELECT NULL, h.label, NULL, sum(h.events), {math}
FROM labelled AS h
GROUP BY h.label
LIMIT 20001;

-- events --
-- Count the events of a step by bucket, value and user.
SELECT
    analytics_bucket(e.timestamp, 1) AS bucket,
    {value} AS value,
    {user} AS user_id,
    count(*) AS events
FROM analytics_event_facts AS e
WHERE e.timestamp >= $5 AND e.timestamp < $6
    AND {step}
    AND ($4 IS NULL OR e.service = $4)
    AND ($7 IS NULL OR e.environment = $7)
GROUP BY bucket, value, {user};

-- numbers --
-- List the events of a step with a number of theirs.
SELECT
    analytics_bucket(e.timestamp, 1) AS bucket,
    {value} AS value,
    analytics_number({property}) AS number,
    1 AS events
FROM analytics_event_facts AS e
WHERE e.timestamp >= $5 AND e.timestamp < $6
    AND {step}
    AND ($4 IS NULL OR e.service = $4)
    AND ($7 IS NULL OR e.environment = $7);

-- types --
-- Count the events of types by bucket, and in the row without a bucket over all, from what was counted before. $1 are the
-- edges of the buckets, $2 is the service, $3 are the types; $4 to $9 are the bounds of the five parts: raw rows, quarter
-- hours, days of UTC, quarter hours and raw rows.
WITH counted AS MATERIALIZED (
    SELECT a.event_type, analytics_bucket(a.at, 1) AS bucket, sum(a.events) AS events
    FROM (
        SELECT d.day AS at, d.event_type, d.events
        FROM analytics_type_days_filled AS d
        WHERE $2 IS NULL AND d.day >= $6 AND d.day < $7
            AND d.event_type IN (SELECT j.value FROM json_each($3) AS j)
        UNION ALL
        SELECT d.day, d.event_type, d.events
        FROM analytics_service_type_days_filled AS d
        WHERE d.service = $2 AND d.day >= $6 AND d.day < $7
            AND d.event_type IN (SELECT j.value FROM json_each($3) AS j)
        UNION ALL
        SELECT q.quarter, q.event_type, q.events
        FROM analytics_type_quarters AS q
        WHERE (q.quarter >= $5 AND q.quarter < $6 OR q.quarter >= $7 AND q.quarter < $8)
            AND q.event_type IN (SELECT j.value FROM json_each($3) AS j) AND ($2 IS NULL OR q.service = $2)
        UNION ALL
        SELECT e.timestamp, e.event_type, 1
        FROM analytics_events AS e
        WHERE (e.timestamp >= $4 AND e.timestamp < $5 OR e.timestamp >= $8 AND e.timestamp < $9)
            AND e.event_type IN (SELECT j.value FROM json_each($3) AS j) AND ($2 IS NULL OR e.service = $2)
    ) AS a
    GROUP BY 1, 2
)
SELECT c.event_type, NULL AS label, c.bucket, 0 AS events, c.events AS number FROM counted AS c
UNION ALL
SELECT c.event_type, NULL, NULL, 0, sum(c.events) FROM counted AS c GROUP BY c.event_type;

-- users --
-- Count the distinct users of the types $4 by bucket, and in the row without a bucket over all, from the users of each
-- day. $1 are the edges of the buckets, $2 tells that each day is a bucket of its own, whose users are counted, $3 is the
-- service, $4 the types; $5 to $8 are the bounds of the three parts: raw rows, days of UTC and raw rows.
WITH hits AS MATERIALIZED (
    SELECT d.event_type, analytics_bucket(d.day, 1) AS bucket, d.user_id, 0 AS is_raw
    FROM analytics_user_types_daily_filled AS d
    WHERE d.day >= $6 AND d.day < $7 AND d.event_type IN (SELECT j.value FROM json_each($4) AS j)
        AND ($3 IS NULL OR d.service = $3)
    UNION ALL
    SELECT e.event_type, analytics_bucket(e.timestamp, 1), e.user_id, 1
    FROM analytics_events AS e
    WHERE (e.timestamp >= $5 AND e.timestamp < $6 OR e.timestamp >= $7 AND e.timestamp < $8)
        AND e.event_type IN (SELECT j.value FROM json_each($4) AS j) AND ($3 IS NULL OR e.service = $3)
)
SELECT t.event_type, NULL AS label, analytics_bucket(t.day, 1) AS bucket, 0 AS events, t.unique_users AS number
FROM (
    SELECT d.day, d.event_type, d.unique_users
    FROM analytics_type_days_filled AS d
    WHERE $3 IS NULL AND $2 AND d.day >= $6 AND d.day < $7
    UNION ALL
    SELECT d.day, d.event_type, d.unique_users
    FROM analytics_service_type_days_filled AS d
    WHERE d.service = $3 AND $2 AND d.day >= $6 AND d.day < $7
) AS t
WHERE t.event_type IN (SELECT j.value FROM json_each($4) AS j)
UNION ALL
SELECT h.event_type, NULL, h.bucket, 0, count(DISTINCT h.user_id)
FROM hits AS h
WHERE h.is_raw OR NOT $2
GROUP BY h.event_type, h.bucket
UNION ALL
SELECT h.event_type, NULL, NULL, 0, count(DISTINCT h.user_id)
FROM hits AS h
GROUP BY h.event_type;
