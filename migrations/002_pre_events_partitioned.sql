-- Make the table of events, partitioned by day, with a default partition for days that have none yet
-- for: postgresql
CREATE TABLE analytics_events (
    id uuid NOT NULL,
    timestamp timestamptz NOT NULL,
    event_type text NOT NULL,
    service text NOT NULL,
    user_id uuid,
    session_id text,
    data jsonb NOT NULL,
    context jsonb,
    -- Identity is the pair: a unique key of a partitioned table must contain what it is partitioned by.
    PRIMARY KEY (timestamp, id),
    CONSTRAINT analytics_events_timestamp_range
        CHECK (timestamp >= '2000-01-01 00:00:00+00' AND timestamp < '2100-01-01 00:00:00+00')
) PARTITION BY RANGE (timestamp);

CREATE TABLE analytics_events_default PARTITION OF analytics_events DEFAULT;

COMMENT ON TABLE analytics_events IS 'What happened: one row an event, the same pair of timestamp and id only once.';
COMMENT ON TABLE analytics_events_default IS
    'Events of days without a partition: analytics_make_partitions() moves them when it makes one.';
