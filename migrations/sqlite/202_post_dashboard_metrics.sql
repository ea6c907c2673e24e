-- Show the numbers of dashboards, each beside what it was before

-- The dashboard's own numbers, those of the last 7 days beside the 7 days before, by quarters of an hour; and the
-- application's beside what they were before the last change. The change is null where there is nothing to compare to.
CREATE VIEW analytics_dashboard_metrics AS
WITH bounds AS MATERIALIZED (
    SELECT
        strftime('%Y-%m-%dT%H:%M:00.000000Z', b.until, 'unixepoch') AS until,
        strftime('%Y-%m-%dT%H:%M:00.000000Z', b.until - 900, 'unixepoch') AS updated_at,
        strftime('%Y-%m-%dT%H:%M:00.000000Z', b.until - 604800, 'unixepoch') AS middle,
        strftime('%Y-%m-%dT%H:%M:00.000000Z', b.until - 1209600, 'unixepoch') AS since
    FROM (SELECT (CAST(strftime('%s', 'now') AS INTEGER) / 900 + 1) * 900 AS until) AS b
),
types AS MATERIALIZED (
    SELECT
        q.quarter >= b.middle AS is_current,
        q.event_type,
        sum(q.events) AS events,
        sum(q.measured) AS measured,
        sum(q.duration_ms) AS duration_ms
    FROM bounds AS b
    CROSS JOIN analytics_type_quarters AS q
    WHERE q.quarter >= b.since AND q.quarter < b.until
    GROUP BY 1, 2
),
users AS MATERIALIZED (
    SELECT u.quarter >= b.middle AS is_current, count(DISTINCT u.user_id) AS users
    FROM bounds AS b
    CROSS JOIN analytics_user_quarters AS u
    WHERE u.quarter >= b.since AND u.quarter < b.until
    GROUP BY 1
),
numbers AS (
    SELECT
        'overview' AS widget_id, n.metric_key, CAST(n.value AS REAL) AS value, CAST(n.previous_value AS REAL) AS previous_value,
        b.updated_at
    FROM bounds AS b
    CROSS JOIN (
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
            SELECT 'api_requests' AS metric_key, 'api_request' AS event_type
            UNION ALL SELECT 'errors', 'application_error'
            UNION ALL SELECT 'page_views', 'page_view'
            UNION ALL SELECT 'tasks_created', 'task_created'
            UNION ALL SELECT 'tasks_failed', 'task_failed'
        ) AS k
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
    SELECT v.widget_id, v.metric_key, v.value, v.previous_value, v.updated_at FROM dashboard_metrics AS v
)
SELECT
    n.widget_id,
    n.metric_key,
    n.value,
    n.previous_value,
    CASE
        WHEN abs(n.previous_value) > 1e-290 AND abs(n.value) < 1e290
            THEN (n.value - n.previous_value) / abs(n.previous_value) * 100
    END AS change_percent,
    n.updated_at
FROM numbers AS n;
