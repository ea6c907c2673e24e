-- What every question needs, whatever it asks.

-- lost_rows --
-- Tell since when raw rows are kept, and whether any between $1 and $2 were dropped: the aggregates know more than the
-- table. A row that came late for a day whose rows are gone does not bring the others back.
SELECT
    kept.since AS "kept_from::timestamptz",
    EXISTS (
        SELECT 1 FROM analytics_user_days_filled AS u
        WHERE u.day >= substr($1, 1, 10) || 'T00:00:00.000000Z' AND u.day < min($2, coalesce(kept.since, $2))
    )
    OR EXISTS (
        SELECT 1 FROM analytics_gone_days AS g
        WHERE g.day >= substr($1, 1, 10) || 'T00:00:00.000000Z' AND g.day < $2
    ) AS "is_lost::boolean"
FROM (SELECT substr(min(e.timestamp), 1, 10) || 'T00:00:00.000000Z' AS since FROM analytics_events AS e) AS kept;

-- filled_until --
-- Tell until when the aggregates of all the views $1 are computed. Days of statements are made of those of queries.
SELECT max(min(coalesce(f.filled_until, '')), '1970-01-01T00:00:00.000000Z') AS "filled_until::timestamptz"
FROM json_each($1) AS j
LEFT JOIN analytics_fills AS f
    ON f.view_name = CASE j.value WHEN 'analytics_statement_days' THEN 'analytics_query_days' ELSE j.value END;
