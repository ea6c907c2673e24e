-- Aggregate tasks by day

-- Percentiles are those of percentile_cont: interpolated between the values at two ranks, here of the rows numbered by
-- duration, those without one last.

INSERT INTO analytics_fills (view_name, bucket_column, step) VALUES ('analytics_task_stats_daily', 'day', 'day');

CREATE VIEW analytics_task_stats_daily_live AS
SELECT
    r.day,
    count(*) FILTER (WHERE r.event_type = 'task_created') AS created,
    count(*) FILTER (WHERE r.event_type = 'task_started') AS started,
    count(*) FILTER (WHERE r.event_type = 'task_completed') AS completed,
    count(*) FILTER (WHERE r.event_type = 'task_failed') AS failed,
    count(*) FILTER (WHERE r.event_type = 'task_cancelled') AS cancelled,
    avg(r.duration_ms) AS avg_duration_ms,
    max(CASE WHEN r.nth = CAST(0.95 * (r.measured - 1) AS INTEGER) + 1 THEN r.duration_ms END)
    + (
        max(CASE WHEN r.nth = min(CAST(0.95 * (r.measured - 1) AS INTEGER) + 2, r.measured) THEN r.duration_ms END)
        - max(CASE WHEN r.nth = CAST(0.95 * (r.measured - 1) AS INTEGER) + 1 THEN r.duration_ms END)
    ) * (0.95 * (r.measured - 1) - CAST(0.95 * (r.measured - 1) AS INTEGER))
        AS p95_duration_ms
FROM (
    SELECT
        t.day,
        t.event_type,
        t.duration_ms,
        row_number() OVER (PARTITION BY t.day ORDER BY t.duration_ms NULLS LAST) AS nth,
        count(t.duration_ms) OVER (PARTITION BY t.day) AS measured
    FROM (
        SELECT e.day, e.event_type, CASE WHEN e.event_type = 'task_completed' THEN e.duration_ms END AS duration_ms
        FROM analytics_event_facts AS e
        WHERE e.timestamp >= (SELECT f.live_since FROM analytics_fills AS f WHERE f.view_name = 'analytics_task_stats_daily')
            AND e.timestamp < (SELECT f.live_until FROM analytics_fills AS f WHERE f.view_name = 'analytics_task_stats_daily')
            AND e.event_type IN ('task_created', 'task_started', 'task_completed', 'task_failed', 'task_cancelled')
    ) AS t
) AS r
GROUP BY r.day;

CREATE TABLE analytics_task_stats_daily_filled (
    day TEXT NOT NULL,
    created INTEGER,
    started INTEGER,
    completed INTEGER,
    failed INTEGER,
    cancelled INTEGER,
    avg_duration_ms REAL,
    p95_duration_ms REAL
);
CREATE INDEX analytics_task_stats_daily_filled_day_idx ON analytics_task_stats_daily_filled (day);

CREATE VIEW analytics_task_stats_daily AS
SELECT
    filled.day, filled.created, filled.started, filled.completed, filled.failed, filled.cancelled,
    filled.avg_duration_ms, filled.p95_duration_ms
FROM analytics_task_stats_daily_filled AS filled
WHERE filled.day < (SELECT f.filled_until FROM analytics_fills AS f WHERE f.view_name = 'analytics_task_stats_daily')
UNION ALL
SELECT
    live.day, live.created, live.started, live.completed, live.failed, live.cancelled, live.avg_duration_ms,
    live.p95_duration_ms
FROM analytics_task_stats_daily_live AS live;
