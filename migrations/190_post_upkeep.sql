-- Keep the aggregates up to date: by a job of TimescaleDB, or by one function that the workers call every hour

-- timescaledb

-- The workers' hourly call has only the keys of visitors to forget: the policies do the rest. SECURITY DEFINER: the
-- worker calls it, and needs no right but to insert events.
CREATE FUNCTION analytics_upkeep() RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path FROM CURRENT
    AS $$
BEGIN
    PERFORM analytics_forget_visitors();
    RETURN true;
END
$$;

-- Four times a day what came late, up to where the hourly policies begin. Not by a policy of TimescaleDB, which has a
-- fixed range: it would empty the aggregate of a day whose chunk was dropped by hand. The name of the schema is written
-- into it for the reason given at analytics_fill().
DO $do$
BEGIN
    EXECUTE format(
        'CREATE PROCEDURE analytics_refresh_late(job_id integer, config jsonb) LANGUAGE plpgsql AS %L',
        format(
            $body$
DECLARE
    views text[];
    starts timestamptz[];
    ends timestamptz[];
BEGIN
    PERFORM %1$I.analytics_collect();
    -- Into arrays, because an open cursor would have to be kept over each of the commits.
    SELECT array_agg(p.view_name), array_agg(p.window_start), array_agg(p.window_end)
    INTO views, starts, ends
    FROM %1$I.analytics_pending(until => now() - INTERVAL '3 days') AS p;
    FOR i IN 1 .. coalesce(cardinality(views), 0) LOOP
        CALL %1$I.analytics_fill(views[i], starts[i], ends[i]);
    END LOOP;
END
            $body$,
            current_schema()
        )
    );
END
$do$;
SELECT add_job(
    'analytics_refresh_late', INTERVAL '6 hours', initial_start => now() + INTERVAL '25 minutes', fixed_schedule => false
);

-- postgresql

-- Fill what is pending, drop what is past the retention, make partitions. False if another process is doing it.
--
-- SECURITY DEFINER: the worker calls it, and needs no right but to insert events.
--
-- What needs a lock on the events comes last, and is given up if it does not get the lock in a moment, because every
-- writer waits behind it: the next call tries again, and the partitions are made a week ahead.
CREATE FUNCTION analytics_upkeep() RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path FROM CURRENT
    AS $$
DECLARE
    complete constant timestamptz := now() - INTERVAL '1 hour';  -- as for analytics_pending()
    one record;
BEGIN
    IF NOT pg_try_advisory_xact_lock(analytics_fill_lock()) THEN
        RETURN false;
    END IF;
    PERFORM analytics_forget_visitors();
    PERFORM analytics_collect();
    FOR one IN SELECT * FROM analytics_pending() LOOP
        CALL analytics_fill(one.view_name, one.window_start, one.window_end);
    END LOOP;
    -- Also if nothing happened, or the live tail would begin at the last event.
    UPDATE analytics_fills AS f
    SET filled_until = analytics_bucket(f.step, complete)
    WHERE f.filled_until < analytics_bucket(f.step, complete);
    PERFORM set_config('lock_timeout', '500ms', true);
    BEGIN
        PERFORM analytics_make_partitions();
        PERFORM analytics_drop_partitions();
    EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
        RAISE LOG 'asgi-analytics leaves partitions to the next hour: analytics_events is in use';
    END;
    RETURN true;
END
$$;

-- both

-- It runs with the owner's rights, so PUBLIC may not call it. Roles that may insert events today may; later ones get
-- the right from analytics-migrate roles, or by hand.
REVOKE EXECUTE ON FUNCTION analytics_upkeep() FROM PUBLIC;
DO $$
DECLARE
    writer text;
BEGIN
    FOR writer IN
        SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END
        FROM pg_class AS c, aclexplode(c.relacl) AS a
        WHERE c.oid = 'analytics_events'::regclass AND a.privilege_type = 'INSERT' AND a.grantee <> c.relowner
    LOOP
        EXECUTE 'GRANT EXECUTE ON FUNCTION analytics_upkeep() TO ' || writer;
    END LOOP;
END
$$;
