-- Make the table of events: a hypertable with one chunk per day, or a table with one partition per day

-- both

CREATE TABLE analytics_events (
    id uuid NOT NULL,
    timestamp timestamptz NOT NULL,
    event_type text NOT NULL,
    service text NOT NULL,
    user_id uuid,
    session_id text,
    data jsonb NOT NULL,
    context jsonb,
    -- Identity is the pair: a unique key must contain the time, which hypertables and partitions are divided by.
    PRIMARY KEY (timestamp, id),
    -- A clock set to the year 4700, or 'infinity', would make a chunk there, and move what is "newest" with it.
    CONSTRAINT analytics_events_timestamp_range
        CHECK (timestamp >= '2000-01-01 00:00:00+00' AND timestamp < '2100-01-01 00:00:00+00')
);

-- timescaledb

-- Chunks begin at midnight UTC. The primary key already begins with the time, so no further index on it.
SELECT create_hypertable(
    'analytics_events', by_range('timestamp', INTERVAL '1 day'), create_default_indexes => false
);

-- postgresql

-- What was just made becomes the default partition, for the days that have no partition yet.
ALTER TABLE analytics_events RENAME TO analytics_events_default;
ALTER INDEX analytics_events_pkey RENAME TO analytics_events_default_pkey;
CREATE TABLE analytics_events (LIKE analytics_events_default INCLUDING ALL) PARTITION BY RANGE (timestamp);
ALTER TABLE analytics_events ATTACH PARTITION analytics_events_default DEFAULT;

COMMENT ON TABLE analytics_events_default IS
    'Events of days without a partition: analytics_make_partitions() moves them when it makes one.';

-- both

COMMENT ON TABLE analytics_events IS 'What happened: one row per event; each pair of timestamp and id occurs once.';

CREATE INDEX analytics_events_event_type_timestamp_idx ON analytics_events (event_type, timestamp);
CREATE INDEX analytics_events_user_id_timestamp_idx ON analytics_events (user_id, timestamp) WHERE user_id IS NOT NULL;
CREATE INDEX analytics_events_service_timestamp_idx ON analytics_events (service, timestamp);

-- timescaledb

-- How chunks are turned into columns. By type, because the keys of data are those of the type; by time and id, because
-- the primary key has to be in it. TimescaleDB would make a filter for every indexed column; only the one that finds a
-- user's events is wanted: a filter of random ids weighs 5 % of all, and finds nothing that the time did not.
ALTER TABLE analytics_events SET (
    timescaledb.enable_columnstore = true,
    timescaledb.segmentby = 'event_type',
    timescaledb.orderby = 'timestamp DESC, id',
    timescaledb.sparse_index = 'bloom(user_id)'
);
