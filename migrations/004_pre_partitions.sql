-- Make one partition of events per day: those of the retention, today's, and a week ahead

-- postgresql

-- Every day that has a partition.
CREATE FUNCTION analytics_partitions() RETURNS TABLE (day timestamptz, partition regclass)
    LANGUAGE sql STABLE
    SET search_path FROM CURRENT
    AS $$
    SELECT to_date(right(c.relname, 8), 'YYYYMMDD')::timestamp AT TIME ZONE 'UTC', c.oid::regclass
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'analytics_events'::regclass AND c.relname ~ '^analytics_events_[0-9]{8}$'
    $$;

-- Make the missing partitions up to a week ahead, and move into them what waits in the default one; return how many.
--
-- Only days after the newest partition are made: a hole is a day that was dropped, and a late event must not make it
-- look whole again. The first time, the days of the whole retention are made, so that late events and a backfill find
-- their partition, and the default one stays nearly empty.
CREATE FUNCTION analytics_make_partitions() RETURNS integer
    LANGUAGE plpgsql
    SET search_path FROM CURRENT
    SET timezone = 'UTC'
    AS $$
DECLARE
    today constant date := (now() AT TIME ZONE 'UTC')::date;
    newest date;
    missing date[];
    one date;
    name text;
BEGIN
    SELECT max(p.day) INTO newest FROM analytics_partitions() p;
    SELECT array_agg(d::date ORDER BY d) INTO missing
    FROM generate_series(
        coalesce(newest + 1, today - coalesce(analytics_raw_retention(), INTERVAL '90 days')), today + 7, INTERVAL '1 day'
    ) AS d;
    IF missing IS NULL THEN
        RETURN 0;
    END IF;
    -- Writers wait here, on the parent, and choose the partition afterwards. A writer that had already chosen the
    -- default partition would fail, since that no longer takes those rows (23514).
    LOCK TABLE analytics_events IN SHARE ROW EXCLUSIVE MODE;
    FOREACH one IN ARRAY missing LOOP
        name := 'analytics_events_' || to_char(one, 'YYYYMMDD');
        EXECUTE format('CREATE TABLE %I (LIKE analytics_events INCLUDING ALL)', name);
        EXECUTE format(
            'WITH moved AS (
                DELETE FROM analytics_events_default WHERE timestamp >= %L AND timestamp < %L RETURNING *
            ) INSERT INTO %I SELECT * FROM moved',
            one::timestamptz, (one + 1)::timestamptz, name
        );
        EXECUTE format(
            'ALTER TABLE analytics_events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
            name, one::timestamptz, (one + 1)::timestamptz
        );
    END LOOP;
    RETURN cardinality(missing);
END
$$;

-- Drop the partitions that are past their retention, and what is as old in the default one; return how many.
CREATE FUNCTION analytics_drop_partitions() RETURNS integer
    LANGUAGE plpgsql
    SET search_path FROM CURRENT
    SET timezone = 'UTC'
    AS $$
DECLARE
    kept_from constant timestamptz := analytics_bucket('1 day', now() - analytics_raw_retention());
    old record;
    dropped integer := 0;
BEGIN
    DELETE FROM analytics_events_default WHERE timestamp < kept_from;
    FOR old IN SELECT p.partition FROM analytics_partitions() p WHERE p.day < kept_from ORDER BY p.day LOOP
        EXECUTE format('DROP TABLE %s', old.partition);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END
$$;

SELECT analytics_make_partitions();
