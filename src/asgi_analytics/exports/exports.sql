-- What an export asks of the database.

-- state --
-- Return an export, by its name $1.
SELECT
    name, url, identity, exported, exported_at, window_until, window_at, backfill_seen, backfill_range, events, attempts,
    succeeded_at, failed_at, last_error, backfill_wanted - backfill_done AS backfill_left
FROM analytics_exports
WHERE name = $1;

-- names --
-- Return the names of all exports.
SELECT name FROM analytics_exports ORDER BY name;

-- lane --
-- Return where a lane $2 of the export $1 is.
SELECT * FROM analytics_export_lanes WHERE name = $1 AND lane = $2;

-- server --
-- Describe the server: whether it is a standby, whether the transactions' numbers are those of this cluster, and the
-- timeline, which a promotion changes at once.
SELECT
    pg_is_in_recovery() AS is_standby,
    (SELECT o.system_identifier FROM analytics_export_origin AS o) = c.system_identifier AS is_origin,
    CASE WHEN NOT pg_is_in_recovery() THEN left(pg_walfile_name(pg_current_wal_lsn()), 8) END AS timeline
FROM pg_control_system() AS c;

-- installed --
-- Tell whether the tables are there.
SELECT to_regclass('analytics_exports') IS NOT NULL;

-- settings --
-- Settings of the session: the text $1 is the search path; plans that know the numbers of the window, so that batches of
-- the columnstore are left alone; commits that are on disk before a warehouse is told to forget them.
SELECT
    set_config('search_path', $1, false), set_config('timezone', 'UTC', false),
    set_config('plan_cache_mode', 'force_custom_plan', false), set_config('jit', 'off', false),
    set_config('max_parallel_workers_per_gather', '0', false),
    -- A page is the next rows in the order of an index. Where the planner expects few rows in all, it would rather sort:
    -- all that is left to copy, again for each page.
    set_config('enable_sort', 'off', false),
    set_config('synchronous_commit', 'on', false),
    set_config('statement_timeout', '0', false), set_config('transaction_timeout', '0', false),
    set_config('idle_in_transaction_session_timeout', '0', false), set_config('idle_session_timeout', '0', false);

-- try_lock --
-- Take the lock of an export for this session, if it is free.
SELECT pg_try_advisory_lock($1);

-- unlock --
-- Give the lock back.
SELECT pg_advisory_unlock($1);

-- make_export --
-- Make an export $1 to the URL $2 that begins now.
INSERT INTO analytics_exports (name, url, exported, exported_at, backfill_seen)
SELECT $1, $2, s, clock_timestamp(), s FROM analytics_export_snapshot() AS s
ON CONFLICT (name) DO NOTHING
RETURNING name;

-- make_lanes --
-- Give an export its lanes; $2 is how many rows a page has at first.
INSERT INTO analytics_export_lanes (name, lane, page_rows)
SELECT $1, lane, $2::integer FROM unnest(ARRAY['window', 'backfill', 'retry']) AS lane
ON CONFLICT (name, lane) DO NOTHING;

-- drop_export --
-- Forget an export $1.
DELETE FROM analytics_exports WHERE name = $1 RETURNING name;

-- open_window --
-- Fix the snapshot up to which the export $1 goes now, unless one is fixed already.
UPDATE analytics_exports
SET window_until = analytics_export_snapshot(), window_at = clock_timestamp(), window_events = 0
WHERE name = $1 AND window_until IS NULL;

-- close_window --
-- Note that everything up to the fixed snapshot is exported.
WITH closed AS (
    UPDATE analytics_exports
    SET exported = window_until, exported_at = window_at, window_until = NULL, window_at = NULL, window_events = 0
    WHERE name = $1
    RETURNING name
)
UPDATE analytics_export_lanes AS l
SET after_xid = NULL, after_timestamp = NULL, after_id = NULL
FROM closed WHERE l.name = closed.name AND l.lane = 'window';

-- want_backfill --
-- Have the export $1 copy what happened from $2 up to $3, as far as it has not yet.
UPDATE analytics_exports SET backfill_wanted = backfill_wanted + tstzmultirange(tstzrange($2, $3)) WHERE name = $1;

-- begin_range --
-- Take the oldest range that is left to the backfill of the export $1; null if none is.
UPDATE analytics_exports AS x
SET backfill_range = (SELECT r FROM unnest(x.backfill_wanted - x.backfill_done) AS r ORDER BY lower(r) LIMIT 1)
WHERE x.name = $1 AND x.backfill_range IS NULL
RETURNING x.backfill_range;

-- end_range --
-- Note that the range of the backfill of the export $1 is done.
WITH ended AS (
    UPDATE analytics_exports
    SET backfill_done = backfill_done + tstzmultirange(backfill_range), backfill_range = NULL
    WHERE name = $1
    RETURNING name
)
UPDATE analytics_export_lanes AS l
SET after_xid = NULL, after_timestamp = NULL, after_id = NULL
FROM ended WHERE l.name = ended.name AND l.lane = 'backfill';

-- want_retry --
-- Have the export $1 try its dead letters again.
UPDATE analytics_export_refusals SET is_retried = true WHERE name = $1;

-- end_retry --
-- Let go what was to be tried again and is left: it is no longer stored.
WITH ended AS (
    UPDATE analytics_export_refusals SET is_retried = false WHERE name = $1 AND is_retried
)
UPDATE analytics_export_lanes
SET after_xid = NULL, after_timestamp = NULL, after_id = NULL
WHERE name = $1 AND lane = 'retry';

-- window_rows --
-- Rows of a window: of transactions from $7 up to $8 that are among $9, or all if that is null, but for $10, which were
-- still open. After the key $1, $2, $3, up to the key $4, $5, $6, at most $11.
SELECT *
FROM analytics_events
WHERE export_xid >= greatest($1::bigint, $7::bigint) AND export_xid < $8::bigint
    AND export_xid <= $4::bigint
    AND ($9::bigint[] IS NULL OR export_xid = ANY ($9::bigint[])) AND export_xid <> ALL ($10::bigint[])
    AND (export_xid, timestamp, id) > ($1::bigint, $2::timestamptz, $3::uuid)
    AND (export_xid, timestamp, id) <= ($4::bigint, $5::timestamptz, $6::uuid)
ORDER BY export_xid, timestamp, id
LIMIT $11;

-- backfill_rows --
-- Rows of before the export: those that its first snapshot saw, whose transactions are below $7, or below $8 and not
-- among $9, or unknown. Keys as above, without the transaction.
SELECT *
FROM analytics_events
WHERE timestamp >= $2::timestamptz AND timestamp <= $5::timestamptz
    AND (timestamp, id) > ($2::timestamptz, $3::uuid) AND (timestamp, id) <= ($5::timestamptz, $6::uuid)
    AND (
        export_xid IS NULL OR export_xid < $7::bigint
        OR (export_xid < $8::bigint AND export_xid <> ALL ($9::bigint[]))
    )
    -- The keys of the other lanes have it.
    AND $1::bigint IS NOT DISTINCT FROM $4::bigint
ORDER BY timestamp, id
LIMIT $10;

-- retry_rows --
-- Rows that the warehouse of the export $7 refused, and that are to be tried again. Keys as above.
SELECT e.*
FROM analytics_export_refusals AS r
JOIN analytics_events AS e USING (timestamp, id)
WHERE r.name = $7 AND r.is_retried
    AND (r.timestamp, r.id) > ($2::timestamptz, $3::uuid) AND (r.timestamp, r.id) <= ($5::timestamptz, $6::uuid)
    AND $1::bigint IS NOT DISTINCT FROM $4::bigint
ORDER BY r.timestamp, r.id
LIMIT $8;

-- categories --
-- List the types that have a category: all others are interaction.
SELECT event_type, category FROM analytics_event_types;

-- enriched --
-- The rows of one of the statements above as the warehouse gets them, without their category and when they were read.
-- {fields} is a parameter: for each known type the field that names its entity. A type that is not known has the first
-- such field of its data, in the order of jsonb.
SELECT
    e.id::text AS event_id,
    e.event_type,
    e.user_id::text AS user_id,
    t.role AS user_role,
    (e.timestamp AT TIME ZONE 'UTC')::date - (t.registered_at AT TIME ZONE 'UTC')::date AS user_tenure_days,
    CASE WHEN e.data ->> f.field IS NOT NULL THEN left(f.field, -3) END AS entity_type,
    e.data ->> f.field AS entity_id,
    e.data::text AS event_data,
    -- Most contexts have neither: to take out nothing costs as much as to take out something.
    (CASE WHEN e.context ?| ARRAY['geo', 'device'] AND jsonb_typeof(e.context) = 'object'
        THEN e.context - 'geo' - 'device' ELSE e.context
    END)::text AS metadata,
    e.service AS source,
    e.timestamp,
    e.session_id,
    (e.context -> 'geo')::text AS geo_location,
    (e.context -> 'device')::text AS device_info,
    coalesce(e.export_xid, 0) AS key_xid
FROM ({rows}) AS e
LEFT JOIN analytics_user_traits AS t USING (user_id)
CROSS JOIN LATERAL (
    SELECT CASE
        WHEN {fields}::jsonb ? e.event_type THEN {fields}::jsonb ->> e.event_type
        WHEN jsonb_typeof(e.data) = 'object'
            -- Not a function in FROM, whose result is stored before it is looked at.
            THEN (SELECT k FROM (SELECT jsonb_object_keys(e.data) AS k) AS o WHERE k LIKE '%_\_id' LIMIT 1)
    END AS field
    -- Once for each row: without it the expression takes the place of each use of its name.
    OFFSET 0
) AS f
ORDER BY {order};

-- fix_page --
-- Fix the page of a lane $2 of the export $1 before it is loaded: up to the key $4, $5, $6, under the timeline $7. $3 is
-- the lane's sequence.
UPDATE analytics_export_lanes
SET until_xid = $4, until_timestamp = $5, until_id = $6, timeline = $7
WHERE name = $1 AND lane = $2 AND sequence = $3;

-- shrink_page --
-- Let a smaller page of at most $7 rows, with a token of its own under the timeline $8, take the place of one that was
-- refused.
UPDATE analytics_export_lanes
SET until_xid = $4, until_timestamp = $5, until_id = $6, sequence = sequence + 1, page_rows = $7, timeline = $8
WHERE name = $1 AND lane = $2 AND sequence = $3;

-- refuse_again --
-- Count a refusal of a page of a single row; return how often it was refused.
UPDATE analytics_export_lanes SET refusals = refusals + 1 WHERE name = $1 AND lane = $2 AND sequence = $3
RETURNING refusals;

-- advance --
-- Note that the page is done; the next one may have $4 rows.
UPDATE analytics_export_lanes
SET sequence = sequence + 1, refusals = 0, page_rows = $4,
    after_xid = until_xid, after_timestamp = until_timestamp, after_id = until_id,
    until_xid = NULL, until_timestamp = NULL, until_id = NULL, timeline = NULL
WHERE name = $1 AND lane = $2 AND sequence = $3;

-- count_events --
-- Add up what the export $1 has copied: $2 rows, of which $3 belong to the window that is open.
UPDATE analytics_exports
SET events = events + $2, window_events = window_events + $3, attempts = 0, succeeded_at = clock_timestamp(),
    last_error = NULL
WHERE name = $1;

-- keep_refusal --
-- Keep the row $2, $3 that the warehouse of the export $1 refused.
INSERT INTO analytics_export_refusals (name, id, timestamp, reason, token) VALUES ($1, $2::uuid, $3, $4, $5)
ON CONFLICT (name, timestamp, id) DO UPDATE
SET reason = excluded.reason, token = excluded.token, at = now(), is_retried = false;

-- forget_refusals --
-- Forget refusals of the export $1 whose rows the warehouse has taken now.
DELETE FROM analytics_export_refusals AS r
USING unnest($2::timestamptz[], $3::uuid[]) AS taken (timestamp, id)
WHERE r.name = $1 AND r.timestamp = taken.timestamp AND r.id = taken.id;

-- succeed --
-- Note that a run of the export $1 has done all that there was.
UPDATE analytics_exports SET attempts = 0, succeeded_at = clock_timestamp(), last_error = NULL WHERE name = $1;

-- fail --
-- Note that an attempt of the export $1 failed, and why.
UPDATE analytics_exports
SET attempts = attempts + 1, failed_at = clock_timestamp(), last_error = $2
WHERE name = $1;

-- batch_fixed --
-- Note a batch $1 for a warehouse of the type $2, of which $3 and $4 are the last event.
INSERT INTO analytics_warehouse_sync_status (
    sync_batch_id, warehouse_type, last_synced_event_id, last_synced_timestamp, sync_status
)
VALUES ($1, $2, $3::uuid, $4, 'pending')
ON CONFLICT (sync_batch_id) DO NOTHING;

-- batch_sent --
-- Note that the batch $1 is on its way.
UPDATE analytics_warehouse_sync_status SET sync_status = 'running' WHERE sync_batch_id = $1;

-- batch_done --
-- Note what became of the batch $1: the status $2, $3 events, after $4 ms, with the error $5.
UPDATE analytics_warehouse_sync_status
SET sync_status = $2, events_synced = $3, sync_duration_ms = $4, error_details = coalesce($5, error_details)
WHERE sync_batch_id = $1;

-- forget_batches --
-- Forget the batches of more than 30 days ago.
DELETE FROM analytics_warehouse_sync_status WHERE created_at < now() - INTERVAL '30 days';

-- want_erasures --
-- Have the users $1 erased in every warehouse; return how many erasures that is.
SELECT analytics_erase_from_exports($1::uuid[]);

-- erasures --
-- Return whom the export $1 still has to erase, with the time of the request.
SELECT user_id, requested_at FROM analytics_export_erasures WHERE name = $1 ORDER BY requested_at, user_id LIMIT 1000;

-- end_erasures --
-- Forget that the export $1 had to erase the users $2, unless they were asked for again after $3.
DELETE FROM analytics_export_erasures WHERE name = $1 AND user_id = ANY ($2::uuid[]) AND requested_at <= $3;

-- status --
-- Return every export, or the one with the name $1, with what it has left to do.
SELECT
    x.name, x.url, x.events, x.attempts, x.succeeded_at, x.failed_at, x.last_error,
    l.events_behind, l.seconds_behind,
    (SELECT count(*) FROM analytics_export_refusals AS r WHERE r.name = x.name) AS dead_letters,
    (SELECT count(*) FROM analytics_export_erasures AS d WHERE d.name = x.name) AS erasures,
    (
        SELECT coalesce(p.after_timestamp, lower(x.backfill_range), lower(x.backfill_wanted - x.backfill_done))
        FROM analytics_export_lanes AS p
        WHERE p.name = x.name AND p.lane = 'backfill' AND NOT isempty(x.backfill_wanted - x.backfill_done)
    ) AS backfill_from,
    upper(x.backfill_wanted - x.backfill_done) AS backfill_until
FROM analytics_exports AS x
JOIN analytics_export_lag AS l USING (name)
WHERE $1::text IS NULL OR x.name = $1
ORDER BY x.name;

-- rebase --
-- Go on with the numbers of this cluster; false if they are in use already.
SELECT analytics_export_rebase();

-- has_index --
-- Tell whether the index of the window is there.
SELECT to_regclass('analytics_events_export_xid_idx') IS NOT NULL
    AND (SELECT i.indisvalid FROM pg_index AS i WHERE i.indexrelid = to_regclass('analytics_events_export_xid_idx'));

-- is_hypertable --
-- Tell whether the events are a hypertable; else they are partitions.
SELECT relkind = 'r' FROM pg_class WHERE oid = 'analytics_events'::regclass;

-- make_index_by_chunk --
-- Make the index of the window on TimescaleDB, one chunk in a transaction.
CREATE INDEX IF NOT EXISTS analytics_events_export_xid_idx ON analytics_events (export_xid)
WITH (timescaledb.transaction_per_chunk);

-- full_partitions_without_index --
-- Return each partition that has rows and no index of the window yet, and the name of its index; a run that was ended may
-- have left a broken one of that name.
SELECT
    p.inhrelid::regclass::text AS partition,
    format('%I', left(c.relname, 40) || '_export_xid_idx') AS index
FROM pg_inherits AS p JOIN pg_class AS c ON c.oid = p.inhrelid
WHERE p.inhparent = 'analytics_events'::regclass AND pg_relation_size(c.oid) > 0
    AND NOT EXISTS (
        SELECT FROM pg_index AS i JOIN pg_class AS n ON n.oid = i.indexrelid
        WHERE i.indrelid = c.oid AND n.relname = left(c.relname, 40) || '_export_xid_idx' AND i.indisvalid
    );

-- make_index_of_partitions --
-- Make the index of the window on the partitions that lack it, which are empty, and of all together. Every writer waits
-- behind it, so it waits for half a second only.
SET LOCAL lock_timeout = '500ms';
CREATE INDEX IF NOT EXISTS analytics_events_export_xid_idx ON analytics_events (export_xid);
