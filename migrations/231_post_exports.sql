-- Keep what analytics-export has copied to which warehouse, and let the retention wait for it

CREATE TABLE analytics_exports (
    name text PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9_-]{0,62}$'),
    -- Where to; it may hold a password, so that no role but the owner and the exporter may read it.
    url text NOT NULL,
    -- Begins the tokens of all batches, so that an export of the same name that is made anew has tokens of its own.
    identity text NOT NULL DEFAULT left(replace(gen_random_uuid()::text, '-', ''), 12),
    created_at timestamptz NOT NULL DEFAULT now(),
    -- What this snapshot sees is exported, but for what is left to the backfill.
    exported pg_snapshot NOT NULL,
    exported_at timestamptz NOT NULL,
    -- The snapshot up to which is being exported, and what of that is done.
    window_until pg_snapshot,
    window_at timestamptz,
    window_events bigint NOT NULL DEFAULT 0,
    -- The backfill takes what this snapshot saw, the oldest first.
    backfill_seen pg_snapshot NOT NULL,
    backfill_wanted tstzmultirange NOT NULL DEFAULT '{}',
    backfill_done tstzmultirange NOT NULL DEFAULT '{}',
    backfill_range tstzrange,
    events bigint NOT NULL DEFAULT 0,
    attempts integer NOT NULL DEFAULT 0,
    succeeded_at timestamptz,
    failed_at timestamptz,
    last_error text
);

COMMENT ON TABLE analytics_exports IS 'The exports of analytics-export: one row per warehouse.';

-- Where each kind of work of an export is. A page is fixed here before it is loaded, so that a repetition takes exactly
-- its rows: those after the one key, up to the other.
CREATE TABLE analytics_export_lanes (
    name text NOT NULL REFERENCES analytics_exports ON DELETE CASCADE,
    lane text NOT NULL CHECK (lane IN ('window', 'backfill', 'retry')),
    sequence bigint NOT NULL DEFAULT 0,
    page_rows integer NOT NULL,
    refusals integer NOT NULL DEFAULT 0,
    after_xid bigint,
    after_timestamp timestamptz,
    after_id uuid,
    until_xid bigint,
    until_timestamp timestamptz,
    until_id uuid,
    PRIMARY KEY (name, lane)
);

CREATE TABLE analytics_export_refusals (
    name text NOT NULL REFERENCES analytics_exports ON DELETE CASCADE,
    id uuid NOT NULL,
    timestamp timestamptz NOT NULL,
    reason text NOT NULL,
    token text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    -- Asked for again.
    is_retried boolean NOT NULL DEFAULT false,
    PRIMARY KEY (name, timestamp, id)
);

-- People who are still to be erased in a warehouse; a row is deleted when it is done.
CREATE TABLE analytics_export_erasures (
    name text NOT NULL REFERENCES analytics_exports ON DELETE CASCADE,
    user_id uuid NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (name, user_id)
);

CREATE TABLE analytics_warehouse_sync_status (
    sync_batch_id text PRIMARY KEY,
    warehouse_type text NOT NULL,
    last_synced_event_id uuid,
    last_synced_timestamp timestamptz,
    events_synced bigint NOT NULL DEFAULT 0,
    sync_duration_ms bigint,
    sync_status text NOT NULL CHECK (sync_status IN ('pending', 'running', 'completed', 'failed')),
    error_details text,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX analytics_warehouse_sync_status_created_at_idx ON analytics_warehouse_sync_status (created_at);

COMMENT ON TABLE analytics_warehouse_sync_status IS 'The batches of the last 30 days that went to a warehouse, or did not.';

-- The snapshot of this moment, in the numbers of export_xid.
CREATE FUNCTION analytics_export_snapshot() RETURNS pg_snapshot
    LANGUAGE sql STABLE
    SET search_path FROM CURRENT
    AS $$
    SELECT CASE o.shift
        WHEN 0 THEN s
        ELSE format(
            '%s:%s:%s',
            pg_snapshot_xmin(s)::text::bigint + o.shift,
            pg_snapshot_xmax(s)::text::bigint + o.shift,
            (SELECT string_agg((x::text::bigint + o.shift)::text, ',' ORDER BY x) FROM pg_snapshot_xip(s) AS x)
        )::pg_snapshot
    END
    FROM analytics_export_origin AS o, pg_current_snapshot() AS s
    $$;

-- How many rows wait, and the time of the oldest: those that a snapshot did not see. The numbers are written into the
-- statements, because with parameters batches of the columnstore are read for nothing.
CREATE FUNCTION analytics_export_waiting(seen pg_snapshot, OUT events bigint, OUT oldest timestamptz)
    LANGUAGE plpgsql STABLE
    SET search_path FROM CURRENT
    AS $$
DECLARE
    late bigint;
    late_oldest timestamptz;
    under_way bigint[];
BEGIN
    -- OFFSET 0: for the least time the planner would else walk along the primary key, from the oldest row on.
    EXECUTE format(
        'SELECT count(*), min(timestamp) FROM (
            SELECT timestamp FROM analytics_events WHERE export_xid >= %s OFFSET 0
        ) AS waiting',
        pg_snapshot_xmax(seen)
    ) INTO events, oldest;
    SELECT array_agg(x::text::bigint) INTO under_way FROM pg_snapshot_xip(seen) AS x;
    IF under_way IS NOT NULL THEN
        EXECUTE format(
            'SELECT count(*), min(timestamp) FROM (
                SELECT timestamp FROM analytics_events
                WHERE export_xid >= %s AND export_xid < %s AND export_xid = ANY (%L::bigint[]) OFFSET 0
            ) AS waiting',
            pg_snapshot_xmin(seen), pg_snapshot_xmax(seen), under_way
        ) INTO late, late_oldest;
        events := events + late;
        oldest := least(oldest, late_oldest);
    END IF;
END
$$;

-- How many committed events an export has not copied yet, without those of a backfill. SECURITY DEFINER: a view lets
-- others call it, who may not read the exports.
CREATE FUNCTION analytics_export_behind(export text) RETURNS bigint
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path FROM CURRENT
    AS $$
    SELECT greatest(w.events - x.window_events, 0)
    FROM analytics_exports AS x, analytics_export_waiting(x.exported) AS w
    WHERE x.name = export
    $$;
REVOKE EXECUTE ON FUNCTION analytics_export_behind(text) FROM PUBLIC;

-- No event waits for longer than since the last snapshot that was exported to its end.
CREATE VIEW analytics_export_lag AS
SELECT
    x.name,
    b.events_behind,
    CASE b.events_behind WHEN 0 THEN 0 ELSE extract(epoch FROM now() - x.exported_at) END::float8 AS seconds_behind
FROM analytics_exports AS x, LATERAL (SELECT analytics_export_behind(x.name) AS events_behind) AS b;

CREATE VIEW analytics_export_dead_letters AS
SELECT name, id, timestamp, reason, token, at FROM analytics_export_refusals;

-- The time of the oldest event that must be kept although its time is over, because an export has not copied it. Null:
-- none.
CREATE OR REPLACE FUNCTION analytics_retention_floor() RETURNS timestamptz
    LANGUAGE sql STABLE
    SET search_path FROM CURRENT
    AS $$
    SELECT least(
        (SELECT min(w.oldest) FROM analytics_exports AS x, analytics_export_waiting(x.exported) AS w),
        (
            SELECT min(CASE
                WHEN x.backfill_range IS NOT NULL THEN coalesce(l.after_timestamp, lower(x.backfill_range))
                ELSE lower(x.backfill_wanted - x.backfill_done)
            END)
            FROM analytics_exports AS x
            LEFT JOIN analytics_export_lanes AS l ON l.name = x.name AND l.lane = 'backfill'
        )
    )
    $$;

-- Have these people erased in every warehouse, by the next run of each export; return how many erasures that is. Call it
-- in the transaction that deletes their events, or after it.
CREATE FUNCTION analytics_erase_from_exports(users uuid[]) RETURNS integer
    LANGUAGE sql
    SET search_path FROM CURRENT
    AS $$
    WITH noted AS (
        INSERT INTO analytics_export_erasures (name, user_id)
        SELECT x.name, u FROM analytics_exports AS x, unnest(users) AS u WHERE u IS NOT NULL
        ON CONFLICT (name, user_id) DO UPDATE SET requested_at = excluded.requested_at
        RETURNING name
    )
    SELECT count(*)::integer FROM noted
    $$;
REVOKE EXECUTE ON FUNCTION analytics_erase_from_exports(uuid[]) FROM PUBLIC;

-- Go on in another cluster, after a dump was restored or pg_upgrade has run: its transactions get numbers above all that
-- are stored. Tokens begin anew, because the other cluster may have gone on with the old ones.
CREATE FUNCTION analytics_export_rebase() RETURNS boolean
    LANGUAGE plpgsql
    SET search_path FROM CURRENT
    AS $$
DECLARE
    system constant bigint := (SELECT c.system_identifier FROM pg_control_system() AS c);
    highest bigint;
    added bigint;
BEGIN
    LOCK TABLE analytics_exports, analytics_events IN ACCESS EXCLUSIVE MODE;
    IF EXISTS (SELECT FROM analytics_export_origin AS o WHERE o.system_identifier = system) THEN
        RETURN false;
    END IF;
    SELECT greatest(
        (SELECT max(e.export_xid) FROM analytics_events AS e),
        max(pg_snapshot_xmax(x.exported)::text::bigint),
        max(pg_snapshot_xmax(x.window_until)::text::bigint),
        max(pg_snapshot_xmax(x.backfill_seen)::text::bigint),
        0
    ) INTO highest FROM analytics_exports AS x;
    -- Above, also of a transaction that has begun but stored no event yet.
    added := greatest(highest + 1 - pg_snapshot_xmin(pg_current_snapshot())::text::bigint, 0);
    EXECUTE format(
        'ALTER TABLE analytics_events ALTER COLUMN export_xid SET DEFAULT (pg_current_xact_id()::text::bigint + %s)', added
    );
    UPDATE analytics_export_origin SET system_identifier = system, shift = added;
    UPDATE analytics_exports SET identity = left(replace(gen_random_uuid()::text, '-', ''), 12);
    RETURN true;
END
$$;
REVOKE EXECUTE ON FUNCTION analytics_export_rebase() FROM PUBLIC;
