-- Numbers of dashboards and of the moment, which the application says itself.

-- set_dashboard_metric --
-- Set the number $2 of the widget $1 to $3; what it was is kept beside it.
SELECT {schema}analytics_set_dashboard_metric($1, $2, $3);

-- update_realtime_metric --
-- Set the number of the moment $1 to the JSON $2, for a window $3, for $4 to live.
SELECT {schema}analytics_update_realtime_metric($1, $2::jsonb, $3, $4);
