-- Make the table of dead letters: rejected events, as they were sent, with the reason
CREATE TABLE analytics_dead_letters (
    -- The event_id: an event that is rejected again after a retry is kept once.
    id TEXT PRIMARY KEY,
    received_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')),
    -- Null if the event is too broken to tell.
    event_type TEXT,
    service TEXT,
    reason TEXT NOT NULL,
    sqlstate TEXT,
    payload TEXT NOT NULL
);

CREATE INDEX analytics_dead_letters_received_at_idx ON analytics_dead_letters (received_at);
