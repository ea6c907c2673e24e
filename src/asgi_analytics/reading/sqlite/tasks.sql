-- Tasks: days from the aggregate; quarter hours, and raw rows for percentiles, for what is not a whole day of UTC, or is of
-- one service.

-- daily --
-- Count tasks by day and state. $1 to $6 are the bounds of the five parts, $7 the edges of the days, $8 is the service,
-- $9 the greatest number of rows.
WITH counts AS (
    SELECT analytics_bucket(q.quarter, 7) AS bucket, q.event_type, q.events, q.measured, q.duration_ms
    FROM analytics_type_quarters AS q
    WHERE (q.quarter >= $2 AND q.quarter < $3 OR q.quarter >= $4 AND q.quarter < $5)
        AND ($8 IS NULL OR q.service = $8)
        AND q.event_type IN ('task_created', 'task_started', 'task_completed', 'task_failed', 'task_cancelled')
    UNION ALL
    SELECT analytics_bucket(e.timestamp, 7), e.event_type, 1,
        e.duration_ms IS NOT NULL, e.duration_ms
    FROM (
        SELECT r.timestamp, r.event_type, r.duration_ms
        FROM analytics_event_facts AS r
        WHERE r.timestamp >= $1 AND r.timestamp < $2 AND ($8 IS NULL OR r.service = $8)
            AND r.event_type IN ('task_created', 'task_started', 'task_completed', 'task_failed', 'task_cancelled')
        UNION ALL
        SELECT r.timestamp, r.event_type, r.duration_ms
        FROM analytics_event_facts AS r
        WHERE r.timestamp >= $5 AND r.timestamp < $6 AND ($8 IS NULL OR r.service = $8)
            AND r.event_type IN ('task_created', 'task_started', 'task_completed', 'task_failed', 'task_cancelled')
    ) AS e
),
durations AS (
    SELECT
        analytics_bucket(e.timestamp, 7) AS bucket,
        analytics_quantile(e.duration_ms, 0.95) AS p95_duration_ms
    FROM (
        SELECT r.timestamp, r.event_type, r.duration_ms
        FROM analytics_event_facts AS r
        WHERE r.timestamp >= $1 AND r.timestamp < $3 AND ($8 IS NULL OR r.service = $8)
            AND r.event_type = 'task_completed'
        UNION ALL
        SELECT r.timestamp, r.event_type, r.duration_ms
        FROM analytics_event_facts AS r
        WHERE r.timestamp >= $4 AND r.timestamp < $6 AND ($8 IS NULL OR r.service = $8)
            AND r.event_type = 'task_completed'
    ) AS e
    GROUP BY 1
),
days AS (
    SELECT analytics_bucket(t.day, 7) AS bucket, t.created, t.started, t.completed, t.failed, t.cancelled,
        t.avg_duration_ms, t.p95_duration_ms
    FROM analytics_task_stats_daily AS t
    WHERE t.day >= $3 AND t.day < $4
    UNION ALL
    SELECT s.*, d.p95_duration_ms
    FROM (
        SELECT
            c.bucket,
            coalesce(sum(c.events) FILTER (WHERE c.event_type = 'task_created'), 0) AS created,
            coalesce(sum(c.events) FILTER (WHERE c.event_type = 'task_started'), 0) AS started,
            coalesce(sum(c.events) FILTER (WHERE c.event_type = 'task_completed'), 0) AS completed,
            coalesce(sum(c.events) FILTER (WHERE c.event_type = 'task_failed'), 0) AS failed,
            coalesce(sum(c.events) FILTER (WHERE c.event_type = 'task_cancelled'), 0) AS cancelled,
            sum(c.duration_ms) FILTER (WHERE c.event_type = 'task_completed')
            / nullif(sum(c.measured) FILTER (WHERE c.event_type = 'task_completed'), 0) AS avg_duration_ms
        FROM counts AS c
        GROUP BY c.bucket
    ) AS s
    LEFT JOIN durations AS d ON d.bucket = s.bucket
)
SELECT d.*, d.completed * 1.0 / nullif(d.completed + d.failed, 0) AS success_rate
FROM days AS d
ORDER BY d.bucket DESC
LIMIT $9;

-- overview --
-- Sum up tasks by state. $1 to $4 are the bounds of the three parts, $5 is the service.
SELECT
    s.created,
    s.completed,
    s.failed,
    s.cancelled,
    s.completed * 1.0 / nullif(s.completed + s.failed, 0) AS success_rate,
    s.duration_ms / nullif(s.measured, 0) AS avg_duration_ms
FROM (
    SELECT
        coalesce(sum(t.events) FILTER (WHERE t.event_type = 'task_created'), 0) AS created,
        coalesce(sum(t.events) FILTER (WHERE t.event_type = 'task_completed'), 0) AS completed,
        coalesce(sum(t.events) FILTER (WHERE t.event_type = 'task_failed'), 0) AS failed,
        coalesce(sum(t.events) FILTER (WHERE t.event_type = 'task_cancelled'), 0) AS cancelled,
        sum(t.measured) FILTER (WHERE t.event_type = 'task_completed') AS measured,
        sum(t.duration_ms) FILTER (WHERE t.event_type = 'task_completed') AS duration_ms
    FROM (
        SELECT q.event_type, q.events, q.measured, q.duration_ms
        FROM analytics_type_quarters AS q
        WHERE q.quarter >= $2 AND q.quarter < $3 AND ($5 IS NULL OR q.service = $5)
            AND q.event_type IN ('task_created', 'task_completed', 'task_failed', 'task_cancelled')
        UNION ALL
        SELECT e.event_type, 1, e.duration_ms IS NOT NULL,
            e.duration_ms
        FROM analytics_event_facts AS e
        WHERE e.timestamp >= $1 AND e.timestamp < $2 AND ($5 IS NULL OR e.service = $5)
            AND e.event_type IN ('task_created', 'task_completed', 'task_failed', 'task_cancelled')
        UNION ALL
        SELECT e.event_type, 1, e.duration_ms IS NOT NULL,
            e.duration_ms
        FROM analytics_event_facts AS e
        WHERE e.timestamp >= $3 AND e.timestamp < $4 AND ($5 IS NULL OR e.service = $5)
            AND e.event_type IN ('task_created', 'task_completed', 'task_failed', 'task_cancelled')
    ) AS t
) AS s;
