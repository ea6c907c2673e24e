-- Keep filled tables, partitions and retention up to date by one function, called every hour
-- for: postgresql

-- What runs with the owner's rights, for whoever may insert events, must not take a temporary table for one of ours:
-- pg_temp, else the first place where tables are looked for, is put last.
SELECT set_config('search_path', current_setting('search_path') || ', pg_temp', true);

-- Fill what is pending, drop what is past the retention, make partitions. False when another process is at it.
--
-- SECURITY DEFINER: the worker calls it, and needs no right but to insert events.
--
-- What needs a lock on the events comes last and is given up when it does not get it in a moment, for every writer
-- waits behind it: the next call tries again, and the partitions are made a week ahead.
CREATE FUNCTION analytics_upkeep() RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path FROM CURRENT
    AS $$
DECLARE
    -- As on TimescaleDB: an hour for stragglers, so that little is computed twice.
    complete constant timestamptz := now() - INTERVAL '1 hour';
    one record;
BEGIN
    IF NOT pg_try_advisory_xact_lock(analytics_fill_lock()) THEN
        RETURN false;
    END IF;
    PERFORM analytics_collect();
    FOR one IN SELECT * FROM analytics_pending(until => date_bin('1 hour', complete, '2000-01-01 00:00:00+00')) AS p LOOP
        PERFORM analytics_fill(one.view_name, one.window_start, one.window_end);
    END LOOP;
    -- Also where nothing happened, or the live tail would begin at the last event.
    UPDATE analytics_fills AS f
    SET filled_until = date_bin(f.step, complete, '2000-01-01 00:00:00+00')
    WHERE f.filled_until < date_bin(f.step, complete, '2000-01-01 00:00:00+00');
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
