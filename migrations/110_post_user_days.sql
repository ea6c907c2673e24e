-- Aggregate events by day and user, and make the daily, weekly and monthly active users of it

-- timescaledb

CREATE MATERIALIZED VIEW analytics_user_days
WITH (timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false) AS
SELECT
    time_bucket('1 day', timestamp) AS day,
    user_id,
    count(*) AS events
FROM analytics_events
GROUP BY day, user_id
WITH NO DATA;

SELECT analytics_keep_fresh('analytics_user_days');

-- To find one user's days. Without a name: the index stands in a schema that all installations share.
CREATE INDEX ON analytics_user_days (user_id, day);

-- After 100 days, when the raw events are gone: until then a refresh would have to take the columns apart again.
-- Without segments, users stay together in their order; older releases of TimescaleDB would make segments of them.
ALTER MATERIALIZED VIEW analytics_user_days SET (
    timescaledb.enable_columnstore = true,
    timescaledb.segmentby = '',
    timescaledb.orderby = 'day, user_id'
);
CALL add_columnstore_policy('analytics_user_days', after => INTERVAL '100 days');

-- postgresql

CREATE FUNCTION analytics_user_days_live(since timestamptz, until timestamptz) RETURNS TABLE (
    day timestamptz,
    user_id uuid,
    events bigint
)
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
    SELECT
        analytics_bucket('1 day', timestamp) AS day,
        user_id,
        count(*) AS events
    FROM analytics_events
    WHERE timestamp >= since AND timestamp < until
    GROUP BY day, user_id;
    END;

SELECT analytics_make_filled('analytics_user_days', '1 day');

-- To find one user's days.
CREATE INDEX analytics_user_days_filled_user_id_day_idx ON analytics_user_days_filled (user_id, day);

-- both

-- A user counts from each active day on for 1, 7 or 30 days, or until the next active day, which counts in turn. So
-- each active day is an arrival and a departure, and the number of users on a day is the sum of all arrivals less all
-- departures until then: exact, in one pass.
-- A condition on the view's day is applied after the sweep, which reads the whole of analytics_user_days. It is not a
-- function of a range, because TimescaleDB would then look up for each row where the real-time part begins.
CREATE VIEW analytics_daily_active_users AS
WITH spans AS (
    -- One row per pair of a day and the end of a span that begins there: few, whatever the number of users.
    SELECT d.day, d.ends, d.user_id IS NOT NULL AS known, count(*) AS users, sum(d.events) AS events
    FROM (
        SELECT
            u.day,
            u.user_id,
            u.events,
            least(u.day + INTERVAL '720 hours', lead(u.day) OVER (PARTITION BY u.user_id ORDER BY u.day)) AS ends
        FROM analytics_user_days AS u
    ) AS d
    GROUP BY d.day, d.ends, d.user_id IS NOT NULL
),
steps AS (
    SELECT s.day, s.users AS daily, s.users AS weekly, s.users AS monthly, s.events FROM spans AS s WHERE s.known
    UNION ALL
    SELECT least(s.day + INTERVAL '168 hours', s.ends), 0, -s.users, 0, 0 FROM spans AS s WHERE s.known
    UNION ALL
    SELECT s.ends, 0, 0, -s.users, 0 FROM spans AS s WHERE s.known
    UNION ALL
    -- Events without a user count in total_events only.
    SELECT s.day, 0, 0, 0, s.events FROM spans AS s WHERE NOT s.known
),
sums AS (
    SELECT
        s.day,
        sum(s.daily)::bigint AS active_users,
        (sum(sum(s.weekly)) OVER (ORDER BY s.day))::bigint AS weekly_active_users,
        (sum(sum(s.monthly)) OVER (ORDER BY s.day))::bigint AS monthly_active_users,
        sum(s.events)::bigint AS total_events
    FROM steps AS s
    GROUP BY s.day
)
SELECT day, active_users, weekly_active_users, monthly_active_users, total_events
FROM sums
WHERE total_events > 0;
