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
    WITH user_days AS (
        SELECT d.day, d.user_id, d.events
        FROM analytics_user_days AS d
        WHERE d.day >= since - INTERVAL '720 hours' AND d.day < until
    ),
    spans AS (
        SELECT
            u.day,
            u.day + INTERVAL '168 hours' AS week_ends,
            u.day + INTERVAL '720 hours' AS month_ends,
            lead(u.day) OVER (PARTITION BY u.user_id ORDER BY u.day) AS next_day
        FROM user_days AS u
        WHERE u.user_id IS NOT NULL
    ),
    steps AS (
        SELECT s.day, count(*) AS daily, count(*) AS weekly, count(*) AS monthly FROM spans AS s GROUP BY s.day
        UNION ALL
        SELECT least(s.week_ends, s.next_day), 0, -count(*), 0 FROM spans AS s GROUP BY 1
        UNION ALL
        SELECT least(s.month_ends, s.next_day), 0, 0, -count(*) FROM spans AS s GROUP BY 1
        UNION ALL
        -- So that a day with events of nobody is there as well.
        SELECT u.day, 0, 0, 0 FROM user_days AS u GROUP BY u.day
    ),
    sums AS (
        SELECT
            s.day,
            sum(s.daily)::bigint AS daily,
            (sum(sum(s.weekly)) OVER (ORDER BY s.day))::bigint AS weekly,
            (sum(sum(s.monthly)) OVER (ORDER BY s.day))::bigint AS monthly
        FROM steps AS s
        GROUP BY s.day
    ),
    totals AS (
        SELECT u.day, sum(u.events)::bigint AS events FROM user_days AS u GROUP BY u.day
    )
    SELECT s.day, s.daily, s.weekly, s.monthly, t.events
    FROM sums AS s
    JOIN totals AS t ON t.day = s.day
    WHERE s.day >= since
    ORDER BY s.day;
    END;

CREATE VIEW analytics_daily_active_users AS
SELECT day, active_users, weekly_active_users, monthly_active_users, total_events
FROM analytics_active_users('-infinity', 'infinity');
