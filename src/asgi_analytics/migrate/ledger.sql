-- The ledger: which steps of the schema were applied, from which text, when and by which version.
CREATE TABLE IF NOT EXISTS analytics_migrations (
    version         integer          PRIMARY KEY,
    name            text             NOT NULL,
    phase           text             NOT NULL CHECK (phase IN ('pre', 'post')),
    checksum        text             NOT NULL,
    applied_at      timestamptz      NOT NULL DEFAULT clock_timestamp(),
    duration_ms     double precision NOT NULL,
    library_version text             NOT NULL
);
