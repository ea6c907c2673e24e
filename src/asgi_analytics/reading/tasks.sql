-- Tasks: days from the aggregate, raw rows for what is not a whole day of UTC, or is of one service.

-- daily --
-- Count tasks by day and state. $1 to $4 are the bounds of the three parts, $5 the edges of the days, $6 is the service,
-- $7 the greatest number of rows.
WITH days AS (
    SELECT
        width_bucket(t.day, $5::timestamptz[]) AS bucket, t.created, t.started, t.completed, t.failed, t.cancelled,
        t.avg_duration_ms, t.p95_duration_ms
    FROM analytics_task_stats_daily AS t
    WHERE t.day >= $2 AND t.day < $3
    UNION ALL
    SELECT
        width_bucket(e.timestamp, $5::timestamptz[]),
        count(*) FILTER (WHERE e.event_type = 'task_created'),
        count(*) FILTER (WHERE e.event_type = 'task_started'),
        count(*) FILTER (WHERE e.event_type = 'task_completed'),
        count(*) FILTER (WHERE e.event_type = 'task_failed'),
        count(*) FILTER (WHERE e.event_type = 'task_cancelled'),
        avg(e.duration_ms),
        percentile_cont(0.95) WITHIN GROUP (ORDER BY e.duration_ms)
    FROM (
        SELECT r.timestamp, r.event_type,
            CASE WHEN r.event_type = 'task_completed' THEN analytics_amount(r.data -> 'duration_ms') END AS duration_ms
        FROM analytics_events AS r
        WHERE r.timestamp >= $1 AND r.timestamp < $2 AND ($6::text IS NULL OR r.service = $6)
            AND r.event_type IN ('task_created', 'task_started', 'task_completed', 'task_failed', 'task_cancelled')
        UNION ALL
        SELECT r.timestamp, r.event_type,
            CASE WHEN r.event_type = 'task_completed' THEN analytics_amount(r.data -> 'duration_ms') END
        FROM analytics_events AS r
        WHERE r.timestamp >= $3 AND r.timestamp < $4 AND ($6::text IS NULL OR r.service = $6)
            AND r.event_type IN ('task_created', 'task_started', 'task_completed', 'task_failed', 'task_cancelled')
    ) AS e
    GROUP BY 1
)
SELECT d.*, d.completed::float8 / nullif(d.completed + d.failed, 0) AS success_rate
FROM days AS d
ORDER BY d.bucket DESC
LIMIT $7;

-- overview --
-- Sum up tasks by state. $1 to $4 are the bounds of the three parts, $5 is the service.
SELECT
    s.created,
    s.completed,
    s.failed,
    s.cancelled,
    s.completed::float8 / nullif(s.completed + s.failed, 0) AS success_rate,
    s.duration_ms / nullif(s.measured, 0) AS avg_duration_ms
FROM (
    SELECT
        coalesce(sum(t.events) FILTER (WHERE t.event_type = 'task_created'), 0)::bigint AS created,
        coalesce(sum(t.events) FILTER (WHERE t.event_type = 'task_completed'), 0)::bigint AS completed,
        coalesce(sum(t.events) FILTER (WHERE t.event_type = 'task_failed'), 0)::bigint AS failed,
        coalesce(sum(t.events) FILTER (WHERE t.event_type = 'task_cancelled'), 0)::bigint AS cancelled,
        sum(t.measured) FILTER (WHERE t.event_type = 'task_completed') AS measured,
        sum(t.duration_ms) FILTER (WHERE t.event_type = 'task_completed') AS duration_ms
    FROM (
        SELECT q.event_type, q.events, q.measured, q.duration_ms
        FROM analytics_type_quarters AS q
        WHERE q.quarter >= $2 AND q.quarter < $3 AND ($5::text IS NULL OR q.service = $5)
            AND q.event_type IN ('task_created', 'task_completed', 'task_failed', 'task_cancelled')
        UNION ALL
        SELECT e.event_type, 1, (analytics_amount(e.data -> 'duration_ms') IS NOT NULL)::integer,
            analytics_amount(e.data -> 'duration_ms')
        FROM analytics_events AS e
        WHERE e.timestamp >= $1 AND e.timestamp < $2 AND ($5::text IS NULL OR e.service = $5)
            AND e.event_type IN ('task_created', 'task_completed', 'task_failed', 'task_cancelled')
        UNION ALL
        SELECT e.event_type, 1, (analytics_amount(e.data -> 'duration_ms') IS NOT NULL)::integer,
            analytics_amount(e.data -> 'duration_ms')
        FROM analytics_events AS e
        WHERE e.timestamp >= $3 AND e.timestamp < $4 AND ($5::text IS NULL OR e.service = $5)
            AND e.event_type IN ('task_created', 'task_completed', 'task_failed', 'task_cancelled')
    ) AS t
) AS s;
