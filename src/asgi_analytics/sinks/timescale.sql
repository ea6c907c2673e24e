-- store_new_events --
-- Store a batch of events that was never sent before. $1 is one JSON array of the bytes that track() made, as bytea: a
-- text would be decoded and encoded once more on its way. If one of the events is already there, nothing is stored and
-- the server says 23505; store_events is for that. Not looking for each event saves a sixth of the server's work.
-- Sorted, so that two statements with the same events wait for each other instead of ending in a deadlock.
INSERT INTO {schema}analytics_events (id, timestamp, event_type, service, user_id, session_id, data, context)
SELECT event_id, timestamp, event_type, service, user_id, session_id, data, context
FROM jsonb_to_recordset(convert_from($1, 'UTF8')::jsonb) AS event (
    event_id uuid, timestamp timestamptz, event_type text, service text,
    user_id uuid, session_id text, data jsonb, context jsonb
)
ORDER BY timestamp, event_id;

-- store_events --
-- Store a batch as store_new_events does, but leave what is already there; return the places (from 0) of these
-- duplicates: events that were stored before, and those that occur in the batch a second time. The counts come first,
-- so that nothing is joined if there are none.
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
ORDER BY place;

-- store_metrics --
-- Store the metrics of a batch as store_events does its events, and return the places of the duplicates.
WITH line AS MATERIALIZED (
    SELECT * FROM ROWS FROM (jsonb_to_recordset(convert_from($1, 'UTF8')::jsonb) AS (
        event_id uuid, timestamp timestamptz, service text, data jsonb
    )) WITH ORDINALITY AS line (event_id, timestamp, service, data, place)
), stored AS (
    INSERT INTO {schema}analytics_metrics (
        id, timestamp, name, metric_type, value, unit, service, tags, count, sum, min, max, last, bins, counts
    )
    SELECT
        l.event_id,
        l.timestamp,
        d.name,
        d.metric_type,
        CASE d.metric_type WHEN 'counter' THEN d.sum WHEN 'gauge' THEN d.last ELSE d.sum / nullif(d.count, 0) END,
        d.unit,
        l.service,
        coalesce(d.tags, '{}'),
        d.count,
        d.sum,
        d.min,
        d.max,
        d.last,
        d.bins,
        d.counts
    FROM line AS l
    CROSS JOIN LATERAL jsonb_to_record(l.data) AS d (
        name text, metric_type text, unit text, tags jsonb, count bigint, sum float8, min float8, max float8,
        last float8, bins integer[], counts bigint[]
    )
    ORDER BY l.timestamp, l.event_id, l.place
    ON CONFLICT (timestamp, id) DO NOTHING
    RETURNING timestamp, id
)
SELECT place::int - 1 AS place
FROM (
    SELECT place, timestamp, event_id, row_number() OVER (PARTITION BY timestamp, event_id ORDER BY place) AS nth
    FROM line
) AS numbered
LEFT JOIN stored ON stored.timestamp = numbered.timestamp AND stored.id = numbered.event_id
WHERE (SELECT count(*) FROM stored) < (SELECT count(*) FROM line) AND (stored.id IS NULL OR nth > 1)
ORDER BY place;

-- find_poison --
-- Find the events of a batch whose content the table refuses, with the SQLSTATE of each refusal, by asking the server's
-- own input functions; store nothing. $1 is a JSON array of the events as texts.
-- Not found is what an event does not show by itself: a rule that was added to the table, a row that is too big.
-- The functions are those of PostgreSQL 16; the times are those of the table's constraint.
WITH line AS MATERIALIZED (
    SELECT place, line, CASE WHEN pg_input_is_valid(line, 'jsonb') THEN line::jsonb END AS event
    FROM jsonb_array_elements_text(convert_from($1, 'UTF8')::jsonb) WITH ORDINALITY AS line (line, place)
), refusal AS (
    SELECT place, CASE
        WHEN event IS NULL
            THEN (pg_input_error_info(line, 'jsonb')).sql_error_code
        WHEN jsonb_typeof(event) <> 'object'
            THEN '22023'
        WHEN NOT pg_input_is_valid(event ->> 'event_id', 'uuid')
            THEN (pg_input_error_info(event ->> 'event_id', 'uuid')).sql_error_code
        WHEN NOT pg_input_is_valid(event ->> 'timestamp', 'timestamptz')
            THEN (pg_input_error_info(event ->> 'timestamp', 'timestamptz')).sql_error_code
        WHEN NOT pg_input_is_valid(event ->> 'user_id', 'uuid')
            THEN (pg_input_error_info(event ->> 'user_id', 'uuid')).sql_error_code
        WHEN num_nulls(
            event ->> 'event_id', event ->> 'timestamp', event ->> 'event_type', event ->> 'service', event ->> 'data'
        ) > 0
            THEN '23502'
        WHEN (event ->> 'timestamp')::timestamptz < '2000-01-01 00:00:00+00'
            OR (event ->> 'timestamp')::timestamptz >= '2100-01-01 00:00:00+00'
            THEN '23514'
    END AS sqlstate
    FROM line
)
SELECT place::int - 1 AS place, sqlstate,
       CASE WHEN sqlstate = '23514' THEN 'analytics_events_timestamp_range' END AS broken_rule
FROM refusal
WHERE sqlstate IS NOT NULL;

-- store_dead_letters --
-- Keep the events that the table refused, as they were sent; one that is sent again is kept once.
INSERT INTO {schema}analytics_dead_letters (id, event_type, service, reason, sqlstate, payload)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
ON CONFLICT (id) DO NOTHING;

-- ready --
-- Tell what would keep a batch from being stored now: one of the tables that $1 names is missing or refuses the user,
-- or the server is a standby. The right to insert is not enough: ON CONFLICT reads the key.
SELECT bool_or(relation IS NULL) AS missing,
       NOT bool_and(
           has_table_privilege(relation, 'INSERT') AND has_column_privilege(relation, 'id', 'SELECT')
       ) AS refused,
       current_setting('transaction_read_only')::bool AS read_only
FROM (SELECT to_regclass(name) AS relation FROM unnest($1::text[]) AS name) AS tables;

-- has_function --
-- Tell whether the function that $1 names exists: the user may have a schema of an earlier release.
SELECT to_regprocedure($1) IS NOT NULL;

-- visitor_key --
-- Return the key that the visitors of a day are counted by; null for a day that is over for long.
SELECT {schema}analytics_visitor_key($1::date);

-- seen_visitors --
-- Return those of the visitors $1 that were seen at most 30 minutes before the moments $2.
SELECT * FROM {schema}analytics_seen_visitors($1::text[], $2::timestamptz[]);

-- note_visitors --
-- Note that the visitors $1 were seen at the moments $2.
SELECT {schema}analytics_note_visitors($1::text[], $2::timestamptz[]);

-- note_event_types --
-- Note that the types $1 are of the categories $2.
SELECT {schema}analytics_note_event_types($1::text[], $2::text[]);

-- kept_types --
-- Return for how long the rows of each type are kept, and with null those of all others.
SELECT event_type, keep FROM {schema}analytics_kept_types();

-- schemas_fingerprint --
-- Tell whether the schemas of events have changed: it differs from the one before then.
SELECT {schema}analytics_schemas_fingerprint();

-- active_schemas --
-- Return the schemas that events are checked by.
SELECT event_type, schema_definition::text, needs_user FROM {schema}analytics_active_schemas();

-- upkeep --
-- Do the hourly upkeep: of plain PostgreSQL, and of the keys of visitors.
SELECT {schema}analytics_upkeep();

-- drop_old --
-- Do one step of dropping raw rows whose time is over; true if there may be more.
SELECT {schema}analytics_drop_old();
