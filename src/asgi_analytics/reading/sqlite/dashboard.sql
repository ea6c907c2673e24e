-- Numbers of dashboards, and of the moment.

-- dashboard --
-- List the numbers of all widgets, or of the widget $1; $2 is the greatest number of rows.
SELECT
    d.widget_id, d.metric_key, d.value, d.previous_value, d.change_percent, d.updated_at AS "updated_at::timestamptz"
FROM analytics_dashboard_metrics AS d
WHERE $1 IS NULL OR d.widget_id = $1
ORDER BY d.widget_id, d.metric_key
LIMIT $2;

-- realtime --
-- List what has not expired; $1 is the greatest number of rows.
SELECT
    r.metric_key, r.metric_value, r.time_window, r.calculated_at AS "calculated_at::timestamptz",
    r.expires_at AS "expires_at::timestamptz"
FROM analytics_metrics_realtime AS r
WHERE r.expires_at > strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')
ORDER BY r.metric_key
LIMIT $1;
