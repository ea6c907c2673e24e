-- Aggregate tasks by day
-- for: postgresql
CREATE TABLE analytics_task_stats_daily_filled (
    day timestamptz NOT NULL,
    created bigint NOT NULL,
    started bigint NOT NULL,
    completed bigint NOT NULL,
    failed bigint NOT NULL,
    cancelled bigint NOT NULL,
    avg_duration_ms float8,
    p95_duration_ms float8
);
CREATE INDEX analytics_task_stats_daily_filled_day_idx ON analytics_task_stats_daily_filled (day);

CREATE FUNCTION analytics_task_stats_daily_live(since timestamptz, until timestamptz)
    RETURNS SETOF analytics_task_stats_daily_filled
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
    SELECT
        date_bin('1 day', timestamp, '2000-01-01 00:00:00+00') AS day,
        count(*) FILTER (WHERE event_type = 'task_created') AS created,
        count(*) FILTER (WHERE event_type = 'task_started') AS started,
        count(*) FILTER (WHERE event_type = 'task_completed') AS completed,
        count(*) FILTER (WHERE event_type = 'task_failed') AS failed,
        count(*) FILTER (WHERE event_type = 'task_cancelled') AS cancelled,
        avg(analytics_amount(data -> 'duration_ms'))
            FILTER (WHERE event_type = 'task_completed') AS avg_duration_ms,
        percentile_cont(0.95) WITHIN GROUP (ORDER BY analytics_amount(data -> 'duration_ms'))
            FILTER (WHERE event_type = 'task_completed') AS p95_duration_ms
    FROM analytics_events
    WHERE timestamp >= since AND timestamp < until AND event_type IN ('task_created', 'task_started', 'task_completed', 'task_failed', 'task_cancelled')
    GROUP BY day;
    END;

INSERT INTO analytics_fills (view_name, bucket_column, step)
VALUES ('analytics_task_stats_daily', 'day', '1 day');

CREATE VIEW analytics_task_stats_daily AS
SELECT filled.*
FROM analytics_task_stats_daily_filled AS filled
WHERE filled.day < (SELECT filled_until FROM analytics_fills WHERE view_name = 'analytics_task_stats_daily')
UNION ALL
SELECT live.*
FROM analytics_fills AS fills, analytics_task_stats_daily_live(fills.filled_until, 'infinity') AS live
WHERE fills.view_name = 'analytics_task_stats_daily';
