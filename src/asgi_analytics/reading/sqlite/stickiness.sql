-- On how many days users were there.

-- days --
-- Count users by their number of days, fewest days first. $16 are the edges of the days, $17 is the greatest number of
-- rows.
SELECT d.days_active, count(*) AS users, count(*) * 1.0 / sum(count(*)) OVER () AS percentage
FROM (
    SELECT count(*) AS days_active
    FROM (SELECT DISTINCT p.user_id, analytics_bucket(p.at, 16) FROM presence AS p) AS u
    GROUP BY u.user_id
) AS d
GROUP BY d.days_active
ORDER BY d.days_active
LIMIT $17;
