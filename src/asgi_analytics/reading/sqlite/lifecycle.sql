-- Which users are new, which stay, which come again, and which leave.

-- buckets --
-- Count the users who begin, stay, come again and leave in each bucket. $16 and $17 are the bounds of the bucket before
-- the first, $18 are the edges of the buckets, $19 is the greatest number of rows.
--
-- A user's buckets have the numbers from 1 on, the bucket before has 0, and all that was earlier has -1.
WITH active AS (
    SELECT
        a.user_id,
        a.bucket,
        lag(a.bucket) OVER by_user AS bucket_before,
        lead(a.bucket) OVER by_user AS next_bucket
    FROM (
        SELECT DISTINCT
            p.user_id,
            CASE
                WHEN p.at >= json_extract($18, '$[0]') THEN analytics_bucket(p.at, 18)
                WHEN p.at >= $16 AND p.at < $17 THEN 0
                ELSE -1
            END AS bucket
        FROM presence AS p
    ) AS a
    WINDOW by_user AS (PARTITION BY a.user_id ORDER BY a.bucket)
),
counts AS (
    SELECT
        a.bucket,
        count(*) FILTER (WHERE a.bucket_before IS NULL) AS begun,
        count(*) FILTER (WHERE a.bucket_before = a.bucket - 1) AS stayed,
        count(*) FILTER (WHERE a.bucket_before < a.bucket - 1) AS come_again,
        count(*) FILTER (WHERE a.next_bucket IS NOT a.bucket + 1) AS ended
    FROM active AS a
    GROUP BY a.bucket
)
SELECT
    b.bucket,
    coalesce(c.begun, 0),
    coalesce(c.stayed, 0),
    coalesce(c.come_again, 0),
    coalesce(p.ended, 0)
FROM (SELECT j.key + 1 AS bucket FROM json_each($18) AS j WHERE j.key < json_array_length($18) - 1) AS b
LEFT JOIN counts AS c ON c.bucket = b.bucket
LEFT JOIN counts AS p ON p.bucket = b.bucket - 1
ORDER BY b.bucket
LIMIT $19;
