-- Make the table of metrics: one row per series and interval, with what was recorded in it

-- A row holds what was recorded since the one before: rows are added up, whichever process they come from. `value` is
-- the sum of a counter, the last of a gauge, the mean of the others. `tags` are JSON with sorted keys, so that equal
-- ones are equal texts. `histogram` is JSON, {"bin": number of values}, null for counters: a bin is 0 for zero, else,
-- with the sign of the value x, 20000 + ceil(ln |x| / ln 1.04).
CREATE TABLE metrics (
    id TEXT NOT NULL,
    timestamp TEXT NOT NULL,
    name TEXT NOT NULL,
    metric_type TEXT NOT NULL,
    value REAL NOT NULL,
    unit TEXT,
    service TEXT NOT NULL,
    tags TEXT NOT NULL DEFAULT '{}',
    count INTEGER NOT NULL,
    sum REAL NOT NULL,
    min REAL NOT NULL,
    max REAL NOT NULL,
    last REAL NOT NULL,
    histogram TEXT,
    UNIQUE (timestamp, id),
    CONSTRAINT analytics_metrics_timestamp_range
        CHECK (length(timestamp) = 27 AND timestamp >= '2000' AND timestamp < '2100'),
    CONSTRAINT analytics_metrics_metric_type CHECK (metric_type IN ('counter', 'gauge', 'histogram', 'timer')),
    CONSTRAINT analytics_metrics_name CHECK (length(name) BETWEEN 1 AND 255),
    CONSTRAINT analytics_metrics_numbers CHECK (
        sum BETWEEN -1e300 AND 1e300 AND min BETWEEN -1e300 AND max AND max <= 1e300 AND last BETWEEN min AND max
        AND value BETWEEN -1e300 AND 1e300
    ),
    CONSTRAINT analytics_metrics_histogram CHECK (count > 0)
);

CREATE INDEX metrics_name_timestamp_idx ON metrics (name, timestamp);

-- The name that the table has on PostgreSQL.
CREATE VIEW analytics_metrics AS SELECT * FROM metrics;

-- As analytics_changes, for metrics: the sink notes the hours of what it inserts.
CREATE TABLE analytics_metric_changes (hour TEXT PRIMARY KEY) WITHOUT ROWID;

CREATE TRIGGER analytics_note_metric_updates AFTER UPDATE ON metrics
BEGIN
    INSERT OR IGNORE INTO analytics_metric_changes (hour) VALUES (substr(old.timestamp, 1, 13) || ':00:00.000000Z');
    INSERT OR IGNORE INTO analytics_metric_changes (hour) VALUES (substr(new.timestamp, 1, 13) || ':00:00.000000Z');
END;

CREATE TRIGGER analytics_note_metric_deletes AFTER DELETE ON metrics
BEGIN
    INSERT OR IGNORE INTO analytics_metric_changes (hour) VALUES (substr(old.timestamp, 1, 13) || ':00:00.000000Z');
END;
