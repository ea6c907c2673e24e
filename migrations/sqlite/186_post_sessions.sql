-- Join parts into sessions: a table that the upkeep fills, and views that complete it with what happened a moment ago

-- One row per run of a key's parts without a silence of more than 30 minutes; of a session_id that was given, one row
-- for all of its parts. Each filled part is in exactly one row.
--
-- `first_at` is that of the first part. A session begins at its first event, `started_at`, which is null for a run of
-- nothing but `page_engaged`: that is no session, and is kept because an event that comes late may make it one.
--
-- `who` is the user, else the visitor, to count them by. `id` is the session_id that was given, else the key and the
-- start.
--
-- A bounce is a session of one page view, without any other event, that was looked at for less than 10 seconds.
CREATE TABLE analytics_sessions_filled (
    key TEXT NOT NULL,
    given INTEGER NOT NULL,
    first_at TEXT NOT NULL,
    ended_at TEXT NOT NULL,
    started_at TEXT,
    id TEXT,
    user_id TEXT,
    visitor TEXT,
    event_count INTEGER NOT NULL,
    page_views INTEGER NOT NULL,
    visible_ms REAL NOT NULL,
    service TEXT,
    environment TEXT,
    device_type TEXT,
    browser TEXT,
    os TEXT,
    country TEXT,
    city TEXT,
    referrer TEXT,
    channel TEXT,
    utm_source TEXT,
    utm_medium TEXT,
    utm_campaign TEXT,
    landing_page TEXT,
    exit_page TEXT,
    duration_ms REAL,
    is_bounce INTEGER,
    who TEXT
);
CREATE INDEX analytics_sessions_filled_key_idx ON analytics_sessions_filled (key, ended_at);
CREATE INDEX analytics_sessions_filled_id_idx ON analytics_sessions_filled (id);
CREATE INDEX analytics_sessions_filled_ended_at_idx ON analytics_sessions_filled (ended_at);
CREATE INDEX analytics_sessions_filled_started_at_idx ON analytics_sessions_filled (started_at);
CREATE INDEX analytics_sessions_filled_user_id_started_at_idx ON analytics_sessions_filled (user_id, started_at)
    WHERE user_id IS NOT NULL;

-- What changes in the sessions when the parts of the range that analytics_fills names change: the rows of the table
-- that no longer hold, with `replaced`, and those that are to stand there instead.
--
-- All keys are concerned that have a part in the range, or had one. Of these every row is joined anew that reaches to
-- half an hour from the range, of those that were given each. So it never adds to what there was, and may be repeated:
-- late events, rows that grow, two that become one, and deletions all end at the same rows.
CREATE VIEW analytics_session_joins AS
WITH bounds AS MATERIALIZED (
    SELECT
        f.live_since AS since,
        f.live_until AS until,
        coalesce(strftime('%Y-%m-%dT%H:%M:%S.000000Z', substr(f.live_since, 1, 19), '-30 minutes'), '') AS before,
        CASE
            WHEN f.live_until = '9999' THEN '9999'
            ELSE strftime('%Y-%m-%dT%H:%M:%S.000000Z', substr(f.live_until, 1, 19), '+30 minutes')
        END AS after
    FROM analytics_fills AS f
    WHERE f.view_name = 'analytics_session_parts'
),
changed AS MATERIALIZED (
    SELECT * FROM analytics_session_parts_live
),
touched AS MATERIALIZED (
    SELECT c.key, c.given FROM changed AS c
    UNION
    SELECT s.key, s.given
    FROM bounds AS b
    CROSS JOIN analytics_sessions_filled AS s
    WHERE s.ended_at >= b.since AND s.first_at < b.until
),
gone AS MATERIALIZED (
    SELECT s.*
    FROM bounds AS b
    CROSS JOIN touched AS t
    CROSS JOIN analytics_sessions_filled AS s
    WHERE s.key = t.key AND s.given = t.given AND (s.given OR (s.ended_at >= b.before AND s.first_at <= b.after))
),
parts AS (
    SELECT c.* FROM changed AS c
    UNION ALL
    SELECT p.*
    FROM (
        SELECT g.key, g.given, min(g.first_at) AS first_at, max(g.ended_at) AS ended_at
        FROM gone AS g
        GROUP BY g.key, g.given
    ) AS g
    CROSS JOIN analytics_session_parts_filled AS p
    CROSS JOIN bounds AS b
    WHERE p.key = g.key AND p.given = g.given AND p.last_at >= g.first_at AND p.first_at <= g.ended_at
        AND (p.bucket < b.since OR p.bucket >= b.until)
),
numbered AS MATERIALIZED (
    -- Parts between which there is no silence have one number.
    SELECT
        c.*, sum(c.is_after_silence) OVER (PARTITION BY c.key, c.given ORDER BY c.bucket) AS number
    FROM (
        SELECT
            p.*,
            -- In microseconds. Null, and so no silence, before the first part.
            coalesce(
                NOT p.given AND
                CAST(strftime('%s', substr(p.first_at, 1, 19)) AS INTEGER) * 1000000
                + CAST(substr(p.first_at, 21, 6) AS INTEGER)
                - lag(
                    CAST(strftime('%s', substr(p.last_at, 1, 19)) AS INTEGER) * 1000000
                    + CAST(substr(p.last_at, 21, 6) AS INTEGER)
                ) OVER (PARTITION BY p.key, p.given ORDER BY p.bucket) > 1800000000,
                0
            ) AS is_after_silence
        FROM parts AS p
    ) AS c
),
joined AS MATERIALIZED (
    SELECT
        n.key,
        n.given,
        n.number,
        min(n.first_at) AS first_at,
        max(n.last_at) AS ended_at,
        min(n.started_at) AS started_at,
        substr(max(n.bucket || n.user_id), 28) AS user_id,
        substr(max(n.bucket || n.visitor), 28) AS visitor,
        sum(n.events) AS events,
        sum(n.page_views) AS page_views,
        substr(min(n.bucket || n.origin), 28) AS origin,
        substr(min(n.bucket || n.client), 28) AS client,
        substr(min(n.bucket || n.entry), 28) AS entry,
        nullif(substr(max(CASE WHEN n.page_views > 0 THEN n.bucket || coalesce(n.exit_page, '') END), 28), '')
            AS exit_page
    FROM numbered AS n
    GROUP BY n.key, n.given, n.number
),
visible AS MATERIALIZED (
    SELECT n.key, n.given, n.number, sum(json_extract(e.value, '$[1]')) AS ms
    FROM numbered AS n
    JOIN joined AS j ON j.key = n.key AND j.given = n.given AND j.number = n.number
    JOIN json_each(n.engaged) AS e
    WHERE n.engaged IS NOT NULL AND json_extract(e.value, '$[0]') >= j.started_at
    GROUP BY n.key, n.given, n.number
)
SELECT 1 AS replaced, g.* FROM gone AS g
UNION ALL
SELECT
    0,
    j.key,
    j.given,
    j.first_at,
    j.ended_at,
    j.started_at,
    CASE WHEN j.given THEN j.key ELSE j.key || '@' || j.started_at END,
    j.user_id,
    j.visitor,
    j.events,
    j.page_views,
    coalesce(v.ms, 0.0),
    json_extract(j.origin, '$[0]'),
    json_extract(j.origin, '$[1]'),
    json_extract(j.client, '$[0]'),
    json_extract(j.client, '$[1]'),
    json_extract(j.client, '$[2]'),
    json_extract(j.client, '$[3]'),
    json_extract(j.client, '$[4]'),
    json_extract(j.entry, '$[1]'),
    json_extract(j.entry, '$[2]'),
    json_extract(j.entry, '$[3]'),
    json_extract(j.entry, '$[4]'),
    json_extract(j.entry, '$[5]'),
    json_extract(j.entry, '$[0]'),
    j.exit_page,
    (
        (
            CAST(strftime('%s', substr(j.ended_at, 1, 19)) AS INTEGER)
            - CAST(strftime('%s', substr(j.started_at, 1, 19)) AS INTEGER)
        ) * 1000000
        + CAST(substr(j.ended_at, 21, 6) AS INTEGER) - CAST(substr(j.started_at, 21, 6) AS INTEGER)
    ) / 1000.0,
    CASE WHEN j.page_views > 0 THEN j.page_views = 1 AND j.events = 1 AND coalesce(v.ms, 0) < 10000 END,
    coalesce(j.user_id, j.visitor)
FROM joined AS j
LEFT JOIN visible AS v ON v.key = j.key AND v.given = j.given AND v.number = j.number;

-- Every session with all that is known of it: the filled ones, but for those that go on, and what is younger.
CREATE VIEW analytics_session_rows AS
WITH young AS MATERIALIZED (
    SELECT * FROM analytics_session_joins
)
SELECT s.*
FROM analytics_sessions_filled AS s
WHERE s.started_at IS NOT NULL
    AND NOT EXISTS (
        SELECT 1 FROM young AS y
        WHERE y.replaced AND y.key = s.key AND y.given = s.given AND y.first_at = s.first_at
    )
UNION ALL
SELECT
    y.key, y.given, y.first_at, y.ended_at, y.started_at, y.id, y.user_id, y.visitor, y.event_count, y.page_views,
    y.visible_ms, y.service, y.environment, y.device_type, y.browser, y.os, y.country, y.city, y.referrer, y.channel,
    y.utm_source, y.utm_medium, y.utm_campaign, y.landing_page, y.exit_page, y.duration_ms, y.is_bounce, y.who
FROM young AS y
WHERE NOT y.replaced AND y.started_at IS NOT NULL;

CREATE VIEW analytics_sessions AS
SELECT
    s.id,
    s.user_id,
    s.visitor,
    s.started_at,
    s.ended_at,
    s.duration_ms,
    s.event_count,
    s.page_views,
    s.device_type,
    s.browser,
    s.os,
    s.country,
    s.city,
    s.referrer,
    s.channel,
    s.utm_source,
    s.utm_medium,
    s.utm_campaign,
    s.landing_page,
    s.exit_page,
    s.is_bounce
FROM analytics_session_rows AS s;
