-- Store a batch of new events as store_new_events.sql does, but give way to others: rest for $2 seconds before each part
-- of it is read, and after every $3 rows. $1 is the batch as an array of JSON arrays.
-- Each OFFSET 0 keeps a rest in its place.
INSERT INTO {schema}analytics_events (id, timestamp, event_type, service, user_id, session_id, data, context)
SELECT event_id, timestamp, event_type, service, user_id, session_id, data, context
FROM (
    SELECT event.*, row_number() OVER () AS place
    FROM (
        SELECT event.*
        FROM (SELECT part FROM unnest($1::bytea[]) AS part WHERE pg_sleep($2) IS NOT NULL OFFSET 0) AS rested
        CROSS JOIN LATERAL jsonb_to_recordset(convert_from(part, 'UTF8')::jsonb) AS event (
            event_id uuid, timestamp timestamptz, event_type text, service text,
            user_id uuid, session_id text, data jsonb, context jsonb
        )
        ORDER BY timestamp, event_id
    ) AS event
    OFFSET 0
) AS event
WHERE place % $3 > 0 OR pg_sleep($2) IS NOT NULL
