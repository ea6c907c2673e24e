-- Sweep daily, weekly and monthly active users out of the days of each user

-- One row for each day from `since` up to `until` that has events. Reads thirty days more than it returns: ask for a
-- range where there is much history, since a condition on the view's day is applied only after its sweep over all.
--
-- A user counts from each active day on for 1, 7 or 30 days, or until the next active day, which counts in turn. So
-- each is one in that comes and one that goes, and the number on a day is the sum of all until then: exact, in one pass.
CREATE FUNCTION analytics_active_users(since timestamptz, until timestamptz)
    RETURNS TABLE (
        day timestamptz,
        active_users bigint,
        weekly_active_users bigint,
        monthly_active_users bigint,
        total_events bigint
    )
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
    WITH spans AS (
        -- A row for each pair of a day and the end of a span that begins there: few, whatever the number of users.
        SELECT d.day, d.ends, d.user_id IS NOT NULL AS known, count(*) AS users, sum(d.events) AS events
        FROM (
            SELECT
                u.day,
                u.user_id,
                u.events,
                least(
                    u.day + INTERVAL '720 hours', lead(u.day) OVER (PARTITION BY u.user_id ORDER BY u.day)
                ) AS ends
            FROM analytics_user_days AS u
            WHERE u.day >= since - INTERVAL '720 hours' AND u.day < until
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
        SELECT s.day, 0, 0, 0, s.events FROM spans AS s WHERE NOT s.known
    ),
    sums AS (
        SELECT
            s.day,
            sum(s.daily)::bigint AS daily,
            (sum(sum(s.weekly)) OVER (ORDER BY s.day))::bigint AS weekly,
            (sum(sum(s.monthly)) OVER (ORDER BY s.day))::bigint AS monthly,
            sum(s.events)::bigint AS events
        FROM steps AS s
        GROUP BY s.day
    )
    SELECT s.day, s.daily, s.weekly, s.monthly, s.events
    FROM sums AS s
    WHERE s.events > 0 AND s.day >= since
    ORDER BY s.day;
    END;

CREATE VIEW analytics_daily_active_users AS
SELECT day, active_users, weekly_active_users, monthly_active_users, total_events
FROM analytics_active_users('-infinity', 'infinity');
