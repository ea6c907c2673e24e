-- The ledger of an SQLite database, as ledger.sql has it for PostgreSQL.

-- create --
-- Make the table.
CREATE TABLE IF NOT EXISTS analytics_migrations (
    version INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    phase TEXT NOT NULL CHECK (phase IN ('pre', 'post')),
    checksum TEXT NOT NULL,
    applied_at TEXT NOT NULL,
    duration_ms REAL NOT NULL,
    library_version TEXT NOT NULL
);

-- has_ledger --
-- Find the table.
SELECT name FROM sqlite_master WHERE type = 'table' AND name = 'analytics_migrations';

-- rows --
-- Read the applied steps.
SELECT version, name, phase, checksum, applied_at, duration_ms, library_version
FROM analytics_migrations
ORDER BY version;

-- is_applied --
-- Tell whether a step is applied.
SELECT 1 FROM analytics_migrations WHERE version = ?;

-- record --
-- Note that a step was applied.
INSERT INTO analytics_migrations (version, name, phase, checksum, applied_at, duration_ms, library_version)
VALUES (?, ?, ?, ?, ?, ?, ?);
