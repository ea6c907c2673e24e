-- Compute a range of an aggregate again, and let an aggregate register itself to be kept up to date

-- timescaledb

-- What a refresh does first: note the days that it must leave alone.
CREATE FUNCTION analytics_collect() RETURNS void
    LANGUAGE sql
    SET search_path FROM CURRENT
    AS $$ SELECT analytics_note_gone_days() $$;

-- Compute the buckets of a view from `since` up to `until`, both on the edge of one.
--
-- A refresh commits on its way, so it can be called only from a procedure without a SET clause, which sees the
-- search_path of its caller, a background job for instance. So the names of the schemas are written into it; as a
-- literal, because a name may hold what ends a dollar quote.
DO $do$
BEGIN
    EXECUTE format(
        'CREATE PROCEDURE analytics_fill(view_name text, since timestamptz, until timestamptz) '
        'LANGUAGE plpgsql AS %L',
        format(
            $body$
BEGIN
    CALL %2$I.refresh_continuous_aggregate(format('%%I.%%I', %1$L, view_name)::regclass, since, until);
END
            $body$,
            current_schema(),
            (
                SELECT n.nspname
                FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace
                WHERE e.extname = 'timescaledb'
            )
        )
    );
END
$do$;

-- Keep a continuous aggregate up to date from now on: every hour its last 3 days. The bucket that is not complete, and
-- the hour after it for stragglers, are computed in real time. Raw events must be kept for longer than these 3 days.
-- What is older than that when it is registered is computed at the end of the migration, and what comes late by
-- analytics_refresh_late(). `<view_name>_filled` has what is computed, as the table of that name has on plain PostgreSQL.
CREATE FUNCTION analytics_keep_fresh(view_name text) RETURNS void
    LANGUAGE plpgsql
    SET search_path FROM CURRENT
    AS $$
DECLARE
    computed text;
BEGIN
    SELECT format('%I.%I', c.materialization_hypertable_schema, c.materialization_hypertable_name) INTO STRICT computed
    FROM timescaledb_information.continuous_aggregates AS c
    WHERE c.view_schema = current_schema() AND c.view_name = analytics_keep_fresh.view_name;
    EXECUTE format('CREATE VIEW %I AS SELECT * FROM %s', analytics_keep_fresh.view_name || '_filled', computed);
    PERFORM add_continuous_aggregate_policy(
        format('%I', view_name)::regclass,
        start_offset => INTERVAL '3 days',
        end_offset => INTERVAL '1 hour',
        schedule_interval => INTERVAL '1 hour',
        initial_start => now() + INTERVAL '1 hour'
    );
END
$$;

-- Until when all of these views read what is computed; from then on they read events.
CREATE FUNCTION analytics_filled_until(VARIADIC view_names text[]) RETURNS timestamptz
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path FROM CURRENT
    AS $$
    SELECT greatest(
        min(_timescaledb_functions.to_timestamp(_timescaledb_functions.cagg_watermark(c.mat_hypertable_id))),
        '1970-01-01 00:00:00+00'
    )
    FROM _timescaledb_catalog.continuous_agg AS c
    WHERE c.user_view_schema = current_schema() AND c.user_view_name = ANY (view_names)
    $$;

-- postgresql

-- Until when all of these views read what is computed; from then on they read events.
CREATE FUNCTION analytics_filled_until(VARIADIC view_names text[]) RETURNS timestamptz
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path FROM CURRENT
    AS $$
    SELECT greatest(min(f.filled_until), '1970-01-01 00:00:00+00')
    FROM analytics_fills AS f
    WHERE f.view_name = ANY (view_names)
    $$;

-- One key for each installation: that of its table.
CREATE FUNCTION analytics_fill_lock() RETURNS bigint
    LANGUAGE sql STABLE
    SET search_path FROM CURRENT
    AS $$ SELECT (hashtext('asgi-analytics fill')::bigint << 32) | 'analytics_events'::regclass::oid::bigint $$;

-- What a refresh does first: sort the noted changes into the buckets to compute again, and forget those whose events
-- are gone.
CREATE FUNCTION analytics_collect() RETURNS void
    LANGUAGE plpgsql
    SET search_path FROM CURRENT
    SET timezone = 'UTC'
    AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(analytics_fill_lock());
    -- Deleted before anything is computed: what is noted afterwards is computed again the next time.
    WITH noted AS (DELETE FROM analytics_changes RETURNING hour)
    INSERT INTO analytics_stale (view_name, bucket)
    SELECT DISTINCT f.view_name, analytics_bucket(f.step, n.hour)
    FROM (SELECT DISTINCT hour FROM noted) AS n
    CROSS JOIN analytics_fills AS f
    ON CONFLICT DO NOTHING;
    PERFORM analytics_note_gone_days();
    DELETE FROM analytics_stale AS s
    WHERE s.bucket < (SELECT analytics_refreshable_from()) OR s.bucket IN (
        SELECT b.bucket
        FROM analytics_gone_days AS g
        JOIN analytics_stale AS b ON b.bucket >= g.day AND b.bucket < g.day + INTERVAL '1 day'
    );
END
$$;

-- Compute the buckets of a view from `since` up to `until`, both on the edge of one. Waits for others who fill.
CREATE PROCEDURE analytics_fill(view_name text, since timestamptz, until timestamptz)
    LANGUAGE plpgsql
    SET search_path FROM CURRENT
    AS $$
DECLARE
    fills analytics_fills;
    first timestamptz := since;
BEGIN
    PERFORM pg_advisory_xact_lock(analytics_fill_lock());
    -- A partition may have been dropped since the range was pending; under the lock none is.
    IF since < now() - analytics_raw_retention() THEN
        first := greatest(since, analytics_refreshable_from());
    END IF;
    SELECT f.* INTO STRICT fills FROM analytics_fills AS f WHERE f.view_name = $1;
    DELETE FROM analytics_stale AS s
    WHERE s.view_name = fills.view_name AND s.bucket >= since AND s.bucket < until;
    EXECUTE format(
        'DELETE FROM %I WHERE %I >= $1 AND %2$I < $2', fills.view_name || '_filled', fills.bucket_column
    ) USING first, until;
    EXECUTE format('INSERT INTO %I SELECT * FROM %I($1, $2)', fills.view_name || '_filled', fills.view_name || '_live')
    USING first, until;
    -- The view reads filled buckets up to the first one that is not: ranges may be filled in any order.
    UPDATE analytics_fills AS f
    SET filled_until = until
    WHERE f.view_name = fills.view_name
        AND f.filled_until < until
        AND NOT EXISTS (
            SELECT FROM analytics_stale AS s
            WHERE s.view_name = f.view_name AND s.bucket >= f.filled_until AND s.bucket < until
        );
END
$$;

-- Make an aggregate of the function `<view_name>_live(since, until)`, whose first column is the bucket of `step`: the
-- filled table with its index, and the view, which completes the table with what is not filled yet. Register it to be
-- kept up to date, and note all events that are there as not filled.
CREATE FUNCTION analytics_make_filled(view_name text, step interval) RETURNS void
    LANGUAGE plpgsql
    SET search_path FROM CURRENT
    SET timezone = 'UTC'
    AS $$
DECLARE
    filled constant text := view_name || '_filled';
    live constant text := view_name || '_live';
    bucket_column text;
BEGIN
    -- Changes that are committed meanwhile are sorted in afterwards, when the aggregate is registered.
    PERFORM pg_advisory_xact_lock(analytics_fill_lock());
    EXECUTE format('CREATE TABLE %I AS SELECT * FROM %I(NULL, NULL) WITH NO DATA', filled, live);
    SELECT a.attname INTO STRICT bucket_column
    FROM pg_attribute AS a
    WHERE a.attrelid = format('%I', filled)::regclass AND a.attnum = 1;
    EXECUTE format('CREATE INDEX %I ON %I (%I)', filled || '_' || bucket_column || '_idx', filled, bucket_column);
    EXECUTE format(
        $view$
        CREATE VIEW %1$I AS
        SELECT filled.*
        FROM %2$I AS filled
        WHERE filled.%3$I < (SELECT filled_until FROM analytics_fills WHERE view_name = %4$L)
        UNION ALL
        SELECT live.*
        FROM analytics_fills AS fills, %5$I(fills.filled_until, 'infinity') AS live
        WHERE fills.view_name = %4$L
        $view$,
        view_name, filled, bucket_column, view_name, live
    );
    INSERT INTO analytics_fills (view_name, bucket_column, step) VALUES (view_name, bucket_column, step);
    INSERT INTO analytics_stale (view_name, bucket)
    SELECT analytics_make_filled.view_name, b.bucket
    FROM analytics_refreshable_days() AS d (day)
    CROSS JOIN generate_series(
        d.day, d.day + INTERVAL '1 day' - INTERVAL '1 microsecond', analytics_make_filled.step
    ) AS b (bucket)
    WHERE b.bucket <= now();
END
$$;
