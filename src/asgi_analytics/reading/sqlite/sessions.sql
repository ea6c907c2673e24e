-- Sessions: what people did in one go. They are kept when the raw rows are gone.

-- page --
-- List the sessions that began in a range, newest first. $1 and $2 are the range; the filters, each null for any, are
-- $3 the user, $4 the visitor, $5 the landing and $6 the exit page, $7 the referrer, $8 the channel, $9 the source, $10
-- the medium and $11 the campaign, $12 the device type, $13 the browser, $14 the operating system, $15 the country, $16
-- whether it bounced, $17 the service, $18 the environment; $19 and $20 are the start and id of the last session of the
-- page before, $21 is the greatest number of rows.
SELECT
    CASE WHEN s.given THEN s.id ELSE analytics_session_id(s.key, s.started_at) END AS id,
    s.user_id AS "user_id::uuid",
    s.visitor,
    s.started_at AS "started_at::timestamptz",
    s.ended_at AS "ended_at::timestamptz",
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
    s.is_bounce AS "is_bounce::boolean"
FROM analytics_session_rows AS s
WHERE s.started_at >= $1 AND s.started_at < $2
    AND ($3 IS NULL OR s.user_id = $3)
    AND ($4 IS NULL OR s.visitor = $4)
    AND ($5 IS NULL OR s.landing_page = $5)
    AND ($6 IS NULL OR s.exit_page = $6)
    AND ($7 IS NULL OR s.referrer = $7)
    AND ($8 IS NULL OR s.channel = $8)
    AND ($9 IS NULL OR s.utm_source = $9)
    AND ($10 IS NULL OR s.utm_medium = $10)
    AND ($11 IS NULL OR s.utm_campaign = $11)
    AND ($12 IS NULL OR s.device_type = $12)
    AND ($13 IS NULL OR s.browser = $13)
    AND ($14 IS NULL OR s.os = $14)
    AND ($15 IS NULL OR s.country = $15)
    AND ($16 IS NULL OR s.is_bounce = $16)
    AND ($17 IS NULL OR s.service = $17)
    AND ($18 IS NULL OR s.environment = $18)
    AND (
        $19 IS NULL OR s.started_at < $19 OR (s.started_at = $19 AND CASE WHEN s.given THEN s.id ELSE analytics_session_id(s.key, s.started_at) END < $20)
    )
ORDER BY s.started_at DESC, 1 DESC
LIMIT $21;

-- total --
-- Count the same sessions, up to 10,001. $1 to $18 are those of the page.
SELECT count(*)
FROM (
    SELECT 1
    FROM analytics_session_rows AS s
    WHERE s.started_at >= $1 AND s.started_at < $2
        AND ($3 IS NULL OR s.user_id = $3)
        AND ($4 IS NULL OR s.visitor = $4)
        AND ($5 IS NULL OR s.landing_page = $5)
        AND ($6 IS NULL OR s.exit_page = $6)
        AND ($7 IS NULL OR s.referrer = $7)
        AND ($8 IS NULL OR s.channel = $8)
        AND ($9 IS NULL OR s.utm_source = $9)
        AND ($10 IS NULL OR s.utm_medium = $10)
        AND ($11 IS NULL OR s.utm_campaign = $11)
        AND ($12 IS NULL OR s.device_type = $12)
        AND ($13 IS NULL OR s.browser = $13)
        AND ($14 IS NULL OR s.os = $14)
        AND ($15 IS NULL OR s.country = $15)
        AND ($16 IS NULL OR s.is_bounce = $16)
        AND ($17 IS NULL OR s.service = $17)
        AND ($18 IS NULL OR s.environment = $18)
    LIMIT 10001
) AS counted;

-- session --
-- Find the session of an id, $1, with its key and whether that was given. $2 is the service, null for any.
SELECT
    s.key,
    s.given AS "given::boolean",
    CASE WHEN s.given THEN s.id ELSE analytics_session_id(s.key, s.started_at) END AS id,
    s.user_id AS "user_id::uuid",
    s.visitor,
    s.started_at AS "started_at::timestamptz",
    s.ended_at AS "ended_at::timestamptz",
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
    s.is_bounce AS "is_bounce::boolean"
FROM analytics_session_rows AS s
WHERE CASE WHEN s.given THEN s.id ELSE analytics_session_id(s.key, s.started_at) END = $1 AND ($2 IS NULL OR s.service = $2)
-- A given id may be that of another session; the one that was given is meant.
ORDER BY s.given DESC
LIMIT 1;

-- events --
-- List the events of a session, oldest first, and what was captured within it. $1 and $2 are its start and its end, $3
-- is its key, $4 whether that was given, $5 its user, $6 the greatest number of rows. What is captured may know nothing
-- of the visit but its user.
SELECT
    e.id AS "id::uuid", e.event_type, e.timestamp AS "timestamp::timestamptz", e.service, e.data,
    e.user_id AS "user_id::uuid", e.session_id, e.context
FROM analytics_event_facts AS e
WHERE e.timestamp >= $1 AND e.timestamp <= $2
    AND e.event_type <> 'page_engaged'
    AND CASE
        WHEN $4 THEN e.session_id = $3
        WHEN e.session_id IS NOT NULL THEN false
        WHEN coalesce(e.visitor, e.user_id) = $3 THEN true
        ELSE e.user_id = $5 AND e.visitor IS NULL
            AND e.event_type IN ('api_request', 'database_query', 'application_error')
    END
ORDER BY e.timestamp, e.id
LIMIT $6;

-- summary --
-- Sum up the sessions that began in a range. $1 and $2 are the range, $3 is the service, $4 the environment.
WITH sessions AS MATERIALIZED (
    SELECT s.who, s.page_views, s.is_bounce, s.duration_ms
    FROM analytics_session_rows AS s
    WHERE s.started_at >= $1 AND s.started_at < $2
        AND ($3 IS NULL OR s.service = $3)
        AND ($4 IS NULL OR s.environment = $4)
)
SELECT
    count(*) AS sessions,
    count(DISTINCT s.who) AS visitors,
    coalesce(sum(s.page_views), 0) AS page_views,
    avg(s.is_bounce) AS bounce_rate,
    avg(s.duration_ms) AS avg_duration_ms,
    analytics_quantile(s.duration_ms, 0.5) AS median_duration_ms,
    sum(s.page_views) * 1.0 / nullif(count(*), 0) AS page_views_per_session
FROM sessions AS s;

-- filled_until --
-- Tell up to where parts are filled.
SELECT max(f.filled_until, '1970-01-01T00:00:00.000000Z') AS "filled_until::timestamptz"
FROM analytics_fills AS f
WHERE f.view_name = 'analytics_session_parts';

-- series --
-- Count the sessions with an event in each bucket, their visitors and page views. $1 to $4 are the bounds of the three
-- parts, $5 the edges of the buckets, $6 is the service, $7 the environment, $8 says up to where parts are filled, $9 is
-- the greatest number of rows.
--
-- Most sessions lie in one bucket as a whole. Of the others the parts tell in which they have events, and raw rows
-- where a bucket is not made of whole half hours. OFFSET 0 has the parts of these few looked up one by one.
WITH sessions AS MATERIALIZED (
    SELECT
        s.key, s.given, s.first_at, s.started_at, s.ended_at, s.page_views, s.who,
        analytics_bucket(s.started_at, 5) AS first_bucket,
        analytics_bucket(s.ended_at, 5) AS last_bucket
    FROM analytics_session_rows AS s
    WHERE s.started_at < $4 AND s.ended_at >= $1
        AND ($6 IS NULL OR s.service = $6)
        AND ($7 IS NULL OR s.environment = $7)
),
hits AS (
    SELECT s.key, s.given, s.first_at, s.who, analytics_bucket(p.bucket, 5) AS bucket, p.page_views
    FROM sessions AS s
    CROSS JOIN analytics_session_parts_filled AS p ON p.key = s.key AND p.given = s.given
    WHERE s.first_bucket <> s.last_bucket AND p.bucket < $8 AND p.bucket >= $2 AND p.bucket < $3
        AND p.events > 0 AND p.started_at >= s.started_at AND p.started_at <= s.ended_at
    UNION ALL
    SELECT s.key, s.given, s.first_at, s.who, analytics_bucket(p.bucket, 5), p.page_views
    FROM sessions AS s
    JOIN live AS p ON p.key = s.key AND p.given = s.given
    WHERE s.first_bucket <> s.last_bucket AND p.started_at >= s.started_at AND p.started_at <= s.ended_at
    UNION ALL
    SELECT s.key, s.given, s.first_at, s.who, analytics_bucket(e.timestamp, 5), e.page_views
    FROM sessions AS s
    JOIN raw AS e ON e.key = s.key AND e.given = s.given
    WHERE s.first_bucket <> s.last_bucket AND e.timestamp >= s.started_at AND e.timestamp <= s.ended_at
),
live AS MATERIALIZED (
    SELECT p.key, p.given, p.bucket, p.started_at, p.page_views
    FROM analytics_session_parts_live AS p
    WHERE p.bucket >= $2 AND p.bucket < $3 AND p.events > 0
),
raw AS MATERIALIZED (
    SELECT
        r.timestamp,
        coalesce(r.session_id, r.visitor, r.user_id) AS key,
        r.session_id IS NOT NULL AS given,
        r.event_type = 'page_view' AS page_views
    FROM analytics_event_facts AS r
    WHERE (r.timestamp >= $1 AND r.timestamp < $2 OR r.timestamp >= $3 AND r.timestamp < $4)
        AND r.event_type NOT IN ('api_request', 'database_query', 'application_error', 'page_engaged')
),
visits AS (
    SELECT h.bucket, h.who, sum(h.page_views) AS page_views
    FROM hits AS h
    GROUP BY h.bucket, h.key, h.given, h.first_at, h.who
    UNION ALL
    SELECT s.first_bucket, s.who, s.page_views FROM sessions AS s WHERE s.first_bucket = s.last_bucket
),
counts AS (
    SELECT
        v.bucket, sum(v.sessions) AS sessions, count(v.who) AS visitors, sum(v.page_views) AS page_views
    FROM (
        SELECT w.bucket, w.who, count(*) AS sessions, sum(w.page_views) AS page_views
        FROM visits AS w
        GROUP BY w.bucket, w.who
    ) AS v
    GROUP BY v.bucket
)
SELECT b.bucket, coalesce(c.sessions, 0) AS active_sessions, coalesce(c.visitors, 0), coalesce(c.page_views, 0)
FROM (SELECT j.key + 1 AS bucket FROM json_each($5) AS j WHERE j.key < json_array_length($5) - 1) AS b
LEFT JOIN counts AS c ON c.bucket = b.bucket
ORDER BY b.bucket
LIMIT $9;

-- breakdown --
-- Count the sessions that began in a range by a value of theirs, the most frequent first, then all other values as one,
-- then those without. $1 and $2 are the range, $3 names the value, $4 is the service, $5 the environment, $6 the
-- greatest number of values.
WITH sessions AS MATERIALIZED (
    SELECT
        CASE $3
            WHEN 'landing_page' THEN s.landing_page
            WHEN 'exit_page' THEN s.exit_page
            WHEN 'referrer' THEN s.referrer
            WHEN 'channel' THEN s.channel
            WHEN 'utm_source' THEN s.utm_source
            WHEN 'utm_medium' THEN s.utm_medium
            WHEN 'utm_campaign' THEN s.utm_campaign
            WHEN 'browser' THEN s.browser
            WHEN 'os' THEN s.os
            WHEN 'device_type' THEN s.device_type
            WHEN 'country' THEN s.country
        END AS value,
        s.who,
        s.is_bounce,
        s.duration_ms
    FROM analytics_session_rows AS s
    WHERE s.started_at >= $1 AND s.started_at < $2
        AND ($4 IS NULL OR s.service = $4)
        AND ($5 IS NULL OR s.environment = $5)
),
labels AS (
    SELECT
        r.value,
        CASE WHEN r.place > $6 THEN 'other' ELSE r.value END AS label
    FROM (
        SELECT c.value, row_number() OVER (ORDER BY c.sessions DESC, c.value) AS place
        FROM (
            SELECT s.value, count(*) AS sessions
            FROM sessions AS s
            WHERE s.value <> 'other'  -- what an application calls so is among the others
            GROUP BY s.value
        ) AS c
    ) AS r
),
sums AS (
    SELECT
        coalesce(l.label, s.value) AS value,
        s.who,
        count(*) AS sessions,
        count(s.is_bounce) AS with_pages,
        count(*) FILTER (WHERE s.is_bounce) AS bounces,
        sum(s.duration_ms) AS duration_ms
    FROM sessions AS s
    LEFT JOIN labels AS l ON l.value = s.value
    GROUP BY 1, 2
)
SELECT
    s.value,
    sum(s.sessions) AS sessions,
    count(s.who) AS visitors,
    sum(s.bounces) * 1.0 / nullif(sum(s.with_pages), 0) AS bounce_rate,
    sum(s.duration_ms) / sum(s.sessions) AS avg_duration_ms
FROM sums AS s
GROUP BY s.value
ORDER BY s.value IS NULL, s.value = 'other', sessions DESC, s.value;
