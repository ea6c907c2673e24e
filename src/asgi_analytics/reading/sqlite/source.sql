-- What every question needs, whatever it asks.

-- lost_rows --
-- Tell since when raw rows of the types $3, or of all if it is null, are kept, and whether any between $1 and $2 were
-- dropped: the aggregates know more than the table. A row that came late for a day whose rows are gone does not bring the
-- others back.
SELECT
    nullif(kept.since, '9999') AS "kept_from::timestamptz",
    EXISTS (
        SELECT 1 FROM analytics_type_days_filled AS u
        WHERE u.day >= substr($1, 1, 10) || 'T00:00:00.000000Z' AND u.day < min($2, kept.since)
            AND ($3 IS NULL OR u.event_type IN (SELECT j.value FROM json_each($3) AS j))
    ) AS "is_lost::boolean"
FROM (
    SELECT max(
        coalesce(CASE
            WHEN $3 IS NULL THEN (SELECT max(d.dropped_before) FROM analytics_dropped AS d)
            ELSE (
                SELECT max(max(d.dropped_before, coalesce(t.dropped_before, '')))
                FROM json_each($3) AS n
                LEFT JOIN analytics_event_types AS t ON t.event_type = n.value
                JOIN analytics_dropped AS d ON d.category = coalesce(t.category, 'interaction')
            )
        END, ''),
        coalesce(
            (SELECT substr(min(e.timestamp), 1, 10) || 'T00:00:00.000000Z' FROM analytics_events AS e),
            '9999'
        )
    ) AS since
) AS kept;

-- filled_until --
-- Tell until when the aggregates of all the views $1 are computed. Days of statements are made of those of queries.
SELECT max(min(coalesce(f.filled_until, '')), '1970-01-01T00:00:00.000000Z') AS "filled_until::timestamptz"
FROM json_each($1) AS j
LEFT JOIN analytics_fills AS f
    ON f.view_name = CASE j.value WHEN 'analytics_statement_days' THEN 'analytics_query_days' ELSE j.value END;
