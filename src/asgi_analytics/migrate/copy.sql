-- What is read of an SQLite database to be copied, and what is written where no sink does it.

-- copied_until --
-- Read up to which number events were copied to a target.
SELECT copied_until FROM analytics_copies WHERE target = ?;

-- note_copied --
-- Note up to which number events were copied.
INSERT INTO analytics_copies (target, copied_until) VALUES (?, ?)
ON CONFLICT (target) DO UPDATE SET copied_until = excluded.copied_until;

-- events --
-- Read the next events after a number.
SELECT number, id, timestamp, event_type, service, user_id, session_id, data, context
FROM analytics_events
WHERE number > ?
ORDER BY number
LIMIT ?;

-- left --
-- Count the events after a number.
SELECT count(*) FROM analytics_events WHERE number > ?;

-- metrics --
-- Read the next metrics after a time and an id.
SELECT id, timestamp, name, metric_type, unit, service, tags, count, sum, min, max, last, histogram
FROM metrics
WHERE (timestamp, id) > (?, ?)
ORDER BY timestamp, id
LIMIT ?;

-- dead_letters --
-- Read the dead letters.
SELECT id, received_at, event_type, service, reason, sqlstate, payload FROM analytics_dead_letters;

-- traits --
-- Read what is known of users.
SELECT user_id, traits, role, registered_at, updated_at, told_by FROM analytics_user_traits;

-- funnels --
-- Read the funnels that are kept by name.
SELECT id, name, description, steps, conversion_window, created_at FROM funnels;

-- categories --
-- Read which category each type of event belongs to.
SELECT event_type, category FROM analytics_event_types;

-- dashboard --
-- Read the application's numbers of dashboards.
SELECT widget_id, metric_key, value, previous_value, updated_at FROM dashboard_metrics;

-- write_dead_letters --
-- Write a dead letter, unless it is there.
INSERT INTO {schema}analytics_dead_letters (id, received_at, event_type, service, reason, sqlstate, payload)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT DO NOTHING;

-- write_traits --
-- Write what is known of a user, unless the target knows something newer.
INSERT INTO {schema}analytics_user_traits AS known (user_id, traits, role, registered_at, updated_at, told_by)
VALUES ($1, $2::jsonb, $3, $4, $5, $6::jsonb)
ON CONFLICT (user_id) DO UPDATE
SET traits = excluded.traits, role = excluded.role, registered_at = excluded.registered_at,
    updated_at = excluded.updated_at, told_by = excluded.told_by
WHERE known.updated_at < excluded.updated_at;

-- write_funnels --
-- Write a funnel, unless there is one of that name.
INSERT INTO {schema}analytics_funnels (id, name, description, steps, conversion_window, created_at)
VALUES ($1, $2, $3, $4::jsonb, $5, $6)
ON CONFLICT DO NOTHING;

-- write_dashboard --
-- Write a number of a dashboard, unless the target has one.
INSERT INTO {schema}analytics_dashboard_values (widget_id, metric_key, value, previous_value, updated_at)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT DO NOTHING;
