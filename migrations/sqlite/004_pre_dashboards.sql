-- Keep the numbers of dashboards, and those of the moment, which expire

-- The application's own numbers. The change is null where there is nothing to compare to.
CREATE TABLE dashboard_metrics (
    id INTEGER PRIMARY KEY,
    widget_id TEXT NOT NULL CHECK (length(widget_id) BETWEEN 1 AND 255),
    metric_key TEXT NOT NULL CHECK (length(metric_key) BETWEEN 1 AND 255),
    value REAL NOT NULL CHECK (value BETWEEN -1e300 AND 1e300),
    previous_value REAL,
    change_percent REAL GENERATED ALWAYS AS (
        CASE
            WHEN abs(previous_value) > 1e-290 AND abs(value) < 1e290
                THEN (value - previous_value) / abs(previous_value) * 100
        END
    ) VIRTUAL,
    updated_at TEXT NOT NULL,
    UNIQUE (widget_id, metric_key)
);

-- The upkeep deletes what has expired.
CREATE TABLE analytics_metrics_realtime (
    metric_key TEXT PRIMARY KEY CHECK (length(metric_key) BETWEEN 1 AND 255),
    metric_value TEXT NOT NULL,
    time_window TEXT NOT NULL CHECK (time_window IN ('hour', 'day', 'week', 'month')),
    calculated_at TEXT NOT NULL,
    expires_at TEXT NOT NULL
);

CREATE INDEX analytics_metrics_realtime_expires_at_idx ON analytics_metrics_realtime (expires_at);
