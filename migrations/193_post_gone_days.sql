-- Take no day for gone whose first events arrive while its absence is noted

-- both

-- Which days are not stored, and which of them the aggregates know, is asked in one statement, so that both are of one
-- moment: of a day whose first events were committed in between, the view would know what was not stored a moment ago.
CREATE OR REPLACE FUNCTION analytics_note_gone_days() RETURNS void
    LANGUAGE plpgsql
    SET search_path FROM CURRENT
    SET timezone = 'UTC'
    AS $$
DECLARE
    kept_from constant timestamptz := analytics_refreshable_from();
BEGIN
    DELETE FROM analytics_gone_days AS g WHERE g.day < kept_from;
    WITH missing AS MATERIALIZED (
        SELECT d.day
        FROM generate_series(
            greatest(kept_from, analytics_bucket('1 day', now() - INTERVAL '3 years')),
            now() - INTERVAL '1 day',
            INTERVAL '1 day'
        ) AS d (day)
        EXCEPT
        SELECT analytics_stored_days()
    )
    INSERT INTO analytics_gone_days (day)
    SELECT DISTINCT u.day
    FROM analytics_user_days AS u
    WHERE EXISTS (SELECT FROM missing) AND u.day = ANY (ARRAY(SELECT m.day FROM missing AS m))
    ON CONFLICT DO NOTHING;
END
$$;
