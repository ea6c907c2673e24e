-- The one page that says how it goes: all totals, and what is active now.

-- overview --
-- Count users, tasks, cocoons and integrations. $1, $2 and $3 are when the day, the 7 and the 30 days begin, $4 is when
-- they end, $5 is 24 hours ago, $6 the service; before $7 days of users will do.
WITH active AS (
    SELECT u.user_id, max(u.at) FILTER (WHERE u.at < $4) AS last_active
    FROM (
        SELECT d.user_id, d.day AS at FROM analytics_user_days_filled AS d WHERE d.day < $7 AND d.user_id IS NOT NULL
        UNION ALL
        SELECT q.user_id, q.quarter FROM analytics_user_quarters AS q
        WHERE q.quarter >= $7 AND q.user_id IS NOT NULL AND ($6 IS NULL OR q.service = $6)
    ) AS u
    GROUP BY u.user_id
),
tasks AS (
    SELECT
        coalesce(sum(t.events) FILTER (WHERE t.event_type = 'task_created'), 0) AS created,
        coalesce(
            sum(t.events) FILTER (WHERE t.event_type = 'task_created' AND t.quarter >= $1 AND t.quarter < $4), 0
        ) AS created_today,
        coalesce(sum(t.events) FILTER (WHERE t.event_type = 'task_completed'), 0) * 1.0 AS completed,
        coalesce(sum(t.events) FILTER (WHERE t.event_type = 'task_failed'), 0) AS failed
    FROM analytics_type_quarters AS t
    WHERE t.event_type IN ('task_created', 'task_completed', 'task_failed') AND ($6 IS NULL OR t.service = $6)
),
things AS (
    SELECT
        count(t.thing_id) FILTER (WHERE t.is_cocoon) AS cocoons,
        count(t.thing_id) FILTER (WHERE NOT t.is_cocoon) AS integrations
    FROM (
        SELECT DISTINCT d.event_type <> 'integration_connected' AS is_cocoon, d.thing_id
        FROM analytics_things_daily AS d
        WHERE $6 IS NULL OR d.service = $6
    ) AS t
)
SELECT
    a.*,
    t.created,
    t.created_today,
    t.completed / nullif(t.completed + t.failed, 0) AS task_success_rate,
    o.cocoons,
    (
        SELECT count(DISTINCT analytics_text(e.data, 'cocoon_id'))
        FROM analytics_event_facts AS e
        WHERE e.event_type = 'cocoon_connected' AND e.timestamp >= $5 AND e.timestamp < $4
            AND ($6 IS NULL OR e.service = $6)
    ) AS active_cocoons,
    o.integrations
FROM (
    SELECT
        count(*) AS total_users,
        count(*) FILTER (WHERE last_active >= $1) AS active_users_today,
        count(*) FILTER (WHERE last_active >= $2) AS active_users_week,
        count(*) FILTER (WHERE last_active >= $3) AS active_users_month
    FROM active
) AS a, tasks AS t, things AS o;
