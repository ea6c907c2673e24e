-- How long rows of each category are kept, and what is over.

-- retention --
-- List the categories with how long their rows are kept, and how many rows are there whose time is over: as it is, and as
-- it would be if the categories $1 were kept for $2.
SELECT
    r.category,
    r.keep,
    n.keep AS new_keep,
    count(e.timestamp) FILTER (WHERE e.timestamp < now() - r.keep) AS due,
    count(e.timestamp) FILTER (WHERE e.timestamp < now() - coalesce(n.keep, r.keep)) AS would_be_due
FROM analytics_retention AS r
LEFT JOIN unnest($1::text[], $2::interval[]) AS n (category, keep) USING (category)
LEFT JOIN analytics_event_types AS t ON t.category = r.category
LEFT JOIN analytics_events AS e ON e.event_type = t.event_type AND e.timestamp < now() - least(r.keep, n.keep)
WHERE r.category <> 'interaction'
GROUP BY r.category, r.keep, n.keep
UNION ALL
SELECT
    r.category,
    r.keep,
    n.keep,
    count(e.timestamp) FILTER (WHERE e.timestamp < now() - r.keep),
    count(e.timestamp) FILTER (WHERE e.timestamp < now() - coalesce(n.keep, r.keep))
FROM analytics_retention AS r
LEFT JOIN unnest($1::text[], $2::interval[]) AS n (category, keep) USING (category)
LEFT JOIN analytics_events AS e ON e.timestamp < now() - least(r.keep, n.keep)
    AND e.event_type NOT IN (SELECT t.event_type FROM analytics_event_types AS t WHERE t.category <> 'interaction')
WHERE r.category = 'interaction'
GROUP BY r.category, r.keep, n.keep
ORDER BY 2, 1;

-- locks --
-- Tell how many days are kept in parts of their own, and for how many locks of how many transactions the server has room.
SELECT
    (SELECT count(*) FROM analytics_event_parts()) AS parts,
    current_setting('max_locks_per_transaction')::bigint AS locks,
    current_setting('max_connections')::bigint + current_setting('max_prepared_transactions')::bigint AS transactions;

-- change --
-- Keep rows of the categories $1 for $2 from now on.
UPDATE analytics_retention AS r
SET keep = n.keep
FROM unnest($1::text[], $2::interval[]) AS n (category, keep)
WHERE r.category = n.category;

-- change_schemas --
-- Say in the registry for how many days rows of the categories $1 are kept: $2.
UPDATE analytics_event_schemas AS s
SET retention_days = n.days
FROM unnest($1::text[], $2::integer[]) AS n (category, days)
WHERE s.event_category = n.category AND s.retention_days <> n.days;

-- keep_on_sqlite --
-- List for how many days rows of each category are kept.
SELECT r.category, coalesce(min(r.keep, 36500), 36500) FROM analytics_retention AS r ORDER BY r.category;

-- over_on_sqlite --
-- Count the rows of a category before a time, and before another one. The types are found by jumping from one to the
-- next, and their rows by the index.
WITH RECURSIVE types (event_type) AS (
    SELECT min(e.event_type) FROM analytics_events AS e
    UNION ALL
    SELECT (SELECT min(e.event_type) FROM analytics_events AS e WHERE e.event_type > t.event_type)
    FROM types AS t
    WHERE t.event_type IS NOT NULL
)
SELECT
    count(*) FILTER (WHERE e.timestamp < :until),
    count(*) FILTER (WHERE e.timestamp < :new_until)
FROM types AS n
LEFT JOIN analytics_event_types AS t ON t.event_type = n.event_type
JOIN analytics_events AS e ON e.event_type = n.event_type AND e.timestamp < max(:until, :new_until)
WHERE coalesce(t.category, 'interaction') = :category;

-- change_on_sqlite --
-- Keep rows of a category for so many days from now on.
UPDATE analytics_retention SET keep = :days WHERE category = :category;

-- change_schemas_on_sqlite --
-- Say in the registry for how many days rows of a category are kept.
UPDATE analytics_event_schemas SET retention_days = :days WHERE event_category = :category AND retention_days <> :days;
