-- Tell which buckets of the filled tables are behind the events, and fill them
-- for: postgresql

-- What runs with the owner's rights, for whoever may insert events, must not take a temporary table for one of ours:
-- pg_temp, else the first place where tables are looked for, is put last.
SELECT set_config('search_path', current_setting('search_path') || ', pg_temp', true);

-- The ranges of complete buckets to fill, from `since` up to `until`, at most a day of hours or a week of days long.
--
-- Days whose events are gone, or within a day of being dropped, are not among them: to fill them would empty the
-- aggregate, which outlives the events. Nor is anything after now. `all_history` is for the first time, when no event
-- was dropped yet.
CREATE FUNCTION analytics_pending(
    since timestamptz DEFAULT NULL,
    until timestamptz DEFAULT NULL,
    all_history boolean DEFAULT false
) RETURNS TABLE (view_name text, window_start timestamptz, window_end timestamptz)
    LANGUAGE sql STABLE
    SET search_path FROM CURRENT
    SET timezone = 'UTC'
    AS $$
    WITH stale AS (
        SELECT s.view_name, s.bucket FROM analytics_stale AS s
        UNION
        SELECT f.view_name, date_bin(f.step, c.hour, '2000-01-01 00:00:00+00')
        FROM (SELECT DISTINCT hour FROM analytics_changes) AS c
        CROSS JOIN analytics_fills AS f
    ),
    wanted AS (
        SELECT
            f.view_name,
            f.step,
            s.bucket,
            CASE WHEN f.step < INTERVAL '1 day' THEN INTERVAL '1 day' ELSE INTERVAL '7 days' END AS longest
        FROM stale AS s
        JOIN analytics_fills AS f USING (view_name)
        WHERE s.bucket + f.step <= now()
            AND (since IS NULL OR s.bucket + f.step > since)
            AND (until IS NULL OR s.bucket < until)
            AND (all_history OR s.bucket >= analytics_refreshable_from())
            AND date_bin('1 day', s.bucket, '2000-01-01 00:00:00+00') IN (
                SELECT d.day
                FROM (SELECT DISTINCT date_bin('1 day', t.bucket, '2000-01-01 00:00:00+00') AS day FROM stale AS t) AS d
                WHERE analytics_has_events(d.day)
            )
    ),
    numbered AS (
        -- What follows each other without a hole has one difference to its number.
        SELECT
            w.*,
            date_bin(w.longest, w.bucket, '2000-01-01 00:00:00+00') AS block,
            w.bucket - w.step * row_number() OVER (
                PARTITION BY w.view_name, date_bin(w.longest, w.bucket, '2000-01-01 00:00:00+00') ORDER BY w.bucket
            ) AS run
        FROM wanted AS w
    )
    SELECT n.view_name, min(n.bucket), max(n.bucket + n.step)
    FROM numbered AS n
    GROUP BY n.view_name, n.block, n.run
    ORDER BY 2, 1
    $$;

-- One key for each installation: that of its table.
CREATE FUNCTION analytics_fill_lock() RETURNS bigint
    LANGUAGE sql STABLE
    SET search_path FROM CURRENT
    AS $$ SELECT (hashtext('asgi-analytics fill')::bigint << 32) | 'analytics_events'::regclass::oid::bigint $$;

-- Sort the noted changes into the buckets to compute again, and forget those whose events are gone or will be in a day.
CREATE FUNCTION analytics_collect(all_history boolean DEFAULT false) RETURNS void
    LANGUAGE plpgsql
    SET search_path FROM CURRENT
    SET timezone = 'UTC'
    AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(analytics_fill_lock());
    -- Deleted before anything is computed: what is noted afterwards is computed again the next time.
    WITH noted AS (DELETE FROM analytics_changes RETURNING hour)
    INSERT INTO analytics_stale (view_name, bucket)
    SELECT DISTINCT f.view_name, date_bin(f.step, n.hour, '2000-01-01 00:00:00+00')
    FROM (SELECT DISTINCT hour FROM noted) AS n
    CROSS JOIN analytics_fills AS f
    ON CONFLICT DO NOTHING;
    IF all_history THEN
        RETURN;
    END IF;
    PERFORM analytics_note_gone_days();
    DELETE FROM analytics_stale AS s
    WHERE s.bucket < analytics_refreshable_from() OR s.bucket IN (
        SELECT b.bucket
        FROM analytics_gone_days AS g
        JOIN analytics_stale AS b ON b.bucket >= g.day AND b.bucket < g.day + INTERVAL '1 day'
    );
END
$$;

-- Compute the buckets of a view from `since` up to `until`, both on the edge of one; whoever else fills is waited for.
CREATE FUNCTION analytics_fill(view_name text, since timestamptz, until timestamptz) RETURNS void
    LANGUAGE plpgsql
    SET search_path FROM CURRENT
    AS $$
DECLARE
    fills analytics_fills;
BEGIN
    PERFORM pg_advisory_xact_lock(analytics_fill_lock());
    SELECT f.* INTO STRICT fills FROM analytics_fills AS f WHERE f.view_name = analytics_fill.view_name;
    DELETE FROM analytics_stale AS s
    WHERE s.view_name = fills.view_name AND s.bucket >= since AND s.bucket < until;
    EXECUTE format(
        'DELETE FROM %I WHERE %I >= $1 AND %2$I < $2', fills.view_name || '_filled', fills.bucket_column
    ) USING since, until;
    EXECUTE format('INSERT INTO %I SELECT * FROM %I($1, $2)', fills.view_name || '_filled', fills.view_name || '_live')
    USING since, until;
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

-- Fill what is pending, a range a transaction. No SET clause, for it commits: call it with the schema in search_path.
CREATE PROCEDURE analytics_fill_pending(all_history boolean DEFAULT false)
    LANGUAGE plpgsql
    AS $$
DECLARE
    windows jsonb;
    one record;
BEGIN
    PERFORM analytics_collect(all_history);
    SELECT jsonb_agg(p ORDER BY p.window_start, p.view_name) INTO windows
    FROM analytics_pending(all_history => all_history) AS p;
    COMMIT;
    FOR one IN
        SELECT * FROM jsonb_to_recordset(windows) AS w (view_name text, window_start timestamptz, window_end timestamptz)
    LOOP
        PERFORM analytics_fill(one.view_name, one.window_start, one.window_end);
        COMMIT;
    END LOOP;
END
$$;
