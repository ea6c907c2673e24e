-- Numbers of dashboards and of the moment, which the application says itself.

-- set_dashboard_metric --
-- Set the number $2 of the widget $1 to $3; what it was is kept beside it.
SELECT {schema}analytics_set_dashboard_metric($1, $2, $3);

-- update_realtime_metric --
-- Set the number of the moment $1 to the JSON $2, for a window $3, for $4 to live.
SELECT {schema}analytics_update_realtime_metric($1, $2::jsonb, $3, $4);

-- set_dashboard_metric_on_sqlite --
-- Set the number of a widget; what it was is kept beside it.
INSERT INTO dashboard_metrics (widget_id, metric_key, value, updated_at) VALUES (?, ?, ?, ?)
ON CONFLICT (widget_id, metric_key) DO UPDATE
SET previous_value = value, value = excluded.value, updated_at = excluded.updated_at;

-- update_realtime_metric_on_sqlite --
-- Set the number of the moment to JSON, for a window, with its time and its end.
INSERT INTO analytics_metrics_realtime (metric_key, metric_value, time_window, calculated_at, expires_at)
VALUES (?, ?, ?, ?, ?)
ON CONFLICT (metric_key) DO UPDATE
SET metric_value = excluded.metric_value, time_window = excluded.time_window, calculated_at = excluded.calculated_at,
    expires_at = excluded.expires_at;
