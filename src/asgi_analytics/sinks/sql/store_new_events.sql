-- Store a batch of events that was never sent before, given as one JSON array of the bytes that track() made. Where one
-- of them is there already nothing is stored, and the server says 23505: store_events.sql is for that. Not to look for
-- each one before it is written saves a sixth of the server's work.
-- The parameter is bytea, for a text would be decoded and encoded once more on its way.
-- Sorted, so that two such statements with the same events wait for each other instead of locking each other out.
INSERT INTO {schema}analytics_events (id, timestamp, event_type, service, user_id, session_id, data, context)
SELECT event_id, timestamp, event_type, service, user_id, session_id, data, context
FROM jsonb_to_recordset(convert_from($1, 'UTF8')::jsonb) AS event (
    event_id uuid, timestamp timestamptz, event_type text, service text,
    user_id uuid, session_id text, data jsonb, context jsonb
)
ORDER BY timestamp, event_id
