-- Aggregate events by day and user, for the daily, weekly and monthly active users
-- for: postgresql
CREATE TABLE analytics_user_days_filled (
    day timestamptz NOT NULL,
    user_id uuid,
    events bigint NOT NULL
);
CREATE INDEX analytics_user_days_filled_day_idx ON analytics_user_days_filled (day);

CREATE FUNCTION analytics_user_days_live(since timestamptz, until timestamptz)
    RETURNS SETOF analytics_user_days_filled
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
    SELECT
        date_bin('1 day', timestamp, '2000-01-01 00:00:00+00') AS day,
        user_id,
        count(*) AS events
    FROM analytics_events
    WHERE timestamp >= since AND timestamp < until
    GROUP BY day, user_id;
    END;

INSERT INTO analytics_fills (view_name, bucket_column, step)
VALUES ('analytics_user_days', 'day', '1 day');

CREATE VIEW analytics_user_days AS
SELECT filled.*
FROM analytics_user_days_filled AS filled
WHERE filled.day < (SELECT filled_until FROM analytics_fills WHERE view_name = 'analytics_user_days')
UNION ALL
SELECT live.*
FROM analytics_fills AS fills, analytics_user_days_live(fills.filled_until, 'infinity') AS live
WHERE fills.view_name = 'analytics_user_days';
