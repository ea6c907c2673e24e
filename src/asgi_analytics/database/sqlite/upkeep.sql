-- What the upkeep does, in one small transaction each. Names in braces are those of analytics_fills.

-- take --
-- Take the upkeep for :owner, unless another one did a step of it since :stale.
INSERT INTO analytics_upkeep (id, owner, renewed_at) VALUES (1, :owner, :now)
ON CONFLICT (id) DO UPDATE SET owner = excluded.owner, renewed_at = excluded.renewed_at
WHERE analytics_upkeep.owner = excluded.owner OR analytics_upkeep.renewed_at < :stale;

-- release --
-- Give the upkeep back.
DELETE FROM analytics_upkeep WHERE owner = :owner;

-- forget_keys --
-- Forget the keys of days before :day.
DELETE FROM analytics_visitor_keys WHERE day < :day;

-- forget_visitors --
-- Forget who was seen before :moment.
DELETE FROM analytics_midnight_visitors WHERE seen_at < :moment;

-- expire --
-- Delete the numbers of the moment that have expired.
DELETE FROM analytics_metrics_realtime WHERE expires_at <= :now;

-- sort_in --
-- Sort the noted changes into the buckets to compute again.
INSERT INTO analytics_stale (view_name, bucket)
SELECT f.view_name, CASE f.step WHEN 'hour' THEN c.hour ELSE substr(c.hour, 1, 10) || 'T00:00:00.000000Z' END
FROM analytics_changes AS c
CROSS JOIN analytics_fills AS f
WHERE true
ON CONFLICT DO NOTHING;

-- sort_in_days --
-- Sort them into the days of users and features too. A session counts on the day it began: what came after midnight
-- changes the day before.
INSERT INTO analytics_stale (view_name, bucket)
SELECT 'user_activity', d.day
FROM (
    SELECT substr(c.hour, 1, 10) || 'T00:00:00.000000Z' AS day FROM analytics_changes AS c
    UNION
    SELECT strftime('%Y-%m-%dT00:00:00.000000Z', c.hour, '-1 day') FROM analytics_changes AS c
) AS d
WHERE true
ON CONFLICT DO NOTHING;

-- forget_changes --
-- Forget the notes that were sorted in.
DELETE FROM analytics_changes;

-- forget_gone --
-- Forget the buckets of days whose events are gone: aggregates outlive events.
DELETE FROM analytics_stale
WHERE substr(bucket, 1, 10) || 'T00:00:00.000000Z' IN (SELECT g.day FROM analytics_gone_days AS g);

-- pending --
-- List the buckets to compute again that were complete an hour ago, from :since up to :until. Nothing of the last hour:
-- what is filled hides what comes in later until it is filled again, and most events that come late come within the
-- hour.
SELECT s.view_name, s.bucket, f.step
FROM analytics_stale AS s
JOIN analytics_fills AS f ON f.view_name = s.view_name
WHERE s.bucket < CASE f.step WHEN 'hour' THEN :hour ELSE :day END
    AND (:since IS NULL OR s.bucket >= CASE f.step WHEN 'hour' THEN :since ELSE :since_day END)
    AND (:until IS NULL OR s.bucket < :until)
ORDER BY s.bucket, s.view_name;

-- begin_fill --
-- Let the live part of a view be the range to fill.
UPDATE analytics_fills SET live_since = :since, live_until = :until WHERE view_name = :view_name;

-- clear --
-- Take away what is filled of a range.
DELETE FROM {view_name}_filled WHERE {bucket_column} >= :since AND {bucket_column} < :until;

-- fill --
-- Copy the live part of a view into its table: that of main reads the events, that of temp the facts that were read.
INSERT INTO {view_name}_filled SELECT * FROM {schema}.{view_name}_live;

-- live_views --
-- List the live parts of views.
SELECT m.sql
FROM main.sqlite_master AS m
JOIN main.analytics_fills AS f ON m.name = f.view_name || '_live'
WHERE m.type = 'view';

-- make_facts --
-- Make the table of facts that were read. It hides the view of its name from the live parts in temp.
CREATE TEMP TABLE analytics_event_facts AS SELECT * FROM main.analytics_event_facts LIMIT 0;

-- index_facts --
-- Most live parts are of one type of event.
CREATE INDEX temp.analytics_event_facts_event_type_idx ON analytics_event_facts (event_type);

-- forget_facts --
-- Forget the facts that were read.
DELETE FROM temp.analytics_event_facts;

-- read_facts --
-- Read the facts of a range.
INSERT INTO temp.analytics_event_facts
SELECT * FROM main.analytics_event_facts AS e WHERE e.timestamp >= :since AND e.timestamp < :until;

-- drop_facts --
-- Let the name be that of the view again.
DROP TABLE temp.analytics_event_facts;

-- have_changed --
-- Tell whether events of a range have changed since the changes were sorted in.
SELECT EXISTS (SELECT 1 FROM analytics_changes AS c WHERE c.hour >= :since AND c.hour < :until);

-- joined --
-- Find what changes in the sessions.
SELECT * FROM analytics_session_joins;

-- forget_session --
-- Take a session away.
DELETE FROM analytics_sessions_filled WHERE key = ? AND given = ? AND first_at = ?;

-- add_session --
-- Add a session.
INSERT INTO analytics_sessions_filled
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- forget_stale --
-- Forget the buckets that were computed.
DELETE FROM analytics_stale WHERE view_name = :view_name AND bucket >= :since AND bucket < :until;

-- end_fill --
-- Read the filled buckets up to the first one that is not: ranges may be filled in any order. Let the live part begin
-- there again.
UPDATE analytics_fills
SET filled_until = max(filled_until, CASE
        WHEN EXISTS (
            SELECT 1 FROM analytics_stale AS s
            WHERE s.view_name = analytics_fills.view_name AND s.bucket < :until AND s.bucket >= filled_until
        ) THEN ''
        ELSE :until
    END)
WHERE view_name = :view_name;

-- end_range --
-- Let the live part of every view begin where the filled part ends.
UPDATE analytics_fills SET live_since = filled_until, live_until = '9999'
WHERE live_since <> filled_until OR live_until <> '9999';

-- complete --
-- Where nothing is pending, all is filled up to the hour before the last, also if nothing happened.
UPDATE analytics_fills
SET filled_until = max(filled_until, CASE step WHEN 'hour' THEN :hour ELSE :day END)
WHERE NOT EXISTS (
    SELECT 1 FROM analytics_stale AS s
    WHERE s.view_name = analytics_fills.view_name
        AND s.bucket < CASE analytics_fills.step WHEN 'hour' THEN :hour ELSE :day END
);

-- fills --
-- Read where the buckets of a view stand.
SELECT bucket_column FROM analytics_fills WHERE view_name = ?;

-- days --
-- List the days of users and features to compute again.
SELECT bucket FROM analytics_stale WHERE view_name = 'user_activity' ORDER BY bucket;

-- forget_user_activity --
-- Take away what is known of users on a day.
DELETE FROM user_activity WHERE date = :date;

-- fill_user_activity --
-- Compute what each user did on a day.
INSERT INTO user_activity (
    user_id, date, session_count, event_count, total_duration_ms, first_seen_at, last_seen_at, events_breakdown
)
SELECT
    a.user_id, :date, sum(a.sessions), sum(a.events), sum(a.duration_ms), min(a.first_at), max(a.last_at),
    coalesce(max(a.breakdown), '{}')
FROM (
    SELECT
        t.user_id, 0 AS sessions, sum(t.events) AS events, 0.0 AS duration_ms, min(t.first_at) AS first_at,
        max(t.last_at) AS last_at, json_group_object(t.event_type, t.events) AS breakdown
    FROM (
        SELECT
            e.user_id, e.event_type, count(*) AS events, min(e.timestamp) AS first_at, max(e.timestamp) AS last_at
        FROM analytics_events AS e
        WHERE e.timestamp >= :since AND e.timestamp < :until AND e.user_id IS NOT NULL
            AND e.event_type <> 'page_engaged'
        GROUP BY e.user_id, e.event_type
    ) AS t
    GROUP BY t.user_id
    UNION ALL
    SELECT s.user_id, count(*), 0, sum(s.duration_ms), NULL, NULL, NULL
    FROM analytics_session_rows AS s
    WHERE s.started_at >= :since AND s.started_at < :until AND s.user_id IS NOT NULL
    GROUP BY s.user_id
) AS a
GROUP BY a.user_id;

-- forget_feature_usage --
-- Take away how features were used on a day.
DELETE FROM feature_usage WHERE date = :date;

-- fill_feature_usage --
-- Compute how features were used on a day. :pairs are the names whose success two types tell, …_completed and …_failed,
-- also where one of them did not happen; JSON.
INSERT INTO feature_usage (feature_name, date, usage_count, unique_users, avg_duration_ms, success_rate)
WITH hits AS (
    SELECT
        e.event_type,
        CASE
            WHEN e.event_type LIKE '%\_completed' ESCAPE '\' THEN substr(e.event_type, 1, length(e.event_type) - 10)
            WHEN e.event_type LIKE '%\_failed' ESCAPE '\' THEN substr(e.event_type, 1, length(e.event_type) - 7)
        END AS name,
        count(*) AS events,
        count(DISTINCT e.user_id) AS users,
        avg(e.duration_ms) AS duration_ms,
        count(*) FILTER (WHERE e.success = 'true') AS succeeded,
        count(*) FILTER (WHERE e.success = 'false') AS failed
    FROM analytics_event_facts AS e
    WHERE e.timestamp >= :since AND e.timestamp < :until
        AND e.event_type NOT IN ('api_request', 'database_query', 'application_error', 'page_view', 'page_engaged')
    GROUP BY e.event_type
),
pairs AS (
    SELECT
        h.name,
        coalesce(sum(h.events) FILTER (WHERE h.event_type = h.name || '_completed'), 0) * 1.0 / sum(h.events) AS rate
    FROM hits AS h
    WHERE h.name IS NOT NULL
    GROUP BY h.name
    HAVING count(*) = 2 OR h.name IN (SELECT p.value FROM json_each(:pairs) AS p)
)
SELECT
    h.event_type, :date, h.events, h.users, h.duration_ms,
    CASE WHEN h.succeeded + h.failed > 0 THEN h.succeeded * 1.0 / (h.succeeded + h.failed) ELSE p.rate END
FROM hits AS h
LEFT JOIN pairs AS p ON p.name = h.name;

-- forget_day --
-- Forget that a day of users and features is to be computed.
DELETE FROM analytics_stale WHERE view_name = 'user_activity' AND bucket = :since;

-- metric_hours --
-- List the hours of metrics that are over and have changed.
SELECT c.hour, c.hour < s.gone_before FROM analytics_metric_changes AS c, analytics_metric_state AS s
WHERE c.hour < :hour;

-- clear_metric_hour --
-- Take away an hour of metrics.
DELETE FROM analytics_metric_hours_filled WHERE hour = ?;

-- fill_metric_hours --
-- Compute the hours of metrics that are over and have changed.
INSERT INTO analytics_metric_hours_filled SELECT * FROM analytics_metric_hours_live AS l WHERE l.hour < :hour;

-- gone_before --
-- Read up to when rows of metrics are gone, and for how many days they are kept.
SELECT gone_before, keep FROM analytics_metric_state;

-- set_gone_before --
-- Note up to when rows of metrics are gone.
UPDATE analytics_metric_state SET gone_before = ?;

-- forget_late_metrics --
-- Delete the rows that came late, for hours whose rows are gone.
DELETE FROM metrics WHERE timestamp < ?;

-- note_metric_day --
-- Note a day of which an hour was filled.
INSERT INTO analytics_metric_stale_days (day) VALUES (?) ON CONFLICT DO NOTHING;

-- forget_metric_changes --
-- Forget the notes of hours before one.
DELETE FROM analytics_metric_changes WHERE hour < ?;

-- clear_metric_days --
-- Take away the days of metrics that are to be computed again.
DELETE FROM analytics_metric_days_filled
WHERE day < :day AND day IN (SELECT s.day FROM analytics_metric_stale_days AS s);

-- fill_metric_days --
-- Compute the days of metrics that are over and have changed.
INSERT INTO analytics_metric_days_filled SELECT * FROM analytics_metric_days_live AS l WHERE l.day < :day;

-- forget_metric_days --
-- Forget the days of metrics that were computed.
DELETE FROM analytics_metric_stale_days WHERE day < :day;

-- show_metrics --
-- Let analytics_metric_aggregates show what is not earlier than these.
UPDATE analytics_metric_state SET hours_since = ?, days_since = ?;

-- fill_metric_aggregates --
-- Copy what it shows. Of two types or units of one name the one with more values comes last, and stays.
INSERT INTO metric_aggregates (
    name, period_start, period_type, count, sum, min, max, avg, p50, p90, p99, tags
)
SELECT a.name, a.period_start, a.period_type, a.count, a.sum, a.min, a.max, a.avg, a.p50, a.p90, a.p99, a.tags
FROM analytics_metric_aggregates AS a
WHERE true
ORDER BY a.count
ON CONFLICT (name, period_start, period_type, tags) DO UPDATE
SET count = excluded.count, sum = excluded.sum, min = excluded.min, max = excluded.max, avg = excluded.avg,
    p50 = excluded.p50, p90 = excluded.p90, p99 = excluded.p99;

-- forget_metrics --
-- Delete the next thousand rows of metrics before a time.
DELETE FROM metrics WHERE rowid IN (SELECT m.rowid FROM metrics AS m WHERE m.timestamp < ? LIMIT 1000);

-- keep_of --
-- Read the category of a type, and for how many days its events are kept.
SELECT r.category, r.keep
FROM analytics_retention AS r
WHERE r.category = coalesce((SELECT t.category FROM analytics_event_types AS t WHERE t.event_type = ?), 'interaction');

-- types --
-- List the types of events, by jumping from one to the next.
WITH RECURSIVE types (event_type) AS (
    SELECT min(e.event_type) FROM analytics_events AS e
    UNION ALL
    SELECT (SELECT min(e.event_type) FROM analytics_events AS e WHERE e.event_type > t.event_type)
    FROM types AS t
    WHERE t.event_type IS NOT NULL
)
SELECT event_type FROM types WHERE event_type IS NOT NULL;

-- old_day --
-- Find the oldest event of a type before a time.
SELECT min(timestamp) FROM analytics_events WHERE event_type = :event_type AND timestamp < :until;

-- is_behind --
-- Tell whether a day has changed that is not filled.
SELECT EXISTS (SELECT 1 FROM analytics_changes AS c WHERE c.hour >= :since AND c.hour < :until)
    OR EXISTS (SELECT 1 FROM analytics_stale AS s WHERE s.bucket >= :since AND s.bucket < :until);

-- note_gone --
-- Note that events of a day are gone.
INSERT INTO analytics_gone_days (day) VALUES (:since) ON CONFLICT DO NOTHING;

-- note_dropped --
-- Note that events of a category before a midnight may be gone.
UPDATE analytics_dropped SET dropped_before = :until WHERE category = :category AND dropped_before < :until;

-- forget_events --
-- Delete the next thousand events of a type and a day.
DELETE FROM analytics_events WHERE number IN (
    SELECT e.number FROM analytics_events AS e
    WHERE e.event_type = :event_type AND e.timestamp >= :since AND e.timestamp < :until
    LIMIT 1000
);

-- forget_changes_of_day --
-- Forget the notes that deleting made.
DELETE FROM analytics_changes WHERE hour >= :since AND hour < :until;

-- checkpoint --
-- Take the log into the file and cut it.
PRAGMA wal_checkpoint(TRUNCATE);

-- limit_analysis --
-- Let the planner look at so many rows of an index and no more: it has the lock meanwhile.
PRAGMA analysis_limit = 1000;

-- optimize --
-- Let the planner know the tables.
PRAGMA optimize;
