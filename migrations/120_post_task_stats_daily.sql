-- Aggregate tasks by day

-- timescaledb

CREATE MATERIALIZED VIEW analytics_task_stats_daily
WITH (timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false) AS
SELECT
    time_bucket('1 day', timestamp) AS day,
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
WHERE event_type IN ('task_created', 'task_started', 'task_completed', 'task_failed', 'task_cancelled')
GROUP BY day
WITH NO DATA;

SELECT analytics_keep_fresh('analytics_task_stats_daily');

-- postgresql

CREATE FUNCTION analytics_task_stats_daily_live(since timestamptz, until timestamptz) RETURNS TABLE (
    day timestamptz,
    created bigint,
    started bigint,
    completed bigint,
    failed bigint,
    cancelled bigint,
    avg_duration_ms float8,
    p95_duration_ms float8
)
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
    SELECT
        analytics_bucket('1 day', timestamp) AS day,
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
    WHERE timestamp >= since AND timestamp < until
        AND event_type IN ('task_created', 'task_started', 'task_completed', 'task_failed', 'task_cancelled')
    GROUP BY day;
    END;

SELECT analytics_make_filled('analytics_task_stats_daily', '1 day');
