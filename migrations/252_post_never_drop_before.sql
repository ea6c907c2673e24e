-- Drop no row before its time, whatever the clock or the retention was when a pass through the table began

-- both

-- Up to which midnight the time of a category's rows is over now, as far as it was said that they may be gone. While a
-- pass goes on, the clock may be set back, or the operator may keep rows for longer: what is still there stays then.
CREATE FUNCTION analytics_over() RETURNS TABLE (category text, over_before timestamptz)
    LANGUAGE sql STABLE
    SET search_path FROM CURRENT
    AS $$
    SELECT d.category, least(d.dropped_before, analytics_bucket('1 day', now() - r.keep))
    FROM analytics_dropped AS d
    JOIN analytics_retention AS r USING (category)
    $$;

-- Drop what is over in one part of the table: all of it at once where everything in it is over, else its rows of the
-- types that are, some thousands in each call. True if it did something; there may be more then.
--
-- Statements name the part itself: no other one is looked at, and on plain PostgreSQL no change is noted, for these rows
-- are forgotten, not deleted. Of columns whole batches are deleted, without taking one apart, because a batch has one
-- type only; then the rest is written anew, which gives the space back.
CREATE OR REPLACE FUNCTION analytics_drop_from(
    part text, since timestamptz, until timestamptz, is_compressed boolean
) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path FROM CURRENT
    SET timezone = 'UTC'
    AS $$
DECLARE
    most constant integer := 20000;
    one record;
    over text[] := '{}';
    stays boolean := false;
    gone bigint := 0;
    number bigint;
BEGIN
    FOR one IN
        SELECT n.event_type, o.over_before
        FROM unnest(analytics_types_in(part)) AS n (event_type)
        LEFT JOIN analytics_event_types AS t USING (event_type)
        JOIN analytics_over() AS o ON o.category = coalesce(t.category, 'interaction')
    LOOP
        IF one.over_before >= until THEN
            over := over || one.event_type;
        ELSE
            stays := true;
        END IF;
    END LOOP;
    IF NOT stays AND until <= (SELECT max(d.dropped_before) FROM analytics_dropped AS d) THEN
        PERFORM analytics_drop_part(part, since, until, over);
        RETURN true;
    END IF;
    IF is_compressed THEN  -- for a chunk that is longer than a day, of which batches have to be taken apart
        PERFORM set_config('timescaledb.max_tuples_decompressed_per_dml_transaction', '0', true);
    END IF;
    FOR one IN
        SELECT n.event_type, o.over_before
        FROM unnest(analytics_types_in(part)) AS n (event_type)
        LEFT JOIN analytics_event_types AS t USING (event_type)
        JOIN analytics_over() AS o ON o.category = coalesce(t.category, 'interaction')
        WHERE o.over_before > since
    LOOP
        IF is_compressed AND one.over_before >= until THEN
            EXECUTE format('DELETE FROM %s WHERE event_type = %L', part, one.event_type);
        ELSIF is_compressed THEN
            EXECUTE format(
                'DELETE FROM %s WHERE event_type = %L AND timestamp < %L', part, one.event_type, one.over_before
            );
        ELSE
            EXECUTE format(
                'DELETE FROM %1$s WHERE ctid = ANY (ARRAY(
                    SELECT p.ctid FROM %1$s AS p WHERE p.event_type = %2$L AND p.timestamp < %3$L LIMIT %4$s
                ))',
                part, one.event_type, one.over_before, most - gone
            );
        END IF;
        GET DIAGNOSTICS number = ROW_COUNT;
        gone := gone + number;
        EXIT WHEN gone >= most AND NOT is_compressed;
    END LOOP;
    IF is_compressed AND cardinality(over) > 0 THEN
        gone := gone + 1;  -- of batches no rows are counted
        PERFORM analytics_compact(part);
    END IF;
    RETURN gone > 0;
END
$$;

-- Do one step of dropping what is over; true if there may be more to do. Call each step in a transaction of its own.
--
-- First it says what will be dropped: up to the last midnight at which the time of a category's rows was over, but
-- nothing that an export needs, and nothing that is not in the aggregates yet. Then it goes through the parts of the
-- table. Rows that come late into parts that it went through are found by the pass of the next day.
--
-- SECURITY DEFINER: the worker calls it, and needs no right but to insert events. It waits for a lock no longer than
-- other writers may wait behind it, and tries again. A part that fails is left to the next hour, and does not keep the
-- others from being looked at.
CREATE OR REPLACE FUNCTION analytics_drop_old() RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path FROM CURRENT
    SET timezone = 'UTC'
    SET lock_timeout = '50ms'
    AS $$
DECLARE
    state analytics_drop_state;
    part record;
    bound timestamptz;
    did boolean;
    attempts integer;
BEGIN
    IF NOT pg_try_advisory_xact_lock(analytics_drop_lock()) THEN
        RETURN false;
    END IF;
    SELECT s.* INTO STRICT state FROM analytics_drop_state AS s;
    IF now() > state.seen_at + INTERVAL '7 days' THEN
        RAISE LOG 'asgi-analytics drops nothing for an hour: the clock has advanced by more than a week';
        UPDATE analytics_drop_state SET seen_at = now(), not_before = now() + INTERVAL '1 hour';
        RETURN false;
    END IF;
    IF abs(extract(epoch FROM now() - state.seen_at)) > 60 THEN
        UPDATE analytics_drop_state SET seen_at = now();
    END IF;
    IF now() < state.not_before AND state.not_before <= now() + INTERVAL '1 hour' THEN
        RETURN false;
    END IF;

    IF analytics_follow_retention() THEN
        RETURN true;
    END IF;
    IF EXISTS (
        SELECT FROM analytics_retention AS r JOIN analytics_dropped AS d USING (category)
        WHERE analytics_bucket('1 day', least(now() - r.keep, analytics_retention_floor())) > d.dropped_before
    ) THEN
        UPDATE analytics_dropped AS d
        SET dropped_before = n.cutoff
        FROM (
            SELECT
                r.category,
                analytics_bucket('1 day', least(now() - r.keep, analytics_retention_floor(), p.since)) AS cutoff
            FROM analytics_retention AS r, (SELECT min(p.window_start) AS since FROM analytics_pending() AS p) AS p
        ) AS n
        WHERE n.category = d.category AND n.cutoff > d.dropped_before;
        IF FOUND THEN
            UPDATE analytics_drop_state SET cursor = '-infinity', failed = false;
            RETURN true;
        END IF;
    END IF;

    SELECT max(d.dropped_before) INTO bound FROM analytics_dropped AS d;
    IF state.cursor >= bound AND EXISTS (
        SELECT FROM analytics_over() AS o JOIN analytics_dropped AS d USING (category)
        WHERE o.over_before > d.swept_before
    ) THEN
        UPDATE analytics_drop_state SET cursor = '-infinity', failed = false;
        RETURN true;
    END IF;
    IF state.cursor >= bound OR analytics_is_filling(bound) THEN
        RETURN false;
    END IF;
    FOR part IN
        SELECT p.* FROM analytics_event_parts() AS p
        WHERE p.since >= state.cursor AND p.since < bound
        ORDER BY p.since
        LIMIT 100
    LOOP
        did := false;
        attempts := 10;
        WHILE attempts > 0 LOOP
            BEGIN
                did := analytics_drop_from(part.name, part.since, part.until, part.is_compressed);
                attempts := 0;
            EXCEPTION
                WHEN lock_not_available OR deadlock_detected THEN
                    attempts := attempts - 1;
                    IF attempts > 0 THEN
                        PERFORM pg_sleep(0.2);
                    ELSIF state.in_use_at IS DISTINCT FROM part.since THEN
                        RAISE LOG 'asgi-analytics leaves % to the next hour: it is in use', part.name;
                        UPDATE analytics_drop_state
                        SET cursor = part.since, failed = state.failed, in_use_at = part.since;
                        RETURN false;
                    ELSE
                        state.failed := true;  -- in use for an hour: the others are not to wait for it, too
                    END IF;
                WHEN OTHERS THEN
                    RAISE WARNING 'asgi-analytics cannot drop what is over in %: %', part.name, SQLERRM;
                    state.failed := true;
                    attempts := 0;
            END;
        END LOOP;
        IF did THEN
            UPDATE analytics_drop_state SET cursor = part.since, failed = state.failed;
            RETURN true;
        END IF;
        state.cursor := part.since + INTERVAL '1 microsecond';
        IF part.since = '-infinity' THEN
            state.cursor := '2000-01-01 00:00:00+00';
        END IF;
    END LOOP;
    IF EXISTS (SELECT FROM analytics_event_parts() AS p WHERE p.since >= state.cursor AND p.since < bound) THEN
        UPDATE analytics_drop_state SET cursor = state.cursor, failed = state.failed;
        RETURN true;
    END IF;
    IF state.failed THEN
        UPDATE analytics_drop_state
        SET cursor = '-infinity', failed = false, not_before = now() + INTERVAL '50 minutes';
    ELSE
        UPDATE analytics_drop_state SET cursor = bound, failed = false;
        UPDATE analytics_dropped AS d
        SET swept_before = o.over_before
        FROM analytics_over() AS o
        WHERE o.category = d.category AND o.over_before > d.swept_before;
    END IF;
    RETURN false;
END
$$;
