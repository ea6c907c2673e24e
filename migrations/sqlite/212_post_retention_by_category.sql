-- Go on from what an installation has dropped already

-- Until now it was known of days only: of each category rows of those days whose time is over may be gone.
UPDATE analytics_dropped
SET dropped_before = coalesce((
    SELECT strftime('%Y-%m-%dT00:00:00.000000Z', max(g.day), '+1 day')
    FROM analytics_gone_days AS g
    JOIN analytics_retention AS r ON r.category = analytics_dropped.category
    WHERE g.day < strftime('%Y-%m-%dT00:00:00.000000Z', 'now', '-' || r.keep || ' days')
), '');

-- What was kept for ever is kept for a hundred years.
UPDATE analytics_retention SET keep = 36500 WHERE keep IS NULL OR keep > 36500;
