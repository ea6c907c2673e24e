-- The ledger: which steps of the schema were applied, from which text, when, and by which version.

-- create --
-- Make the table.
CREATE TABLE IF NOT EXISTS analytics_migrations (
    version         integer          PRIMARY KEY,
    name            text             NOT NULL,
    phase           text             NOT NULL CHECK (phase IN ('pre', 'post')),
    checksum        text             NOT NULL,
    applied_at      timestamptz      NOT NULL DEFAULT clock_timestamp(),
    duration_ms     double precision NOT NULL,
    library_version text             NOT NULL
);

-- mark_timescaledb --
-- Note what the schema is installed for. The ledger's columns are public and full, so the note is the table's comment,
-- which dumps keep.
COMMENT ON TABLE analytics_migrations IS 'Applied schema steps; installed for TimescaleDB';

-- mark_postgresql --
-- The same for plain PostgreSQL.
COMMENT ON TABLE analytics_migrations IS 'Applied schema steps; installed for plain PostgreSQL';

-- comment --
-- Find the table's comment; no row if the table is missing. $1 is the schema.
SELECT obj_description(c.oid, 'pg_class')
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = 'analytics_migrations';

-- rows --
-- Read the applied steps.
SELECT version, name, phase, checksum, applied_at, duration_ms, library_version
FROM analytics_migrations
ORDER BY version;

-- record --
-- Note that a step was applied: $1 to $6 are the columns but applied_at.
INSERT INTO analytics_migrations (version, name, phase, checksum, duration_ms, library_version)
VALUES ($1, $2, $3, $4, $5, $6);
