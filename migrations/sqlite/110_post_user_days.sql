-- Aggregate events by day and user, and make the daily, weekly and monthly active users of it

INSERT INTO analytics_fills (view_name, bucket_column, step) VALUES ('analytics_user_days', 'day', 'day');

CREATE VIEW analytics_user_days_live AS
SELECT e.day, e.user_id, count(*) AS events
FROM analytics_event_facts AS e
WHERE e.timestamp >= (SELECT f.live_since FROM analytics_fills AS f WHERE f.view_name = 'analytics_user_days')
    AND e.timestamp < (SELECT f.live_until FROM analytics_fills AS f WHERE f.view_name = 'analytics_user_days')
GROUP BY e.day, e.user_id;

CREATE TABLE analytics_user_days_filled (
    day TEXT NOT NULL,
    user_id TEXT,
    events INTEGER NOT NULL
);
-- None by user: nothing but erasing a person looks for one, and users are all over such an index, so that each fill would
-- write most of it again.
CREATE INDEX analytics_user_days_filled_day_idx ON analytics_user_days_filled (day);

CREATE VIEW analytics_user_days AS
SELECT
    filled.day, filled.user_id, filled.events
FROM analytics_user_days_filled AS filled
WHERE filled.day < (SELECT f.filled_until FROM analytics_fills AS f WHERE f.view_name = 'analytics_user_days')
UNION ALL
SELECT
    live.day, live.user_id, live.events
FROM analytics_user_days_live AS live;

-- A user counts from each active day on for 1, 7 or 30 days, or until the next active day, which counts in turn. So
-- each active day is an arrival and a departure, and the number of users on a day is the sum of all arrivals less all
-- departures until then: exact, in one pass.
CREATE VIEW analytics_daily_active_users AS
WITH spans AS MATERIALIZED (
    -- One row per pair of a day and the end of a span that begins there: few, whatever the number of users.
    SELECT d.day, min(strftime('%Y-%m-%dT00:00:00.000000Z', d.day, '+30 days'), d.next_day) AS ends, sum(d.users) AS users
    FROM (
        SELECT n.day, n.next_day, count(*) AS users
        FROM (
            SELECT u.day, lead(u.day, 1, '9999') OVER (PARTITION BY u.user_id ORDER BY u.day) AS next_day
            FROM analytics_user_days AS u
            WHERE u.user_id IS NOT NULL
        ) AS n
        GROUP BY n.day, n.next_day
    ) AS d
    GROUP BY d.day, ends
),
steps AS (
    SELECT s.day, s.users AS daily, s.users AS weekly, s.users AS monthly, 0 AS events FROM spans AS s
    UNION ALL
    SELECT min(strftime('%Y-%m-%dT00:00:00.000000Z', s.day, '+7 days'), s.ends), 0, -s.users, 0, 0 FROM spans AS s
    UNION ALL
    SELECT s.ends, 0, 0, -s.users, 0 FROM spans AS s
    UNION ALL
    -- Events without a user count in total_events only.
    SELECT u.day, 0, 0, 0, sum(u.events) FROM analytics_user_days AS u GROUP BY u.day
),
sums AS (
    SELECT
        t.day,
        t.active_users,
        sum(t.weekly) OVER (ORDER BY t.day) AS weekly_active_users,
        sum(t.monthly) OVER (ORDER BY t.day) AS monthly_active_users,
        t.total_events
    FROM (
        SELECT
            s.day,
            sum(s.daily) AS active_users,
            sum(s.weekly) AS weekly,
            sum(s.monthly) AS monthly,
            sum(s.events) AS total_events
        FROM steps AS s
        GROUP BY s.day
    ) AS t
)
SELECT day, active_users, weekly_active_users, monthly_active_users, total_events
FROM sums
WHERE total_events > 0;
