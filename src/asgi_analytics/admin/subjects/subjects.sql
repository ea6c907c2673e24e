-- What analytics-subject asks of the database. Names in braces are quoted identifiers of tables and columns that say,
-- by analytics_holds_person(), that they hold a person.

-- is_installed --
-- Tell whether the schema has the log of requests, and the last function that is called here.
SELECT to_regclass('analytics_subject_requests') IS NOT NULL
    AND to_regprocedure('analytics_fill_sessions(timestamptz, timestamptz, text[])') IS NOT NULL;

-- has_events --
-- Tell whether the schema has the table of events.
SELECT to_regclass('analytics_events') IS NOT NULL;

-- settings --
-- Let a transaction take apart what is in columns, however much, and plan with the values that it is given.
SELECT set_config('timescaledb.max_tuples_decompressed_per_dml_transaction', '0', true),
       set_config('plan_cache_mode', 'force_custom_plan', true);

-- make_key --
-- Make the key of the hashes anew, in a database that was restored without it.
INSERT INTO analytics_subject_key (key)
SELECT sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()))
ON CONFLICT DO NOTHING;

-- key --
-- Return the key of the hashes.
SELECT key FROM analytics_subject_key;

-- open_request --
-- Log a request of the subject $1, of the kind $2, unless one is open.
INSERT INTO analytics_subject_requests (subject, kind) VALUES ($1, $2)
ON CONFLICT (subject, kind) WHERE completed_at IS NULL DO NOTHING;

-- opened_request --
-- Find the open request of the subject $1, of the kind $2.
SELECT id, subject, kind, requested_at, due_at, completed_at, rows::text AS rows
FROM analytics_subject_requests
WHERE subject = $1 AND kind = $2 AND completed_at IS NULL;

-- count_rows --
-- Add $3 rows of the table $2 to the request $1.
UPDATE analytics_subject_requests AS r
SET rows = r.rows || jsonb_build_object($2::text, coalesce((r.rows ->> $2)::bigint, 0) + $3::bigint)
WHERE r.id = $1;

-- restart_count --
-- Forget the counts of the request $1: an export begins anew.
UPDATE analytics_subject_requests SET rows = '{}' WHERE id = $1;

-- complete_request --
-- Complete the request $1.
UPDATE analytics_subject_requests SET completed_at = clock_timestamp() WHERE id = $1
RETURNING id, subject, kind, requested_at, due_at, completed_at, rows::text AS rows;

-- requests --
-- List the requests, of the subject $1 unless it is null, newest first; at most $2.
SELECT id, subject, kind, requested_at, due_at, completed_at, rows::text AS rows
FROM analytics_subject_requests
WHERE $1::text IS NULL OR subject = $1
ORDER BY requested_at DESC, id
LIMIT $2;

-- declared --
-- List our tables, and the views of what an aggregate holds, with each column: its type, whether it is a time, and in
-- which form it says that it holds a person; and whether the table says that it holds none.
SELECT
    c.relname AS name,
    c.oid::regclass::text AS relation,
    coalesce(obj_description(c.oid, 'pg_class') ~ 'person: none$', false) AS says_none,
    a.attname AS column,
    quote_ident(a.attname) AS quoted,
    format_type(a.atttypid, a.atttypmod) AS type,
    a.atttypid IN ('timestamptz'::regtype, 'date'::regtype) AS is_time,
    substring(col_description(c.oid, a.attnum) FROM 'person: ([a-z]+)$') AS form
FROM pg_class AS c
JOIN pg_class AS e ON e.oid = 'analytics_events'::regclass AND e.relnamespace = c.relnamespace AND e.relowner = c.relowner
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relname LIKE 'analytics\_%'
    AND NOT c.relispartition
    AND (c.relkind IN ('r', 'p') OR c.relkind = 'v' AND c.relname LIKE '%\_filled')
ORDER BY c.relname, a.attnum;

-- days --
-- Find the days on which the user $1 has events, with the originals of the id that the events have, as a JSON array.
SELECT
    analytics_bucket('1 day', e.timestamp) AS since,
    analytics_bucket('1 day', e.timestamp) + INTERVAL '1 day' AS until,
    json_agg(DISTINCT e.context ->> 'user_key') FILTER (WHERE e.context ->> 'user_key' IS NOT NULL)::text AS keys
FROM analytics_events AS e
WHERE e.user_id = $1
GROUP BY 1
ORDER BY 1;

-- erase_events --
-- Delete the events of the user $1 from $2 up to $3.
DELETE FROM analytics_events AS e WHERE e.user_id = $1 AND e.timestamp >= $2 AND e.timestamp < $3;

-- find_events --
-- Find the next events of the user $1 from $2 up to $3; at most $4.
SELECT e.id, e.timestamp, e.event_type, e.data::text AS data, e.context::text AS context
FROM analytics_events AS e
WHERE e.user_id = $1 AND e.timestamp >= $2 AND e.timestamp < $3
ORDER BY e.timestamp, e.id
LIMIT $4;

-- anonymise_events --
-- Take the person out of the events with the ids $1 and the times $2, which are all from $5 to $6: their data are then $3
-- and their contexts $4.
UPDATE analytics_events AS e
SET user_id = NULL, session_id = NULL, data = a.data, context = a.context
FROM unnest($1::uuid[], $2::timestamptz[], $3::jsonb[], $4::jsonb[]) AS a (id, timestamp, data, context)
WHERE e.id = a.id AND e.timestamp = a.timestamp AND e.timestamp >= $5 AND e.timestamp <= $6;

-- erase_event --
-- Delete the event with the id $1 and the time $2.
DELETE FROM analytics_events AS e WHERE e.id = $1 AND e.timestamp = $2;

-- find_event --
-- Find the event with the id $1 and the time $2.
SELECT e.id, e.timestamp, e.event_type, e.data::text AS data, e.context::text AS context
FROM analytics_events AS e
WHERE e.id = $1 AND e.timestamp = $2;

-- export_events --
-- Return the events of the user $1 from $2 up to $3.
SELECT
    e.timestamp::text AS at,
    e.id::text AS id,
    (
        SELECT to_json(r)::text
        FROM (
            SELECT e.id, e.timestamp, e.event_type, e.service, e.user_id, e.session_id, e.data, e.context
        ) AS r
    ) AS row
FROM analytics_events AS e
WHERE e.user_id = $1 AND e.timestamp >= $2 AND e.timestamp < $3
ORDER BY e.timestamp, e.id;

-- export_rows --
-- Return the rows of a table that have $1 in a column.
SELECT to_json(t)::text AS row FROM {relation} AS t WHERE t.{column} = $1;

-- export_sessions --
-- Return the sessions of the user $1.
SELECT s.started_at::text AS at, s.id, to_json(s)::text AS row
FROM analytics_sessions AS s
WHERE s.user_id = $1
ORDER BY s.started_at;

-- lock --
-- Wait for a refresh that is filling, and keep others from it: what it has read may still have the person.
LOCK TABLE {relation} IN SHARE ROW EXCLUSIVE MODE;

-- erase_rows --
-- Delete the rows of a table that have $1 in a column.
DELETE FROM {relation} AS t WHERE t.{column} = $1;

-- anonymise_rows --
-- Empty a column of the rows that have $1 in it.
UPDATE {relation} AS t SET {column} = NULL WHERE t.{column} = $1;

-- disconnect_rows --
-- Empty what connects the rows that have $1 in a column with others.
UPDATE {relation} AS t SET {session} = NULL WHERE t.{column} = $1;

-- mask_own_rows --
-- Put asterisks for what the pattern $2 finds in a text of the rows that have $1 in a column.
UPDATE {relation} AS t SET {text} = regexp_replace(t.{text}, $2, '***', 'g')
WHERE t.{column} = $1 AND t.{text} ~ $2;

-- mask_rows --
-- Put asterisks for what the pattern $1 finds in a text of any row.
UPDATE {relation} AS t SET {text} = regexp_replace(t.{text}, $1, '***', 'g') WHERE t.{text} ~ $1;

-- session_ranges --
-- Find the half hours with parts of sessions of the user $1, by day: the first, and the end of the last. $2 is the id as
-- a key of sessions.
SELECT min(p.bucket) AS since, max(p.bucket) + INTERVAL '30 minutes' AS until
FROM analytics_session_parts_filled AS p
WHERE p.user_id = $1 OR p.key = $2
GROUP BY analytics_bucket('1 day', p.bucket)
ORDER BY 1;

-- erase_parts --
-- Delete the parts of sessions of the user $1, or with the key $2, from $3 up to $4; return them.
DELETE FROM analytics_session_parts_filled AS p
WHERE (p.user_id = $1 OR p.key = $2) AND p.bucket >= $3 AND p.bucket < $4
RETURNING p.key;

-- fill_sessions --
-- Bring the filled sessions with the keys $3 in line with the parts from $1 up to $2.
SELECT analytics_fill_sessions($1, $2, $3::text[]);

-- count_sessions --
-- Count the filled sessions of the user $1, or with the key $2.
SELECT count(*) FROM analytics_sessions_filled AS s WHERE s.user_id = $1 OR s.key = $2;

-- erase_sessions --
-- Delete what is left of the filled sessions of the user $1, or with the key $2.
DELETE FROM analytics_sessions_filled AS s WHERE s.user_id = $1 OR s.key = $2;

-- payloads --
-- Find rows whose JSON may be the person's: it has one of the four texts $1 in lower case, or is like one of the patterns
-- $2; or it was written elsewhere, where any character may be spelled \uXXXX.
SELECT t.ctid::text AS place, t.{column}::text AS payload, to_json(t)::text AS row
FROM {relation} AS t
WHERE strpos(lower(t.{column}::text COLLATE "C"), ($1::text[])[1]) > 0
    OR strpos(lower(t.{column}::text COLLATE "C"), ($1::text[])[2]) > 0
    OR strpos(t.{column}::text, '\u') > 0
    OR t.{column}::text LIKE ANY ($2::text[])
FOR UPDATE;

-- erase_payloads --
-- Delete the rows at the places $1.
DELETE FROM {relation} AS t WHERE t.ctid = ANY ($1::text[]::tid[]);

-- anonymise_payload --
-- Write $2 into the row at the place $1.
UPDATE {relation} AS t SET {column} = $2::text::{type} WHERE t.ctid = $1::text::tid;

-- all_days --
-- Find the days that have events: their begins and their ends.
SELECT
    analytics_bucket('1 day', e.timestamp) AS since,
    analytics_bucket('1 day', e.timestamp) + INTERVAL '1 day' AS until
FROM analytics_events AS e
GROUP BY 1
ORDER BY 1;

-- quoting_events --
-- Return the events from $3 up to $4 that may quote the id: what may in their JSON has one of the four texts $1 in lower
-- case, or is like one of the patterns $2. To look for a text takes a fraction of what a pattern does, and to make the
-- JSON of all of an event twice as long as to put together what is looked through.
SELECT
    (
        SELECT to_json(j)::text
        FROM (
            SELECT r.id, r.timestamp, r.event_type, r.service, r.user_id, r.session_id, r.data, r.context
        ) AS j
    ) AS line
FROM (
    SELECT s.*, lower(s.said) AS lower
    FROM (
        SELECT
            e.*,
            concat_ws(
                ' ', e.id, to_json(e.event_type), to_json(e.service), e.user_id, to_json(e.session_id), e.data, e.context
            ) COLLATE "C" AS said
        FROM analytics_events AS e
        WHERE e.timestamp >= $3 AND e.timestamp < $4
        OFFSET 0
    ) AS s
    OFFSET 0
) AS r
WHERE strpos(r.lower, ($1::text[])[1]) > 0 OR strpos(r.lower, ($1::text[])[2]) > 0
    OR strpos(r.lower, ($1::text[])[3]) > 0 OR strpos(r.lower, ($1::text[])[4]) > 0
    OR r.said LIKE ANY ($2::text[]);

-- quoting_rows --
-- Return the rows of a table that may quote the id, as quoting_events does.
SELECT to_json(r.t)::text AS line
FROM (
    SELECT s.t, s.said, lower(s.said) AS lower
    FROM (SELECT t, concat_ws(' ', {said}) COLLATE "C" AS said FROM {relation} AS t OFFSET 0) AS s
    OFFSET 0
) AS r
WHERE strpos(r.lower, ($1::text[])[1]) > 0 OR strpos(r.lower, ($1::text[])[2]) > 0
    OR strpos(r.lower, ($1::text[])[3]) > 0 OR strpos(r.lower, ($1::text[])[4]) > 0
    OR r.said LIKE ANY ($2::text[]);

-- quoting_statistics --
-- Find our tables, chunks and partitions whose statistics for the planner quote one of the texts $1 in lower
-- case, or what is like $2.
SELECT DISTINCT quote_ident(s.schemaname) || '.' || quote_ident(s.tablename) AS relation
FROM pg_stats AS s
WHERE (s.schemaname = current_schema() OR s.schemaname = '_timescaledb_internal')
    AND EXISTS (
        SELECT
        FROM unnest(ARRAY[s.most_common_vals::text, s.histogram_bounds::text, s.most_common_elems::text]) AS t (said)
        WHERE EXISTS (SELECT FROM unnest($1::text[]) AS n (needle) WHERE strpos(lower(t.said), n.needle) > 0)
            OR t.said LIKE ANY ($2::text[])
    )
ORDER BY 1;

-- clear_statistics --
-- Remove the statistics of the table $1, and of what is below it together.
SELECT pg_clear_attribute_stats(s.schemaname::text, s.tablename::text, s.attname::text, s.inherited)
FROM pg_stats AS s
WHERE quote_ident(s.schemaname) || '.' || quote_ident(s.tablename) = $1;

-- analyze --
-- Take the statistics of a table anew.
ANALYZE {relation};

-- erase_from_exports --
-- Note that each export has to erase the user $1.
SELECT analytics_erase_from_exports(ARRAY[$1::uuid]);

-- exports_to_erase_from --
-- List the exports whose warehouses still hold the user $1.
SELECT e.name FROM analytics_export_erasures AS e WHERE e.user_id = $1::uuid ORDER BY e.name;
