-- store_new_events --
-- Store an event that was never sent before; an error if it is there already.
INSERT INTO analytics_events (id, timestamp, event_type, service, user_id, session_id, data, context)
VALUES (?, ?, ?, ?, ?, ?, ?, ?);

-- store_events --
-- Store an event, and leave one that is there already.
INSERT INTO analytics_events (id, timestamp, event_type, service, user_id, session_id, data, context)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (timestamp, id) DO NOTHING;

-- note_events --
-- Note an hour whose events have changed.
INSERT INTO analytics_changes (hour) VALUES (?) ON CONFLICT DO NOTHING;

-- store_metrics --
-- Store a row of a metric, and leave one that is there already.
INSERT INTO metrics (
    id, timestamp, name, metric_type, value, unit, service, tags, count, sum, min, max, last, histogram
)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (timestamp, id) DO NOTHING;

-- note_metrics --
-- Note an hour whose metrics have changed.
INSERT INTO analytics_metric_changes (hour) VALUES (?) ON CONFLICT DO NOTHING;

-- store_dead_letters --
-- Keep an event that the table refused, as it was sent; one that is sent again is kept once.
INSERT INTO analytics_dead_letters (id, event_type, service, reason, sqlstate, payload)
VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO NOTHING;

-- read_traits --
-- Read what is known of a user.
SELECT traits, told_by, updated_at FROM analytics_user_traits WHERE user_id = ?;

-- write_traits --
-- Write what is known of a user.
INSERT INTO analytics_user_traits (user_id, traits, role, registered_at, updated_at, told_by)
VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (user_id) DO UPDATE
SET traits = excluded.traits, role = excluded.role, registered_at = excluded.registered_at,
    updated_at = excluded.updated_at, told_by = excluded.told_by;

-- note_event_type --
-- Note that a type is of a category, unless the one it has keeps its rows as long: of two processes that say something
-- else, during a deployment perhaps, the one that keeps them longer is right. Senders choose names, so there is a limit.
INSERT INTO analytics_event_types (event_type, category)
SELECT :event_type, r.category
FROM analytics_retention AS r
WHERE r.category = :category AND length(:event_type) BETWEEN 1 AND 255
    AND (
        (SELECT count(*) FROM analytics_event_types) < 10000
        OR EXISTS (SELECT 1 FROM analytics_event_types AS k WHERE k.event_type = :event_type)
    )
ON CONFLICT (event_type) DO UPDATE SET category = excluded.category
WHERE (SELECT coalesce(r.keep, 36500) FROM analytics_retention AS r WHERE r.category = excluded.category)
    > (SELECT coalesce(r.keep, 36500) FROM analytics_retention AS r WHERE r.category = analytics_event_types.category);

-- kept_types --
-- Return for how many days the rows of each type are kept, and with null those of all others.
SELECT t.event_type, min(coalesce(r.keep, 36500), 36500)
FROM analytics_event_types AS t
JOIN analytics_retention AS r ON r.category = t.category
UNION ALL
SELECT NULL, min(coalesce(min(r.keep), 36500), 36500) FROM analytics_retention AS r WHERE r.category = 'interaction';

-- schemas_fingerprint --
-- Return what changes with the schemas that events are checked by.
SELECT coalesce(group_concat(s.event_type || ' ' || s.version || ' ' || s.updated_at), '')
FROM (
    SELECT s.event_type, s.version, s.updated_at FROM analytics_event_schemas AS s WHERE s.is_active
    ORDER BY s.event_type
) AS s;

-- active_schemas --
-- Return the schemas that events are checked by.
SELECT
    s.event_type, s.schema_definition,
    EXISTS (SELECT 1 FROM json_each(s.required_fields) AS j WHERE j.value = 'user_id')
FROM analytics_event_schemas AS s
WHERE s.is_active;

-- tables --
-- Find which of the tables that a batch needs are there.
SELECT name FROM sqlite_master WHERE name IN ('analytics_events', 'analytics_dead_letters', 'analytics_changes');

-- visitor_key --
-- Read the key of a day.
SELECT key FROM analytics_visitor_keys WHERE day = ?;

-- make_visitor_key --
-- Keep the key of a day, unless it has one.
INSERT INTO analytics_visitor_keys (day, key) VALUES (?, ?) ON CONFLICT (day) DO NOTHING;

-- seen_visitor --
-- Tell whether a visitor was seen at a time or later.
SELECT 1 FROM analytics_midnight_visitors WHERE visitor = ? AND seen_at >= ?;

-- note_visitor --
-- Note when a visitor was seen.
INSERT INTO analytics_midnight_visitors (visitor, seen_at) VALUES (?, ?)
ON CONFLICT (visitor) DO UPDATE SET seen_at = max(seen_at, excluded.seen_at);
