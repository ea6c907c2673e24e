-- Note the days whose events are gone, so that no refresh takes what comes late for all there was

-- What runs with the owner's rights, for whoever may insert events, must not take a temporary table for one of ours:
-- pg_temp, else the first place where tables are looked for, is put last.
SELECT set_config('search_path', current_setting('search_path') || ', pg_temp', true);

-- Complete days that are in the aggregates and have no event any more: dropped or deleted by hand, younger than the
-- retention. Without the note, one late event would make such a day look whole again, and its aggregates be replaced.
CREATE TABLE analytics_gone_days (day timestamptz PRIMARY KEY);

-- The first day that is refreshed: the first of the retention is left out, as it may be dropped at any moment.
CREATE FUNCTION analytics_refreshable_from() RETURNS timestamptz
    LANGUAGE sql STABLE
    SET search_path FROM CURRENT
    SET timezone = 'UTC'
    AS $$
    SELECT coalesce(
        date_bin('1 day', now() - analytics_raw_retention(), '2000-01-01 00:00:00+00') + INTERVAL '1 day',
        '2000-01-01 00:00:00+00'
    )
    $$;

-- Whether the events of a day are there, and were never gone.
CREATE FUNCTION analytics_has_events(day timestamptz) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path FROM CURRENT
    AS $$
    SELECT EXISTS (
        SELECT FROM analytics_events AS e
        WHERE e.timestamp >= analytics_has_events.day AND e.timestamp < analytics_has_events.day + INTERVAL '24 hours'
    ) AND NOT EXISTS (SELECT FROM analytics_gone_days AS g WHERE g.day = analytics_has_events.day)
    $$;

CREATE FUNCTION analytics_note_gone_days() RETURNS void
    LANGUAGE plpgsql
    SET search_path FROM CURRENT
    SET timezone = 'UTC'
    AS $$
DECLARE
    kept_from constant timestamptz := analytics_refreshable_from();
    empty timestamptz[];
BEGIN
    DELETE FROM analytics_gone_days AS g WHERE g.day < kept_from;
    SELECT array_agg(d.day) INTO empty
    FROM generate_series(
        greatest(kept_from, date_bin('1 day', now() - INTERVAL '3 years', '2000-01-01 00:00:00+00')),
        now() - INTERVAL '1 day',
        INTERVAL '1 day'
    ) AS d (day)
    WHERE NOT analytics_has_events(d.day);
    IF empty IS NOT NULL THEN
        INSERT INTO analytics_gone_days (day)
        SELECT DISTINCT u.day FROM analytics_user_days AS u WHERE u.day = ANY (empty)
        ON CONFLICT DO NOTHING;
    END IF;
END
$$;
