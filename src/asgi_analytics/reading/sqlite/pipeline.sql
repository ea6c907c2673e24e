-- How the pipeline is: what arrived last, what was refused, what is behind, and what the database holds.

-- health --
-- Say when the first and the last event happened, and how many in the last minute. $1 is a minute ago, $2 now, $3 the
-- service.
SELECT
    (
        SELECT e.timestamp FROM analytics_events AS e WHERE $3 IS NULL OR e.service = $3
        ORDER BY e.timestamp DESC LIMIT 1
    ) AS "newest_event_at::timestamptz",
    (
        SELECT count(*) FROM analytics_events AS e
        WHERE e.timestamp >= $1 AND e.timestamp <= $2 AND ($3 IS NULL OR e.service = $3)
    ) AS events_last_minute,
    (
        SELECT e.timestamp FROM analytics_events AS e WHERE $3 IS NULL OR e.service = $3
        ORDER BY e.timestamp LIMIT 1
    ) AS "oldest_event_at::timestamptz";

-- dead_letters --
-- Count dead letters by reason. $1 is the service.
SELECT d.reason, count(*) AS count, max(d.received_at) AS "last_received_at::timestamptz"
FROM analytics_dead_letters AS d
WHERE $1 IS NULL OR d.service = $1
GROUP BY d.reason
ORDER BY count DESC, d.reason
LIMIT 10001;

-- pending --
-- Say which views are behind the events, and since when: buckets that were complete an hour ago. $1 is when the hour
-- began that was so, $2 the day.
SELECT p.view_name, min(p.bucket) AS "since::timestamptz"
FROM (
    SELECT s.view_name, s.bucket, f.step
    FROM analytics_stale AS s
    JOIN analytics_fills AS f ON f.view_name = s.view_name
    UNION
    SELECT f.view_name, CASE f.step WHEN 'hour' THEN c.hour ELSE substr(c.hour, 1, 10) || 'T00:00:00.000000Z' END, f.step
    FROM analytics_changes AS c
    CROSS JOIN analytics_fills AS f
) AS p
WHERE p.bucket < CASE p.step WHEN 'hour' THEN $1 ELSE $2 END
    AND substr(p.bucket, 1, 10) || 'T00:00:00.000000Z' NOT IN (SELECT g.day FROM analytics_gone_days AS g)
GROUP BY p.view_name
ORDER BY 2, p.view_name;

-- due --
-- Say of which categories rows are still there although their time is over. $1 is now. The types are found by jumping
-- from one to the next, and what is over of each by the index: mostly nothing. Days are cut out, because SQLite rounds a
-- time to the millisecond, which may be one of the next day.
WITH RECURSIVE types (event_type) AS (
    SELECT min(e.event_type) FROM analytics_events AS e
    UNION ALL
    SELECT (SELECT min(e.event_type) FROM analytics_events AS e WHERE e.event_type > t.event_type)
    FROM types AS t
    WHERE t.event_type IS NOT NULL
)
SELECT
    r.category,
    r.keep * 86400 AS "keep::interval",
    count(DISTINCT substr(e.timestamp, 1, 10)) AS days,
    count(*) AS events,
    strftime('%Y-%m-%dT00:00:00.000000Z', min(substr(e.timestamp, 1, 10)), '+1 day', '+' || r.keep || ' days')
        AS "due_since::timestamptz"
FROM types AS n
LEFT JOIN analytics_event_types AS t ON t.event_type = n.event_type
JOIN analytics_retention AS r ON r.category = coalesce(t.category, 'interaction')
JOIN analytics_events AS e ON e.event_type = n.event_type
    AND e.timestamp < strftime('%Y-%m-%dT00:00:00.000000Z', substr($1, 1, 10), '-' || r.keep || ' days')
GROUP BY r.category, r.keep
ORDER BY 5, 1;

-- database --
-- Tell the version of SQLite and what the file weighs.
SELECT
    'sqlite' AS flavour,
    sqlite_version() AS version,
    NULL AS timescaledb_version,
    (SELECT c.page_count FROM pragma_page_count AS c) * (SELECT s.page_size FROM pragma_page_size AS s) AS size_bytes,
    NULL AS compressed_size_bytes;
