-- Make the table of events, a hypertable with a chunk a day
-- for: timescaledb
CREATE TABLE analytics_events (
    id uuid NOT NULL,
    timestamp timestamptz NOT NULL,
    event_type text NOT NULL,
    service text NOT NULL,
    user_id uuid,
    session_id text,
    data jsonb NOT NULL,
    context jsonb,
    -- Identity is the pair: a unique key of a hypertable must contain its time.
    PRIMARY KEY (timestamp, id),
    -- A clock set to the year 4700, or 'infinity', would make a chunk there, and move what is "newest" with it.
    CONSTRAINT analytics_events_timestamp_range
        CHECK (timestamp >= '2000-01-01 00:00:00+00' AND timestamp < '2100-01-01 00:00:00+00')
);

-- Chunks begin at midnight UTC. The primary key already begins with the time, so no further index on it.
SELECT create_hypertable(
    'analytics_events', by_range('timestamp', INTERVAL '1 day'), create_default_indexes => false
);

COMMENT ON TABLE analytics_events IS 'What happened: one row an event, the same pair of timestamp and id only once.';
