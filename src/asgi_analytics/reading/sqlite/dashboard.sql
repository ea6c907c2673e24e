-- Numbers of dashboards, and of the moment.

-- dashboard --
-- List the numbers of all widgets, or of the widget $1; $2 is the greatest number of rows.
SELECT d.widget_id, d.metric_key, d.value, d.previous_value, d.change_percent, d.updated_at
FROM analytics_dashboard_metrics AS d
WHERE $1 IS NULL OR d.widget_id = $1
ORDER BY d.widget_id, d.metric_key
LIMIT $2;

-- realtime --
-- List what has not expired; $1 is the greatest number of rows.
SELECT r.metric_key, r.metric_value, r.time_window, r.calculated_at, r.expires_at
FROM analytics_metrics_realtime AS r
WHERE r.expires_at > clock_timestamp()
ORDER BY r.metric_key
LIMIT $1;
