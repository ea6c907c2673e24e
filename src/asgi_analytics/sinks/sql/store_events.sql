-- Store a batch as store_new_events.sql does, but for what is there already, which stays; and return the places (from 0)
-- of these duplicates: what was there, and what stands in the batch a second time. The counts come first, so that
-- nothing is joined when there is none.
WITH event AS MATERIALIZED (
    SELECT * FROM ROWS FROM (jsonb_to_recordset(convert_from($1, 'UTF8')::jsonb) AS (
        event_id uuid, timestamp timestamptz, event_type text, service text,
        user_id uuid, session_id text, data jsonb, context jsonb
    )) WITH ORDINALITY AS event (event_id, timestamp, event_type, service, user_id, session_id, data, context, place)
), stored AS (
    INSERT INTO {schema}analytics_events (id, timestamp, event_type, service, user_id, session_id, data, context)
    SELECT event_id, timestamp, event_type, service, user_id, session_id, data, context
    FROM event
    ORDER BY timestamp, event_id, place
    ON CONFLICT (timestamp, id) DO NOTHING
    RETURNING timestamp, id
)
SELECT place::int - 1 AS place
FROM (
    SELECT place, timestamp, event_id, row_number() OVER (PARTITION BY timestamp, event_id ORDER BY place) AS nth
    FROM event
) AS numbered
LEFT JOIN stored ON stored.timestamp = numbered.timestamp AND stored.id = numbered.event_id
WHERE (SELECT count(*) FROM stored) < (SELECT count(*) FROM event) AND (stored.id IS NULL OR nth > 1)
ORDER BY place
