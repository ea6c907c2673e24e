-- Whether users come back.

-- cohorts --
-- Count the users of each cohort, with a null period, and those of them who came back in each period. $12 are the edges
-- of the buckets, $13 and $14 the range in which a cohort's users began, $15 is the type of the event that began it and
-- $16 that of the one that counts as coming back, both null for any; $17 is the number of periods, $18 the greatest
-- number of rows.
WITH firsts AS (
    SELECT f.user_id, width_bucket(f.at, $12::timestamptz[]) AS cohort
    FROM (
        SELECT p.user_id, min(p.at) AS at
        FROM presence AS p
        WHERE p.event_type IS NOT DISTINCT FROM $15::text
        GROUP BY p.user_id
    ) AS f
    WHERE f.at >= $13::timestamptz AND f.at < $14::timestamptz
),
returns AS (
    SELECT DISTINCT p.user_id, width_bucket(p.at, $12::timestamptz[]) AS bucket
    FROM presence AS p
    WHERE p.event_type IS NOT DISTINCT FROM $16::text AND p.at >= ($12::timestamptz[])[1]
)
SELECT f.cohort, NULL AS period, count(*) AS users
FROM firsts AS f
GROUP BY f.cohort
UNION ALL
SELECT f.cohort, r.bucket - f.cohort, count(*)
FROM firsts AS f
JOIN returns AS r ON r.user_id = f.user_id
WHERE r.bucket >= f.cohort AND r.bucket < f.cohort + $17::integer
GROUP BY f.cohort, r.bucket
ORDER BY cohort, period NULLS FIRST
LIMIT $18;
