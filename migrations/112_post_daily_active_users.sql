-- Sweep daily, weekly and monthly active users out of the days of each user

-- A user counts from each active day on for 1, 7 or 30 days, or until the next active day, which counts in turn. So
-- each is one in that comes and one that goes, and the number on a day is the sum of all until then: exact, in one pass.
-- A condition on the view's day is applied after the sweep, which reads the whole of analytics_user_days: no function
-- with a range around it, for TimescaleDB would then look up for each row anew where the real-time part begins.
CREATE VIEW analytics_daily_active_users AS
WITH spans AS (
    -- A row for each pair of a day and the end of a span that begins there: few, whatever the number of users.
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
    -- The events of nobody, which are in total_events all the same.
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
