-- Keep the traits of users, and the daily keys that visitors are counted by

CREATE TABLE analytics_user_traits (
    user_id TEXT PRIMARY KEY,
    -- JSON objects: the newest value of each trait, and the time and the id of the event that told it.
    traits TEXT NOT NULL,
    role TEXT,
    registered_at TEXT,
    -- When the newest of the traits was told.
    updated_at TEXT NOT NULL,
    told_by TEXT NOT NULL
);

-- The upkeep deletes keys after 48 hours: then nobody can tell any more whom a visitor of that day was.
CREATE TABLE analytics_visitor_keys (
    day TEXT PRIMARY KEY,
    key BLOB NOT NULL
);

-- Visitors of the last half hour of a day, and those whose visit goes on after it, with the time of the last view.
CREATE TABLE analytics_midnight_visitors (
    visitor TEXT PRIMARY KEY,
    seen_at TEXT NOT NULL
);
