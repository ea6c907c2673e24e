-- Store a batch as store_events.sql does, and return the places (from 1) of the duplicates: what was there already, and
-- what stands in the batch a second time. NULL when there is none, so that nothing is joined in the usual case.
-- Sorted, so that two such statements with the same events wait for each other instead of locking each other out.
WITH event AS MATERIALIZED (
    SELECT * FROM ROWS FROM (jsonb_to_recordset(convert_from($1, 'UTF8')::jsonb) AS (
        event_id uuid, timestamp timestamptz, event_type text, service text,
        user_id uuid, session_id text, data jsonb, context jsonb
    )) WITH ORDINALITY AS event (event_id, timestamp, event_type, service, user_id, session_id, data, context, place)
), stored AS (
    INSERT INTO {schema}analytics_events (id, timestamp, event_type, service, user_id, session_id, data, context)
    SELECT event_id, timestamp, event_type, service, user_id, session_id, data, context
    FROM event
    ORDER BY timestamp, event_id
    ON CONFLICT (timestamp, id) DO NOTHING
    RETURNING timestamp, id
)
SELECT CASE WHEN (SELECT count(*) FROM stored) < (SELECT count(*) FROM event) THEN ARRAY(
    SELECT place
    FROM (
        SELECT place, timestamp, event_id, row_number() OVER (PARTITION BY timestamp, event_id ORDER BY place) AS nth
        FROM event
    ) AS numbered
    LEFT JOIN stored ON stored.timestamp = numbered.timestamp AND stored.id = numbered.event_id
    WHERE stored.id IS NULL OR nth > 1
    ORDER BY place
) END
