-- What every question needs, whatever it asks.

-- settings --
-- Change settings until the end of the transaction. $1 are their names, $2 their values.
SELECT set_config(name, value, true) FROM unnest($1::text[], $2::text[]) AS s (name, value);

-- lost_rows --
-- Tell since when raw rows of the types $3, or of all if it is null, are kept, and whether any between $1 and $2 were
-- dropped: the aggregates know more than the table. A row that came late for a day whose rows are gone does not bring the
-- others back.
SELECT
    nullif(kept.since, 'infinity') AS kept_from,
    EXISTS (
        SELECT FROM analytics_type_days_filled AS u
        WHERE u.day >= date_bin('1 day', $1::timestamptz, '2000-01-01 00:00:00+00')
            AND u.day < least($2::timestamptz, kept.since)
            AND ($3::text[] IS NULL OR u.event_type = ANY ($3))
    )
    OR EXISTS (
        SELECT FROM analytics_gone_days AS g
        WHERE g.day >= date_bin('1 day', $1::timestamptz, '2000-01-01 00:00:00+00') AND g.day < $2::timestamptz
    ) AS is_lost
FROM (
    SELECT greatest(
        analytics_dropped_before($3::text[]),
        date_bin(
            '1 day',
            coalesce((SELECT min(e.timestamp) FROM analytics_events AS e), 'infinity'),
            '2000-01-01 00:00:00+00'
        )
    ) AS since
) AS kept;

-- filled_until --
-- Tell until when the aggregates of all the views $1 are computed.
SELECT analytics_filled_until(VARIADIC $1::text[]);
