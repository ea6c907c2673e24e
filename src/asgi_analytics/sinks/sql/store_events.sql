-- Store a batch of events, given as one JSON array of the bytes that track() made; what is there already stays.
-- The parameter is bytea, for a text would be decoded and encoded once more on its way.
INSERT INTO {schema}analytics_events (id, timestamp, event_type, service, user_id, session_id, data, context)
SELECT event_id, timestamp, event_type, service, user_id, session_id, data, context
FROM jsonb_to_recordset(convert_from($1, 'UTF8')::jsonb) AS event (
    event_id uuid, timestamp timestamptz, event_type text, service text,
    user_id uuid, session_id text, data jsonb, context jsonb
)
ON CONFLICT (timestamp, id) DO NOTHING
