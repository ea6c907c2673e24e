-- Keep funnels by name, and who went through them

-- `steps` are those of a question, as JSON: [{"event_type": …, "where": [{"field": …, "operator": …, "value": …}],
-- "name": …}]. The window is in seconds.
CREATE TABLE funnels (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    description TEXT,
    steps TEXT NOT NULL,
    conversion_window REAL NOT NULL DEFAULT 1209600,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now'))
);

-- The name that the table has on PostgreSQL.
CREATE VIEW analytics_funnels AS SELECT id, name, description, steps, conversion_window, created_at FROM funnels;

-- `current_step` counts from 1; `step_timestamps` is a JSON array of the times of the steps that were reached.
CREATE TABLE funnel_conversions (
    id INTEGER PRIMARY KEY,
    funnel_id TEXT NOT NULL REFERENCES funnels (id) ON DELETE CASCADE,
    user_id TEXT,
    session_id TEXT,
    started_at TEXT NOT NULL,
    completed_at TEXT,
    current_step INTEGER NOT NULL,
    completed INTEGER NOT NULL,
    step_timestamps TEXT NOT NULL
);

CREATE INDEX funnel_conversions_funnel_id_idx ON funnel_conversions (funnel_id, started_at);
CREATE INDEX funnel_conversions_user_id_idx ON funnel_conversions (user_id) WHERE user_id IS NOT NULL;
