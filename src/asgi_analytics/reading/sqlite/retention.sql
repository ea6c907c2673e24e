-- Whether users come back.

-- cohorts --
-- Count the users of each cohort, with a null period, and those of them who came back in each period. $16 are the edges
-- of the buckets, $17 and $18 the range in which a cohort's users began, $19 is the type of the event that began it and
-- $20 that of the one that counts as coming back, both null for any; $21 is the number of periods, $22 the greatest
-- number of rows.
WITH numbered AS MATERIALIZED (
    SELECT DISTINCT p.user_id, p.event_type, analytics_bucket(p.at, 16) AS bucket
    FROM presence AS p
    WHERE ($20 IS NULL OR p.event_type = $20) AND p.at >= json_extract($16, '$[0]') AND p.at < json_extract($16, '$[#-1]')
),
firsts AS MATERIALIZED (
    SELECT f.user_id, analytics_bucket(f.at, 16) AS cohort
    FROM (
        SELECT p.user_id, min(p.at) AS at
        FROM presence AS p
        WHERE $19 IS NULL OR p.event_type = $19
        GROUP BY p.user_id
    ) AS f
    WHERE f.at >= $17 AND f.at < $18
),
returns AS (
    SELECT DISTINCT f.user_id, f.cohort, p.bucket
    FROM firsts AS f
    JOIN numbered AS p ON p.user_id = f.user_id AND p.bucket >= f.cohort AND p.bucket < f.cohort + $21
)
SELECT f.cohort, NULL AS period, count(*) AS users
FROM firsts AS f
GROUP BY f.cohort
UNION ALL
SELECT r.cohort, r.bucket - r.cohort, count(*)
FROM returns AS r
GROUP BY r.cohort, r.bucket
ORDER BY 1, 2
LIMIT $22;
