-- Find the events of a batch whose content the table refuses, with the SQLSTATE of each refusal, in one statement that
-- stores nothing: the server's own input functions are asked. $1 is a JSON array of the events as texts.
-- Not found here is what an event alone does not tell: a rule that somebody added to the table, a row that is too big.
-- The functions are those of PostgreSQL 16, the times those of the constraint that migrations 001 and 002 make.
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
WHERE sqlstate IS NOT NULL
