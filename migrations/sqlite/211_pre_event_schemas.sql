-- Keep the schemas of events: what the classes of applications say their data look like, by version

-- One row per version of a type. Of each type one version is active, at most: that which events are checked by.
-- `required_fields` is a JSON array, and has `user_id` where the envelope must have one.
CREATE TABLE analytics_event_schemas (
    event_type TEXT NOT NULL CHECK (length(event_type) BETWEEN 1 AND 255),
    version INTEGER NOT NULL CHECK (version > 0),
    event_category TEXT NOT NULL
        CHECK (event_category IN ('system', 'interaction', 'activity', 'transaction', 'content')),
    schema_definition TEXT NOT NULL,
    required_fields TEXT NOT NULL,
    example_payload TEXT,
    description TEXT,
    retention_days INTEGER NOT NULL,
    is_active INTEGER NOT NULL DEFAULT 1 CHECK (is_active IN (0, 1)),
    updated_at TEXT NOT NULL,
    PRIMARY KEY (event_type, version)
);
CREATE UNIQUE INDEX analytics_event_schemas_active_idx ON analytics_event_schemas (event_type) WHERE is_active;
