-- Drop raw events category by category, each when its time is over, instead of all of them after 90 days

-- both

-- An installation whose retention was changed goes on with it, for every category: nothing is dropped sooner than its
-- operator said, and nothing kept longer. One that kept events for ever keeps them for a hundred years.
DO $$
DECLARE
    before constant interval := analytics_raw_retention();
BEGIN
    IF before IS DISTINCT FROM INTERVAL '90 days' THEN
        UPDATE analytics_retention
        SET keep = CASE WHEN before IS NULL THEN INTERVAL '36500 days' ELSE greatest(before, INTERVAL '1 day') END;
    END IF;
END
$$;

-- Of days that the old retention has dropped the aggregates must not be computed again. Without any such day nothing was
-- dropped, and what is loaded now, of last year perhaps, is aggregated before anything of it is dropped.
UPDATE analytics_dropped AS d
SET dropped_before = b.cutoff
FROM (SELECT analytics_bucket('1 day', now() - analytics_raw_retention()) AS cutoff) AS b
WHERE EXISTS (
    SELECT FROM (SELECT DISTINCT f.day FROM analytics_user_days_filled AS f) AS u
    WHERE u.day < b.cutoff AND NOT EXISTS (
        SELECT FROM analytics_events AS e WHERE e.timestamp >= u.day AND e.timestamp < u.day + INTERVAL '24 hours'
    )
);

-- For how long the raw rows of all categories are kept: as long as those that are kept for the shortest time.
CREATE OR REPLACE FUNCTION analytics_raw_retention() RETURNS interval
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path FROM CURRENT
    AS $$ SELECT min(r.keep) FROM analytics_retention AS r $$;

-- Rows that happened at this moment or later are not dropped, however old, because something else still needs them.
-- Null: nothing does.
CREATE FUNCTION analytics_retention_floor() RETURNS timestamptz
    LANGUAGE sql STABLE
    SET search_path FROM CURRENT
    AS $$ SELECT NULL::timestamptz $$;

-- Rows of these types that happened before this moment may be gone; of any type, if it is null.
CREATE FUNCTION analytics_dropped_before(types text[] DEFAULT NULL) RETURNS timestamptz
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path FROM CURRENT
    AS $$
    SELECT max(greatest(d.dropped_before, t.dropped_before))
    FROM unnest(types) AS n (event_type)
    LEFT JOIN analytics_event_types AS t USING (event_type)
    JOIN analytics_dropped AS d ON d.category = coalesce(t.category, 'interaction')
    HAVING types IS NOT NULL
    UNION ALL
    SELECT max(d.dropped_before) FROM analytics_dropped AS d HAVING types IS NULL
    $$;

-- The first day whose aggregates may be computed again: since then no row of any category was dropped.
CREATE OR REPLACE FUNCTION analytics_refreshable_from() RETURNS timestamptz
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path FROM CURRENT
    AS $$ SELECT greatest(max(d.dropped_before), '2000-01-01 00:00:00+00') FROM analytics_dropped AS d $$;

-- Which days are not stored, although the aggregates know rows of them whose time is not over. It asks in one statement,
-- so that both are of one moment.
CREATE OR REPLACE FUNCTION analytics_note_gone_days() RETURNS void
    LANGUAGE plpgsql
    SET search_path FROM CURRENT
    SET timezone = 'UTC'
    AS $$
DECLARE
    kept_from constant timestamptz := (
        SELECT greatest(min(d.dropped_before), '2000-01-01 00:00:00+00') FROM analytics_dropped AS d
    );
BEGIN
    DELETE FROM analytics_gone_days AS g WHERE g.day < kept_from;
    WITH missing AS MATERIALIZED (
        SELECT d.day
        FROM generate_series(
            greatest(kept_from, analytics_bucket('1 day', now() - INTERVAL '8 years')),
            now() - INTERVAL '1 day',
            INTERVAL '1 day'
        ) AS d (day)
        EXCEPT
        SELECT analytics_stored_days()
    )
    INSERT INTO analytics_gone_days (day)
    SELECT DISTINCT u.day
    FROM analytics_type_days AS u
    LEFT JOIN analytics_event_types AS t USING (event_type)
    JOIN analytics_dropped AS d ON d.category = coalesce(t.category, 'interaction')
    WHERE EXISTS (SELECT FROM missing)
        AND u.day = ANY (ARRAY(SELECT m.day FROM missing AS m))
        AND u.day >= greatest(d.dropped_before, t.dropped_before)
    ON CONFLICT DO NOTHING;
END
$$;

-- What is due: whole days of which rows are still there although their time is over, as the aggregates count them.
-- `due_since`: when the time of the first of these days was over. SECURITY DEFINER: a reader may ask, too.
CREATE FUNCTION analytics_due() RETURNS TABLE (
    category text, keep interval, days bigint, events bigint, due_since timestamptz
)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path FROM CURRENT
    SET timezone = 'UTC'
    AS $$
    SELECT r.category, r.keep, count(DISTINCT u.day), sum(u.events)::bigint, min(u.day) + INTERVAL '1 day' + r.keep
    FROM analytics_retention AS r
    JOIN analytics_dropped AS d USING (category)
    JOIN (
        SELECT y.day, y.events, coalesce(t.category, 'interaction') AS category
        FROM analytics_type_days AS y
        LEFT JOIN analytics_event_types AS t USING (event_type)
    ) AS u ON u.category = r.category
        AND u.day >= d.swept_before AND u.day < analytics_bucket('1 day', now() - r.keep)
    GROUP BY r.category, r.keep
    ORDER BY 5, 1
    $$;

-- Where a pass through all parts of the table is: what is before `cursor` was looked at. `in_use_at`: the part there was
-- in use. `failed`: some part was left to the next pass, which begins at `not_before`.
--
-- `seen_at` is when somebody last looked at the clock. If it is more than a week later now, either nobody has dropped
-- anything for a week, or the clock is wrong: until `not_before`, an hour later, nothing is dropped, so that it can be
-- set right. `has_policies`: see analytics_follow_retention().
CREATE TABLE analytics_drop_state (
    cursor timestamptz NOT NULL DEFAULT 'infinity',
    failed boolean NOT NULL DEFAULT false,
    in_use_at timestamptz,
    seen_at timestamptz NOT NULL DEFAULT now(),
    not_before timestamptz NOT NULL DEFAULT '-infinity',
    has_policies boolean NOT NULL DEFAULT true
);
INSERT INTO analytics_drop_state DEFAULT VALUES;

CREATE FUNCTION analytics_drop_lock() RETURNS bigint
    LANGUAGE sql STABLE
    SET search_path FROM CURRENT
    AS $$ SELECT (hashtext('asgi-analytics drop')::bigint << 32) | 'analytics_events'::regclass::oid::bigint $$;

-- The types that a part of the table has rows of, found by jumps through an index, in columns too.
CREATE FUNCTION analytics_types_in(part text) RETURNS text[]
    LANGUAGE plpgsql STABLE
    SET search_path FROM CURRENT
    AS $$
DECLARE
    found text[];
BEGIN
    EXECUTE format(
        'WITH RECURSIVE type AS (
            (SELECT p.event_type FROM %1$s AS p ORDER BY p.event_type LIMIT 1)
            UNION ALL
            SELECT (
                SELECT p.event_type FROM %1$s AS p WHERE p.event_type > t.event_type ORDER BY p.event_type LIMIT 1
            )
            FROM type AS t
            WHERE t.event_type IS NOT NULL
        )
        SELECT array_agg(t.event_type) FROM type AS t WHERE t.event_type IS NOT NULL',
        part
    ) INTO found;
    RETURN coalesce(found, '{}');
END
$$;

-- timescaledb

DO $$
BEGIN
    PERFORM remove_retention_policy('analytics_events', if_exists => true);
END
$$;

-- The days that have a chunk. A DELETE leaves the chunk, even if it is empty then; to drop chunks is to forget raw
-- events, and the aggregates are kept.
CREATE OR REPLACE FUNCTION analytics_stored_days() RETURNS SETOF timestamptz
    LANGUAGE sql STABLE
    SET search_path FROM CURRENT
    SET timezone = 'UTC'
    AS $$
    SELECT DISTINCT d.day
    FROM timescaledb_information.chunks AS c
    CROSS JOIN generate_series(
        analytics_bucket('1 day', c.range_start), c.range_end - INTERVAL '1 microsecond', INTERVAL '1 day'
    ) AS d (day)
    WHERE c.hypertable_schema = current_schema()
        AND c.hypertable_name = 'analytics_events'
        AND c.range_start < now()
    $$;

-- The parts of the table: its chunks.
CREATE FUNCTION analytics_event_parts() RETURNS TABLE (
    name text, since timestamptz, until timestamptz, is_compressed boolean
)
    LANGUAGE sql STABLE
    SET search_path FROM CURRENT
    AS $$
    SELECT format('%I.%I', c.chunk_schema, c.chunk_name), c.range_start, c.range_end, c.is_compressed
    FROM timescaledb_information.chunks AS c
    WHERE c.hypertable_schema = current_schema() AND c.hypertable_name = 'analytics_events'
    $$;

-- What is being computed. A refresh has transactions of its own and reads the events in a later one: of days that it is
-- at nothing may be dropped. It notes this, and looks at what was dropped afterwards; who drops does it the other way
-- round. So one of them sees the other.
CREATE TABLE analytics_refreshes (
    pid integer NOT NULL,
    since timestamptz NOT NULL,
    noted_at timestamptz NOT NULL DEFAULT now()
);

-- The name of the schema is written into it for the reason given at the first analytics_fill().
DO $do$
BEGIN
    EXECUTE format(
        'CREATE OR REPLACE PROCEDURE analytics_fill_aggregate(view_name text, since timestamptz, until timestamptz) '
        'LANGUAGE plpgsql AS %L',
        format(
            $body$
DECLARE
    first timestamptz;
BEGIN
    INSERT INTO %1$I.analytics_refreshes (pid, since) VALUES (pg_backend_pid(), analytics_fill_aggregate.since);
    COMMIT;
    first := greatest(analytics_fill_aggregate.since, %1$I.analytics_refreshable_from());
    IF first < until THEN
        CALL %2$I.refresh_continuous_aggregate(format('%%I.%%I', %3$L, view_name)::regclass, first, until);
    END IF;
    DELETE FROM %1$I.analytics_refreshes AS r WHERE r.pid = pg_backend_pid();
END
            $body$,
            current_schema(),
            (
                SELECT n.nspname
                FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace
                WHERE e.extname = 'timescaledb'
            ),
            current_schema()
        )
    );
END
$do$;

-- The refresh policies compute the last 3 days again, whatever was dropped of them. While rows are kept for less than 4
-- days there are none, and the hourly job of sessions does their work. True if it changed something.
CREATE FUNCTION analytics_follow_retention() RETURNS boolean
    LANGUAGE plpgsql
    SET search_path FROM CURRENT
    AS $$
DECLARE
    has constant boolean := (SELECT s.has_policies FROM analytics_drop_state AS s);
    wants constant boolean := analytics_raw_retention() >= INTERVAL '4 days' AND (
        has OR analytics_refreshable_from() < now() - INTERVAL '4 days'
    );
    one record;
BEGIN
    IF has = wants THEN
        RETURN false;
    END IF;
    FOR one IN
        SELECT format('%I', c.view_name)::regclass AS view
        FROM timescaledb_information.continuous_aggregates AS c
        WHERE c.view_schema = current_schema() AND c.hypertable_schema = current_schema()
            AND c.hypertable_name = 'analytics_events' AND c.view_name <> 'analytics_session_parts_filled'
    LOOP
        IF wants THEN
            PERFORM add_continuous_aggregate_policy(
                one.view,
                start_offset => INTERVAL '3 days',
                end_offset => INTERVAL '1 hour',
                schedule_interval => INTERVAL '1 hour',
                initial_start => now() + INTERVAL '1 hour',
                if_not_exists => true
            );
        ELSE
            PERFORM remove_continuous_aggregate_policy(one.view, if_exists => true);
        END IF;
    END LOOP;
    UPDATE analytics_drop_state SET has_policies = wants;
    RETURN true;
END
$$;

-- What the refresh policies do for the other aggregates: every hour what changed, but for the hour of stragglers; and
-- for those too, while there are no policies.
DO $do$
BEGIN
    EXECUTE format(
        'CREATE OR REPLACE PROCEDURE analytics_refresh_sessions(job_id integer, config jsonb) LANGUAGE plpgsql AS %L',
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
    FROM %1$I.analytics_pending() AS p
    WHERE p.view_name = 'analytics_session_parts_filled'
        OR NOT (SELECT s.has_policies FROM %1$I.analytics_drop_state AS s);
    FOR i IN 1 .. coalesce(cardinality(starts), 0) LOOP
        CALL %1$I.analytics_fill(views[i], starts[i], ends[i]);
    END LOOP;
END
            $body$,
            current_schema()
        )
    );
END
$do$;

-- Whether somebody computes aggregates of days before `until`. What died at it is forgotten.
CREATE FUNCTION analytics_is_filling(until timestamptz) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path FROM CURRENT
    AS $$
BEGIN
    DELETE FROM analytics_refreshes AS r
    WHERE r.noted_at < now() - INTERVAL '1 day' OR NOT EXISTS (SELECT FROM pg_stat_activity AS a WHERE a.pid = r.pid);
    RETURN EXISTS (SELECT FROM analytics_refreshes AS r WHERE r.since < analytics_is_filling.until);
END
$$;

-- Drop a part as a whole, unless a row has come meanwhile that is to be kept. Raises lock_not_available if it is in use.
CREATE FUNCTION analytics_drop_part(part text, since timestamptz, until timestamptz, types text[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path FROM CURRENT
    AS $$
BEGIN
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', part);
    IF analytics_types_in(part) <@ types THEN
        PERFORM drop_chunks('analytics_events', older_than => until, newer_than => since);
    END IF;
END
$$;

-- postgresql

-- The days that have events, or had some until a DELETE: then they are noted as changed, which to drop or truncate a
-- partition does not do. To drop partitions is to forget raw events, and the aggregates are kept.
CREATE OR REPLACE FUNCTION analytics_stored_days() RETURNS SETOF timestamptz
    LANGUAGE sql STABLE
    SET search_path FROM CURRENT
    SET timezone = 'UTC'
    AS $$
    SELECT p.day
    FROM analytics_partitions() AS p
    WHERE EXISTS (
        SELECT FROM analytics_events AS e WHERE e.timestamp >= p.day AND e.timestamp < p.day + INTERVAL '1 day'
    ) OR p.day IN (SELECT analytics_bucket('1 day', b.bucket) FROM analytics_behind() AS b)
    UNION
    SELECT analytics_bucket('1 day', e.timestamp)
    FROM analytics_events_default AS e
    WHERE e.timestamp >= (SELECT min(d.dropped_before) FROM analytics_dropped AS d) AND e.timestamp < now()
    $$;

-- The parts of the table: its partitions, and the default one, which has no range of its own.
CREATE FUNCTION analytics_event_parts() RETURNS TABLE (
    name text, since timestamptz, until timestamptz, is_compressed boolean
)
    LANGUAGE sql STABLE
    SET search_path FROM CURRENT
    SET timezone = 'UTC'
    AS $$
    SELECT 'analytics_events_default', '-infinity'::timestamptz, 'infinity'::timestamptz, false
    UNION ALL
    SELECT p.partition::text, p.day, p.day + INTERVAL '1 day', false FROM analytics_partitions() AS p
    $$;

CREATE FUNCTION analytics_follow_retention() RETURNS boolean
    LANGUAGE sql IMMUTABLE
    RETURN false;

-- Whether somebody computes aggregates. If not, nobody begins to until the end of the transaction.
CREATE FUNCTION analytics_is_filling(until timestamptz) RETURNS boolean
    LANGUAGE sql
    SET search_path FROM CURRENT
    AS $$ SELECT NOT pg_try_advisory_xact_lock(analytics_fill_lock()) $$;

-- Drop a part as a whole, unless a row has come meanwhile that is to be kept. Raises lock_not_available if the events
-- are in use: writers wait behind it, and choose another partition afterwards.
CREATE FUNCTION analytics_drop_part(part text, since timestamptz, until timestamptz, types text[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path FROM CURRENT
    AS $$
BEGIN
    LOCK TABLE ONLY analytics_events IN ACCESS EXCLUSIVE MODE;
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', part);
    IF analytics_types_in(part) <@ types THEN
        EXECUTE format('DROP TABLE %s', part);
    END IF;
END
$$;

-- As before, but of days of which rows were dropped it computes nothing again, whatever the retention is now.
CREATE OR REPLACE PROCEDURE analytics_fill_aggregate(view_name text, since timestamptz, until timestamptz)
    LANGUAGE plpgsql
    SET search_path FROM CURRENT
    AS $$
DECLARE
    fills analytics_fills;
    first timestamptz;
BEGIN
    PERFORM pg_advisory_xact_lock(analytics_fill_lock());
    -- Rows may have been dropped since the range was pending; under the lock none are.
    first := greatest(since, analytics_refreshable_from());
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

-- both

-- Drop what is over in one part of the table: all of it at once where everything in it is over, else its rows of the
-- types that are, some thousands in each call. True if it did something; there may be more then.
--
-- Statements name the part itself: no other one is looked at, and on plain PostgreSQL no change is noted, for these rows
-- are forgotten, not deleted. Of columns whole batches are deleted, without taking one apart, because a batch has one
-- type only; then the rest is written anew, which gives the space back.
CREATE FUNCTION analytics_drop_from(
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
        SELECT n.event_type, d.dropped_before
        FROM unnest(analytics_types_in(part)) AS n (event_type)
        LEFT JOIN analytics_event_types AS t USING (event_type)
        JOIN analytics_dropped AS d ON d.category = coalesce(t.category, 'interaction')
    LOOP
        IF one.dropped_before >= until THEN
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
        SELECT n.event_type, d.dropped_before
        FROM unnest(analytics_types_in(part)) AS n (event_type)
        LEFT JOIN analytics_event_types AS t USING (event_type)
        JOIN analytics_dropped AS d ON d.category = coalesce(t.category, 'interaction')
        WHERE d.dropped_before > since
    LOOP
        IF is_compressed AND one.dropped_before >= until THEN
            EXECUTE format('DELETE FROM %s WHERE event_type = %L', part, one.event_type);
        ELSIF is_compressed THEN
            EXECUTE format(
                'DELETE FROM %s WHERE event_type = %L AND timestamp < %L', part, one.event_type, one.dropped_before
            );
        ELSE
            EXECUTE format(
                'DELETE FROM %1$s WHERE ctid = ANY (ARRAY(
                    SELECT p.ctid FROM %1$s AS p WHERE p.event_type = %2$L AND p.timestamp < %3$L LIMIT %4$s
                ))',
                part, one.event_type, one.dropped_before, most - gone
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
CREATE FUNCTION analytics_drop_old() RETURNS boolean
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
        UPDATE analytics_dropped SET swept_before = dropped_before WHERE swept_before < dropped_before;
    END IF;
    RETURN false;
END
$$;

-- timescaledb

-- Write the columns of a chunk anew, which gives back what deleted batches took.
CREATE FUNCTION analytics_compact(part text) RETURNS void
    LANGUAGE plpgsql
    SET search_path FROM CURRENT
    AS $$
BEGIN
    PERFORM compress_chunk(part::regclass, recompress => true);
EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
    RAISE LOG 'asgi-analytics does not give back the space of %: it is in use', part;
END
$$;

-- As before, and one step of dropping what is over; the worker calls for the other steps.
CREATE OR REPLACE FUNCTION analytics_upkeep() RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path FROM CURRENT
    AS $$
BEGIN
    PERFORM analytics_forget_visitors();
    DELETE FROM analytics_metrics_realtime AS r WHERE r.expires_at <= now();
    PERFORM analytics_fill_metrics();
    PERFORM analytics_drop_metric_chunks();
    PERFORM analytics_drop_old();
    RETURN true;
END
$$;

-- All steps, every hour, also where no worker runs. The name of the schema is written into it, because a procedure with
-- a SET clause cannot commit.
DO $do$
BEGIN
    EXECUTE format(
        'CREATE PROCEDURE analytics_drop_all_old(job_id integer, config jsonb) LANGUAGE plpgsql AS %L',
        format(
            $body$
BEGIN
    WHILE %1$I.analytics_drop_old() LOOP
        COMMIT;
    END LOOP;
END
            $body$,
            current_schema()
        )
    );
END
$do$;
SELECT add_job(
    'analytics_drop_all_old', INTERVAL '1 hour', initial_start => now() + INTERVAL '50 minutes', fixed_schedule => false
);

-- postgresql

-- Partitions are read and dropped as they are.
CREATE FUNCTION analytics_compact(part text) RETURNS void
    LANGUAGE sql
    RETURN NULL;

DROP FUNCTION analytics_drop_partitions();

-- As before, with one step of dropping what is over instead of all old partitions; the worker calls for the other steps.
CREATE OR REPLACE FUNCTION analytics_upkeep() RETURNS boolean
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
    DELETE FROM analytics_metrics_realtime AS r WHERE r.expires_at <= now();
    PERFORM analytics_fill_metrics();
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
    EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
        RAISE LOG 'asgi-analytics leaves partitions to the next hour: analytics_events is in use';
    END;
    PERFORM analytics_drop_old();
    RETURN true;
END
$$;

-- both

-- It runs with the owner's rights, so PUBLIC may not call it. Who may do the upkeep today may do this.
REVOKE EXECUTE ON FUNCTION analytics_drop_old() FROM PUBLIC;
DO $$
DECLARE
    writer text;
BEGIN
    FOR writer IN
        SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END
        FROM pg_proc AS p, aclexplode(p.proacl) AS a
        WHERE p.oid = 'analytics_upkeep()'::regprocedure AND a.privilege_type = 'EXECUTE' AND a.grantee <> p.proowner
    LOOP
        EXECUTE 'GRANT EXECUTE ON FUNCTION analytics_drop_old() TO ' || writer;
    END LOOP;
END
$$;
