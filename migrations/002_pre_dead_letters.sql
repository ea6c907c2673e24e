-- Make the table of dead letters: rejected events, as they were sent, with the reason
CREATE TABLE analytics_dead_letters (
    -- The event_id: an event that is rejected again after a retry is kept once.
    id uuid PRIMARY KEY,
    received_at timestamptz NOT NULL DEFAULT now(),
    -- Null if the event is too broken to tell.
    event_type text,
    service text,
    reason text NOT NULL,
    sqlstate text,
    -- Text and not jsonb: it may have been refused because jsonb cannot hold it.
    payload text NOT NULL
);

CREATE INDEX analytics_dead_letters_received_at_idx ON analytics_dead_letters (received_at);

COMMENT ON TABLE analytics_dead_letters IS 'Events that the database refused, as they were sent, with the reason.';
