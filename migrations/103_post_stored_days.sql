-- Tell the days whose events are all there: only these are computed again, because aggregates outlive events

-- timescaledb

-- The first day that may be computed again. Not one that may be dropped within the hour: its aggregate would be emptied.
CREATE FUNCTION analytics_refreshable_from() RETURNS timestamptz
    LANGUAGE sql STABLE
    SET search_path FROM CURRENT
    AS $$
    SELECT coalesce(
        analytics_bucket('1 day', now() + INTERVAL '1 hour' - analytics_raw_retention()), '2000-01-01 00:00:00+00'
    )
    $$;

-- The days that have a chunk. A DELETE leaves the chunk, even if it is empty then; to drop chunks is to forget raw
-- events, and the aggregates are kept.
CREATE FUNCTION analytics_stored_days() RETURNS SETOF timestamptz
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
        AND c.range_end > (SELECT analytics_refreshable_from())
        AND c.range_start < now()
    $$;

-- postgresql

-- The first day that may be computed again. Partitions are dropped by the upkeep alone, after everything is filled: a
-- day that still has one is whole, however old.
CREATE FUNCTION analytics_refreshable_from() RETURNS timestamptz
    LANGUAGE sql STABLE
    SET search_path FROM CURRENT
    AS $$
    SELECT least(
        coalesce(analytics_bucket('1 day', now() - analytics_raw_retention()), '2000-01-01 00:00:00+00'),
        (SELECT min(p.day) FROM analytics_partitions() AS p)
    )
    $$;

-- The days that have events, or had some until a DELETE: then they are noted as changed, which to drop or truncate a
-- partition does not do. To drop partitions is to forget raw events, and the aggregates are kept.
CREATE FUNCTION analytics_stored_days() RETURNS SETOF timestamptz
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
    WHERE e.timestamp >= (SELECT analytics_refreshable_from()) AND e.timestamp < now()
    $$;

-- both

-- Days that are in the aggregates and no longer stored, although they are younger than the retention. Without the note,
-- one late event would make such a day look whole again, and its aggregates would be replaced.
CREATE TABLE analytics_gone_days (day timestamptz PRIMARY KEY);

CREATE FUNCTION analytics_note_gone_days() RETURNS void
    LANGUAGE plpgsql
    SET search_path FROM CURRENT
    SET timezone = 'UTC'
    AS $$
DECLARE
    kept_from constant timestamptz := analytics_refreshable_from();
    missing timestamptz[];
BEGIN
    DELETE FROM analytics_gone_days AS g WHERE g.day < kept_from;
    SELECT array_agg(m.day) INTO missing
    FROM (
        SELECT d.day
        FROM generate_series(
            greatest(kept_from, analytics_bucket('1 day', now() - INTERVAL '3 years')),
            now() - INTERVAL '1 day',
            INTERVAL '1 day'
        ) AS d (day)
        EXCEPT
        SELECT analytics_stored_days()
    ) AS m;
    IF missing IS NOT NULL THEN
        INSERT INTO analytics_gone_days (day)
        SELECT DISTINCT u.day FROM analytics_user_days AS u WHERE u.day = ANY (missing)
        ON CONFLICT DO NOTHING;
    END IF;
END
$$;

-- The days whose aggregates may be computed again, because all of their events are there.
CREATE FUNCTION analytics_refreshable_days() RETURNS SETOF timestamptz
    LANGUAGE sql STABLE
    SET search_path FROM CURRENT
    AS $$
    SELECT s.day
    FROM analytics_stored_days() AS s (day)
    WHERE s.day >= (SELECT analytics_refreshable_from())
        AND NOT EXISTS (SELECT FROM analytics_gone_days AS g WHERE g.day = s.day)
    $$;
