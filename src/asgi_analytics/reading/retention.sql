-- Whether users come back.

-- cohorts --
-- Count the users of each cohort, with a null period, and those of them who came back in each period. $16 are the edges
-- of the buckets, $17 and $18 the range in which a cohort's users began, $19 is the type of the event that began it and
-- $20 that of the one that counts as coming back, both null for any; $21 is the number of periods, $22 the greatest
-- number of rows.
WITH firsts AS (
    SELECT f.user_id, width_bucket(f.at, $16::timestamptz[]) AS cohort
    FROM (
        SELECT p.user_id, min(p.at) AS at
        FROM presence AS p
        WHERE $19::text IS NULL OR p.event_type = $19
        GROUP BY p.user_id
    ) AS f
    WHERE f.at >= $17::timestamptz AND f.at < $18::timestamptz
),
returns AS (
    SELECT DISTINCT f.user_id, f.cohort, width_bucket(p.at, $16::timestamptz[]) AS bucket
    FROM firsts AS f
    JOIN presence AS p ON p.user_id = f.user_id
    WHERE ($20::text IS NULL OR p.event_type = $20)
        AND p.at >= ($16::timestamptz[])[f.cohort]
        AND p.at < ($16::timestamptz[])[least(f.cohort + $21::integer, cardinality($16::timestamptz[]))]
)
SELECT f.cohort, NULL AS period, count(*) AS users
FROM firsts AS f
GROUP BY f.cohort
UNION ALL
SELECT r.cohort, r.bucket - r.cohort, count(*)
FROM returns AS r
GROUP BY r.cohort, r.bucket
ORDER BY cohort, period NULLS FIRST
LIMIT $22;
