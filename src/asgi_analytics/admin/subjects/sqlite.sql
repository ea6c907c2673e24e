-- What analytics-subject asks of an SQLite database, as subjects.sql has it for PostgreSQL, with the same names and
-- parameters. Names in braces are quoted identifiers of tables and columns that say, in analytics_holds_person, that they
-- hold a person; {row} is a row as JSON. The functions are those of `asgi_analytics.admin.subjects.sqlite`:
--
-- - person_row(names, value, …): JSON of a row with these columns;
-- - person_quotes(value, …): whether any of these may quote the id, or hold it in JSON;
-- - person_masked(text): the text with asterisks in place of the id.

-- is_installed --
-- Tell whether the file has the log of requests.
SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'analytics_subject_requests');

-- is_declared --
-- Tell whether the tables say where they hold a person.
SELECT EXISTS (SELECT 1 FROM analytics_holds_person WHERE relation = 'analytics_events');

-- make_key --
-- Make the key of the hashes anew, in a file that was restored without it.
INSERT INTO analytics_subject_key (id, key) VALUES (1, randomblob(32)) ON CONFLICT DO NOTHING;

-- key --
-- Return the key of the hashes.
SELECT key FROM analytics_subject_key;

-- open_request --
-- Log a request of the subject $1, of the kind $2, unless one is open.
INSERT INTO analytics_subject_requests (subject, kind) VALUES ($1, $2)
ON CONFLICT (subject, kind) WHERE completed_at IS NULL DO NOTHING;

-- opened_request --
-- Find the open request of the subject $1, of the kind $2.
SELECT id, subject, kind, requested_at, due_at, completed_at, rows
FROM analytics_subject_requests
WHERE subject = $1 AND kind = $2 AND completed_at IS NULL;

-- count_rows --
-- Add $3 rows of the table $2 to the request $1.
UPDATE analytics_subject_requests
SET rows = json_patch(
    rows, json_object($2, coalesce((SELECT c.value FROM json_each(rows) AS c WHERE c.key = $2), 0) + $3)
)
WHERE id = $1;

-- restart_count --
-- Forget the counts of the request $1: an export begins anew.
UPDATE analytics_subject_requests SET rows = '{}' WHERE id = $1;

-- complete_request --
-- Complete the request $1.
UPDATE analytics_subject_requests SET completed_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now') WHERE id = $1
RETURNING id, subject, kind, requested_at, due_at, completed_at, rows;

-- requests --
-- List the requests, of the subject $1 unless it is null, newest first; at most $2.
SELECT id, subject, kind, requested_at, due_at, completed_at, rows
FROM analytics_subject_requests
WHERE $1 IS NULL OR subject = $1
ORDER BY requested_at DESC, rowid DESC
LIMIT $2;

-- declared --
-- List our tables, and any other that says where it holds a person, with each column: its type, whether it is a time,
-- and in which form it says that it holds a person; and whether the table says that it holds none.
SELECT
    m.name,
    '"' || replace(m.name, '"', '""') || '"' AS relation,
    EXISTS (SELECT 1 FROM analytics_holds_person AS n WHERE n.relation = m.name AND n.form = 'none') AS says_none,
    c.name AS "column",
    '"' || replace(c.name, '"', '""') || '"' AS quoted,
    c.type AS type,
    c.name IN ('timestamp', 'day', 'date', 'hour', 'quarter', 'bucket') OR c.name LIKE '%\_at' ESCAPE '\' AS is_time,
    h.form
FROM sqlite_master AS m
CROSS JOIN pragma_table_info(m.name) AS c
LEFT JOIN analytics_holds_person AS h ON h.relation = m.name AND h.name = c.name
WHERE m.type = 'table'
    AND (m.name LIKE 'analytics\_%' ESCAPE '\' OR m.name IN (SELECT o.relation FROM analytics_holds_person AS o))
ORDER BY m.name, c.cid;

-- days --
-- Find the days on which the user $1 has events, with the originals of the id that the events have, as a JSON array.
SELECT
    d.day || 'T00:00:00.000000Z' AS since,
    strftime('%Y-%m-%dT00:00:00.000000Z', d.day, '+1 day') AS until,
    d.keys
FROM (
    SELECT
        substr(e.timestamp, 1, 10) AS day,
        json_group_array(DISTINCT json_extract(e.context, '$.user_key'))
            FILTER (WHERE json_type(e.context, '$.user_key') = 'text') AS keys
    FROM analytics_events AS e
    WHERE e.user_id = $1 AND e.hour IN (SELECT h.hour FROM analytics_hours AS h)
    GROUP BY 1
) AS d
ORDER BY 1;

-- erase_events --
-- Delete the events of the user $1 from $2 up to $3.
DELETE FROM analytics_events
WHERE hour IN (SELECT h.hour FROM analytics_hours AS h WHERE h.hour >= substr($2, 1, 13) AND h.hour < $3)
    AND user_id = $1 AND +timestamp >= $2 AND +timestamp < $3;

-- find_events --
-- Find the next events of the user $1 from $2 up to $3; at most $4.
SELECT e.id, e.timestamp, e.event_type, e.data, e.context
FROM analytics_events AS e
WHERE e.user_id = $1
    AND e.hour IN (SELECT h.hour FROM analytics_hours AS h WHERE h.hour >= substr($2, 1, 13) AND h.hour < $3)
    AND +e.timestamp >= $2 AND +e.timestamp < $3
ORDER BY e.timestamp, e.id
LIMIT $4;

-- anonymise_events --
-- Take the person out of the events with the ids $1 and the times $2: their data are then $3 and their contexts $4.
UPDATE analytics_events
SET user_id = NULL, session_id = NULL, data = a.data, context = a.context
FROM (
    SELECT
        i.value AS id,
        json_extract($2, i.fullkey) AS timestamp,
        json_extract($3, i.fullkey) AS data,
        json_extract($4, i.fullkey) AS context
    FROM json_each($1) AS i
) AS a
WHERE analytics_events.id = a.id AND analytics_events.timestamp = a.timestamp;

-- erase_event --
-- Delete the event with the id $1 and the time $2.
DELETE FROM analytics_events WHERE id = $1 AND timestamp = $2;

-- find_event --
-- Find the event with the id $1 and the time $2.
SELECT e.id, e.timestamp, e.event_type, e.data, e.context
FROM analytics_events AS e
WHERE e.id = $1 AND e.timestamp = $2;

-- export_events --
-- Return the events of the user $1 from $2 up to $3.
SELECT
    e.timestamp AS at,
    e.id,
    person_row(
        '["id", "timestamp", "event_type", "service", "user_id", "session_id", "data", "context"]',
        e.id, e.timestamp, e.event_type, e.service, e.user_id, e.session_id, e.data, e.context
    ) AS row
FROM analytics_events AS e
WHERE e.user_id = $1
    AND e.hour IN (SELECT h.hour FROM analytics_hours AS h WHERE h.hour >= substr($2, 1, 13) AND h.hour < $3)
    AND +e.timestamp >= $2 AND +e.timestamp < $3
ORDER BY e.timestamp, e.id;

-- export_rows --
-- Return the rows of a table that have $1 in a column.
SELECT {row} AS row FROM {relation} AS t WHERE t.{column} = $1;

-- export_sessions --
-- Return the sessions of the user $1.
SELECT
    s.started_at AS at,
    s.id,
    json_object(
        'id', s.id, 'user_id', s.user_id, 'visitor', s.visitor, 'started_at', s.started_at, 'ended_at', s.ended_at,
        'duration_ms', s.duration_ms, 'event_count', s.event_count, 'page_views', s.page_views,
        'device_type', s.device_type, 'browser', s.browser, 'os', s.os, 'country', s.country, 'city', s.city,
        'referrer', s.referrer, 'channel', s.channel, 'utm_source', s.utm_source, 'utm_medium', s.utm_medium,
        'utm_campaign', s.utm_campaign, 'landing_page', s.landing_page, 'exit_page', s.exit_page,
        'is_bounce', json(CASE s.is_bounce WHEN 1 THEN 'true' WHEN 0 THEN 'false' ELSE 'null' END)
    ) AS row
FROM analytics_sessions AS s
WHERE s.user_id = $1
ORDER BY s.started_at;

-- lock --
-- The transaction has the lock that one writer at a time has: nothing is to be done.
SELECT 1;

-- erase_rows --
-- Delete the rows of a table that have $1 in a column.
DELETE FROM {relation} WHERE {column} = $1;

-- anonymise_rows --
-- Empty a column of the rows that have $1 in it.
UPDATE {relation} SET {column} = NULL WHERE {column} = $1;

-- disconnect_rows --
-- Empty what connects the rows that have $1 in a column with others.
UPDATE {relation} SET {session} = NULL WHERE {column} = $1;

-- mask_own_rows --
-- Put asterisks for the id in a text of the rows that have $1 in a column.
UPDATE {relation} SET {text} = person_masked({text})
WHERE {column} = $1 AND {text} <> person_masked({text});

-- mask_rows --
-- Put asterisks for the id in a text of any row.
UPDATE {relation} SET {text} = person_masked({text}) WHERE {text} <> person_masked({text});

-- session_ranges --
-- Find the half hours with parts of sessions of the user $1, by day: the first, and the end of the last. $2 is the id as
-- a key of sessions.
SELECT
    min(p.bucket) AS since,
    strftime('%Y-%m-%dT%H:%M:00.000000Z', substr(max(p.bucket), 1, 19), '+30 minutes') AS until
FROM analytics_session_parts_filled AS p
WHERE p.user_id = $1 OR p.key = $2
GROUP BY substr(p.bucket, 1, 10)
ORDER BY 1;

-- erase_parts --
-- Delete the parts of sessions of the user $1, or with the key $2, from $3 up to $4; return them.
DELETE FROM analytics_session_parts_filled
WHERE (user_id = $1 OR key = $2) AND bucket >= $3 AND bucket < $4
RETURNING key, given, first_at, last_at;

-- part_sessions --
-- Find the session that a part of the key $1, given or not $2, from $3 to $4 was in, and whether it has parts left.
SELECT
    s.key, s.given, s.first_at,
    EXISTS (
        SELECT 1 FROM analytics_session_parts_filled AS p
        WHERE p.key = s.key AND p.given = s.given AND p.last_at >= s.first_at AND p.first_at <= s.ended_at
    ) AS has_parts
FROM analytics_sessions_filled AS s
WHERE s.key = $1 AND s.given = $2 AND s.ended_at >= $3 AND s.first_at <= $4;

-- forget_session --
-- Delete the session with the key $1, given or not $2, that begins at $3.
DELETE FROM analytics_sessions_filled WHERE key = $1 AND given = $2 AND first_at = $3;

-- reach_past --
-- Let that session end an instant after its last part, at which nothing happens, and return the instant.
UPDATE analytics_sessions_filled SET ended_at = ended_at || ' ' WHERE key = $1 AND given = $2 AND first_at = $3
RETURNING ended_at;

-- begin_joining --
-- Let the joins be those of the sessions that go on over the instant $1: no part is computed of events.
UPDATE analytics_fills SET live_since = $1, live_until = $1 WHERE view_name = 'analytics_session_parts';

-- count_sessions --
-- Count the filled sessions of the user $1, or with the key $2.
SELECT count(*) FROM analytics_sessions_filled AS s WHERE s.user_id = $1 OR s.key = $2;

-- erase_sessions --
-- Delete what is left of the filled sessions of the user $1, or with the key $2.
DELETE FROM analytics_sessions_filled WHERE user_id = $1 OR key = $2;

-- payloads --
-- Find rows whose JSON may be the person's.
SELECT t.rowid AS place, t.{column} AS payload, {row} AS row
FROM {relation} AS t
WHERE person_quotes(t.{column})
ORDER BY t.rowid;

-- erase_payloads --
-- Delete the rows at the places $1.
DELETE FROM {relation} WHERE rowid IN (SELECT p.value FROM json_each($1) AS p);

-- anonymise_payload --
-- Write $2 into the row at the place $1.
UPDATE {relation} SET {column} = $2 WHERE rowid = $1;

-- all_days --
-- Find the days that have events: their begins and their ends.
SELECT
    f.day || 'T00:00:00.000000Z' AS since,
    strftime('%Y-%m-%dT00:00:00.000000Z', f.day, '+1 day') AS until
FROM (SELECT DISTINCT substr(e.timestamp, 1, 10) AS day FROM analytics_events AS e) AS f
ORDER BY 1;

-- quoting_events --
-- Return the events from $3 up to $4 that may quote the id.
SELECT
    person_row(
        '["id", "timestamp", "event_type", "service", "user_id", "session_id", "data", "context"]',
        e.id, e.timestamp, e.event_type, e.service, e.user_id, e.session_id, e.data, e.context
    ) AS line
FROM analytics_events AS e
WHERE e.timestamp >= $3 AND e.timestamp < $4
    AND person_quotes(e.id, e.event_type, e.service, e.user_id, e.session_id, e.data, e.context);

-- quoting_rows --
-- Return the rows of a table that may quote the id.
SELECT {row} AS line FROM {relation} AS t WHERE person_quotes({columns});

-- sampling_statistics --
-- Find out whether there are statistics for the planner that have samples of rows.
SELECT name FROM sqlite_master WHERE name = 'sqlite_stat4';

-- analyze --
-- Take the statistics anew.
ANALYZE;

-- secure_delete --
-- Let what is deleted be overwritten.
PRAGMA secure_delete = ON;

-- vacuum --
-- Write the file anew, without the room where something was.
VACUUM;

-- busy_timeout --
-- Say for how many milliseconds a statement waits for others.
PRAGMA busy_timeout;

-- checkpoint --
-- Take the log into the file and cut it; the first number is 0 if that was done.
PRAGMA wal_checkpoint(TRUNCATE);
