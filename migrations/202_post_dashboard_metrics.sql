-- Keep the numbers of dashboards, and those of the moment, which expire; let the upkeep fill the aggregates of metrics

-- both

-- The application's own numbers; analytics_set_dashboard_metric() writes them.
CREATE TABLE analytics_dashboard_values (
    widget_id text NOT NULL,
    metric_key text NOT NULL,
    value float8 NOT NULL,
    previous_value float8,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (widget_id, metric_key),
    CHECK (char_length(widget_id) BETWEEN 1 AND 255 AND char_length(metric_key) BETWEEN 1 AND 255),
    CHECK (value BETWEEN -1e300 AND 1e300)
);

CREATE TABLE analytics_metrics_realtime (
    metric_key text PRIMARY KEY,
    metric_value jsonb NOT NULL,
    time_window text NOT NULL CHECK (time_window IN ('hour', 'day', 'week', 'month')),
    calculated_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    CHECK (char_length(metric_key) BETWEEN 1 AND 255)
);
CREATE INDEX analytics_metrics_realtime_expires_at_idx ON analytics_metrics_realtime (expires_at);

COMMENT ON TABLE analytics_metrics_realtime IS 'Numbers of the moment, until they expire; the upkeep deletes them then.';

-- SECURITY DEFINER, both: a writer may write such a number, and nothing else of these tables.
CREATE FUNCTION analytics_set_dashboard_metric(widget_id text, metric_key text, value float8) RETURNS void
    LANGUAGE sql SECURITY DEFINER
    SET search_path FROM CURRENT
    AS $$
    INSERT INTO analytics_dashboard_values AS v (widget_id, metric_key, value, updated_at)
    VALUES ($1, $2, $3, clock_timestamp())
    ON CONFLICT ON CONSTRAINT analytics_dashboard_values_pkey DO UPDATE
    SET previous_value = v.value, value = excluded.value, updated_at = excluded.updated_at
    $$;

CREATE FUNCTION analytics_update_realtime_metric(
    metric_key text, metric_value jsonb, time_window text, ttl interval
) RETURNS void
    LANGUAGE sql SECURITY DEFINER
    SET search_path FROM CURRENT
    AS $$
    INSERT INTO analytics_metrics_realtime AS r (metric_key, metric_value, time_window, calculated_at, expires_at)
    VALUES ($1, $2, $3, statement_timestamp(), statement_timestamp() + $4)
    ON CONFLICT ON CONSTRAINT analytics_metrics_realtime_pkey DO UPDATE
    SET metric_value = excluded.metric_value, time_window = excluded.time_window,
        calculated_at = excluded.calculated_at, expires_at = excluded.expires_at
    $$;

-- The dashboard's own numbers, those of the last 7 days beside the 7 days before, by quarters of an hour; and the
-- application's beside what they were before the last change. The change is null where there is nothing to compare to.
CREATE VIEW analytics_dashboard_metrics AS
WITH bounds AS (
    SELECT analytics_bucket('15 minutes', now()) + INTERVAL '15 minutes' AS until
),
types AS (
    SELECT
        q.quarter >= b.until - INTERVAL '168 hours' AS is_current,
        q.event_type,
        sum(q.events) AS events,
        sum(q.measured) AS measured,
        sum(q.duration_ms) AS duration_ms
    FROM bounds AS b
    JOIN analytics_type_quarters AS q ON q.quarter >= b.until - INTERVAL '336 hours' AND q.quarter < b.until
    GROUP BY 1, 2
),
users AS (
    SELECT u.quarter >= b.until - INTERVAL '168 hours' AS is_current, count(DISTINCT u.user_id) AS users
    FROM bounds AS b
    JOIN analytics_user_quarters AS u ON u.quarter >= b.until - INTERVAL '336 hours' AND u.quarter < b.until
    GROUP BY 1
),
numbers AS (
    SELECT 'overview' AS widget_id, n.metric_key, n.value::float8, n.previous_value::float8, b.until - INTERVAL '15 minutes' AS updated_at
    FROM bounds AS b, (
        SELECT
            'events' AS metric_key,
            coalesce(sum(t.events) FILTER (WHERE t.is_current), 0) AS value,
            coalesce(sum(t.events) FILTER (WHERE NOT t.is_current), 0) AS previous_value
        FROM types AS t
        UNION ALL
        SELECT
            k.metric_key,
            coalesce(sum(t.events) FILTER (WHERE t.is_current), 0),
            coalesce(sum(t.events) FILTER (WHERE NOT t.is_current), 0)
        FROM (
            VALUES
                ('api_requests', 'api_request'), ('errors', 'application_error'), ('page_views', 'page_view'),
                ('tasks_created', 'task_created'), ('tasks_failed', 'task_failed')
        ) AS k (metric_key, event_type)
        LEFT JOIN types AS t ON t.event_type = k.event_type
        GROUP BY k.metric_key
        UNION ALL
        SELECT
            'avg_request_duration_ms',
            sum(t.duration_ms) FILTER (WHERE t.is_current) / nullif(sum(t.measured) FILTER (WHERE t.is_current), 0),
            sum(t.duration_ms) FILTER (WHERE NOT t.is_current)
                / nullif(sum(t.measured) FILTER (WHERE NOT t.is_current), 0)
        FROM types AS t
        WHERE t.event_type = 'api_request'
        UNION ALL
        SELECT
            'active_users',
            coalesce(sum(u.users) FILTER (WHERE u.is_current), 0),
            coalesce(sum(u.users) FILTER (WHERE NOT u.is_current), 0)
        FROM users AS u
    ) AS n
    UNION ALL
    SELECT v.widget_id, v.metric_key, v.value, v.previous_value, v.updated_at FROM analytics_dashboard_values AS v
)
SELECT
    n.widget_id,
    n.metric_key,
    n.value,
    n.previous_value,
    -- In parts, so that no difference of two large numbers overflows.
    CASE
        WHEN abs(n.previous_value) > 1e-290 AND abs(n.value) < 1e290
            THEN (n.value - n.previous_value) / abs(n.previous_value) * 100
    END AS change_percent,
    n.updated_at
FROM numbers AS n;

COMMENT ON VIEW analytics_dashboard_metrics IS 'Numbers of dashboards, each beside what it was before.';

REVOKE EXECUTE ON FUNCTION
    analytics_set_dashboard_metric(text, text, float8),
    analytics_update_realtime_metric(text, jsonb, text, interval),
    analytics_fill_metrics()
FROM PUBLIC;

-- timescaledb

REVOKE EXECUTE ON FUNCTION analytics_drop_metric_chunks() FROM PUBLIC;

-- The workers' hourly call has the keys of visitors to forget and the metrics to fill: the policies do the rest.
CREATE OR REPLACE FUNCTION analytics_upkeep() RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path FROM CURRENT
    AS $$
BEGIN
    PERFORM analytics_forget_visitors();
    DELETE FROM analytics_metrics_realtime AS r WHERE r.expires_at <= now();
    PERFORM analytics_fill_metrics();
    PERFORM analytics_drop_metric_chunks();
    RETURN true;
END
$$;

-- postgresql

-- As before, and with the metrics.
CREATE OR REPLACE FUNCTION analytics_upkeep() RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path FROM CURRENT
    AS $$
DECLARE
    complete constant timestamptz := now() - INTERVAL '1 hour';  -- as for analytics_pending()
    one record;
BEGIN
    IF NOT pg_try_advisory_xact_lock(analytics_fill_lock()) THEN
        RETURN false;
    END IF;
    PERFORM analytics_forget_visitors();
    DELETE FROM analytics_metrics_realtime AS r WHERE r.expires_at <= now();
    PERFORM analytics_fill_metrics();
    PERFORM analytics_collect();
    FOR one IN SELECT * FROM analytics_pending() LOOP
        CALL analytics_fill(one.view_name, one.window_start, one.window_end);
    END LOOP;
    -- Also if nothing happened, or the live tail would begin at the last event.
    UPDATE analytics_fills AS f
    SET filled_until = analytics_bucket(f.step, complete)
    WHERE f.filled_until < analytics_bucket(f.step, complete);
    PERFORM set_config('lock_timeout', '500ms', true);
    BEGIN
        PERFORM analytics_make_partitions();
        PERFORM analytics_drop_partitions();
    EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
        RAISE LOG 'asgi-analytics leaves partitions to the next hour: analytics_events is in use';
    END;
    RETURN true;
END
$$;
