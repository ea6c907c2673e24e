-- Keep what each user did by day, and how often each feature was used, in tables that the upkeep fills

-- Days of UTC. What happened since the last upkeep is missing here; the questions of a reader include it.

-- A session counts on the day it began. `events_breakdown` is JSON, {"event type": number}.
CREATE TABLE user_activity (
    id INTEGER PRIMARY KEY,
    user_id TEXT NOT NULL,
    date TEXT NOT NULL,
    session_count INTEGER NOT NULL,
    event_count INTEGER NOT NULL,
    total_duration_ms REAL NOT NULL,
    first_seen_at TEXT,
    last_seen_at TEXT,
    events_breakdown TEXT NOT NULL,
    UNIQUE (user_id, date)
);
CREATE INDEX user_activity_date_idx ON user_activity (date);

-- A feature is a type of tracked event.
CREATE TABLE feature_usage (
    id INTEGER PRIMARY KEY,
    feature_name TEXT NOT NULL,
    date TEXT NOT NULL,
    usage_count INTEGER NOT NULL,
    unique_users INTEGER NOT NULL,
    avg_duration_ms REAL,
    success_rate REAL,
    UNIQUE (feature_name, date)
);
CREATE INDEX feature_usage_date_idx ON feature_usage (date);
