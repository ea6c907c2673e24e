-- Aggregate what sessions are made of by half hour and key, in parts that can be joined

-- The key is the session_id that was given, else the visitor, else the user. No silence of more than 30 minutes fits
-- into a half hour, so what one key does in it is always one part of one session.
--
-- What counts, `events`, are page views and tracked events. What is captured (requests, queries, errors) is left out.
-- `page_engaged` is none of the events, but it extends a session: `first_at` and `last_at` include it, and its times
-- are kept, because only what is said of a session that has begun, at that instant or later, belongs to it.
--
-- `user_id`, `visitor` and `exit_page` are the last ones that are known, all others are the first: `origin` is the
-- service and the environment; `client` the device type, browser, operating system, country and city of the first event
-- that tells; `entry` the page, referrer, channel and campaign (source, medium, name) of the first page view. Each is
-- one row of an array, `entry[1][1]`, for an aggregate of arrays is an array of two dimensions.

-- both

CREATE FUNCTION analytics_session_parts_live(since timestamptz, until timestamptz) RETURNS TABLE (
    bucket timestamptz,
    key text,
    given boolean,
    first_at timestamptz,
    last_at timestamptz,
    started_at timestamptz,
    events bigint,
    page_views bigint,
    user_id uuid,
    visitor text,
    origin text[],
    client text[],
    entry text[],
    exit_page text,
    engaged_at timestamptz[],
    engaged_ms float8[]
)
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
    SELECT
        analytics_bucket('30 minutes', timestamp) AS bucket,
        coalesce(session_id, context ->> 'visitor', user_id::text) AS key,
        session_id IS NOT NULL AS given,
        min(timestamp) AS first_at,
        max(timestamp) AS last_at,
        min(timestamp) FILTER (WHERE event_type <> 'page_engaged') AS started_at,
        count(*) FILTER (WHERE event_type <> 'page_engaged') AS events,
        count(*) FILTER (WHERE event_type = 'page_view') AS page_views,
        (array_agg(user_id ORDER BY timestamp, id) FILTER (
            WHERE event_type <> 'page_engaged' AND user_id IS NOT NULL
        ))[(count(user_id) FILTER (WHERE event_type <> 'page_engaged'))::integer] AS user_id,
        (array_agg(context ->> 'visitor' ORDER BY timestamp, id) FILTER (
            WHERE event_type <> 'page_engaged' AND context ->> 'visitor' IS NOT NULL
        ))[(count(context ->> 'visitor') FILTER (WHERE event_type <> 'page_engaged'))::integer] AS visitor,
        (array_agg(ARRAY[service, context ->> 'environment'] ORDER BY timestamp, id) FILTER (
            WHERE event_type <> 'page_engaged'
        ))[1:1] AS origin,
        (array_agg(
            ARRAY[
                context -> 'device' ->> 'device_type', context -> 'device' ->> 'browser', context -> 'device' ->> 'os',
                context -> 'geo' ->> 'country', context -> 'geo' ->> 'city'
            ] ORDER BY timestamp, id
        ) FILTER (
            WHERE event_type <> 'page_engaged'
                AND (jsonb_typeof(context -> 'device') = 'object' OR jsonb_typeof(context -> 'geo') = 'object')
        ))[1:1] AS client,
        (array_agg(
            ARRAY[
                data ->> 'page', data ->> 'referrer', data ->> 'channel',
                data ->> 'utm_source', data ->> 'utm_medium', data ->> 'utm_campaign'
            ] ORDER BY timestamp, id
        ) FILTER (WHERE event_type = 'page_view'))[1:1] AS entry,
        (array_agg(data ->> 'page' ORDER BY timestamp, id) FILTER (
            WHERE event_type = 'page_view'
        ))[(count(*) FILTER (WHERE event_type = 'page_view'))::integer] AS exit_page,
        array_agg(timestamp ORDER BY timestamp, id) FILTER (WHERE event_type = 'page_engaged') AS engaged_at,
        array_agg(analytics_amount(data -> 'visible_ms') ORDER BY timestamp, id) FILTER (
            WHERE event_type = 'page_engaged'
        ) AS engaged_ms
    FROM analytics_events
    WHERE timestamp >= since AND timestamp < until
        AND event_type NOT IN ('api_request', 'database_query', 'application_error')
        AND (session_id IS NOT NULL OR context ->> 'visitor' IS NOT NULL OR user_id IS NOT NULL)
    GROUP BY bucket, key, given;
    END;

-- timescaledb

-- It is never read in real time: joined by key, it would be planned again for each of them. The jobs fill it together
-- with the sessions, so it has no refresh policy: what a policy refreshed would be missing in the sessions for ever.
CREATE MATERIALIZED VIEW analytics_session_parts_filled
WITH (timescaledb.continuous, timescaledb.materialized_only = true, timescaledb.create_group_indexes = false) AS
SELECT
    time_bucket('30 minutes', timestamp) AS bucket,
    coalesce(session_id, context ->> 'visitor', user_id::text) AS key,
    session_id IS NOT NULL AS given,
    min(timestamp) AS first_at,
    max(timestamp) AS last_at,
    min(timestamp) FILTER (WHERE event_type <> 'page_engaged') AS started_at,
    count(*) FILTER (WHERE event_type <> 'page_engaged') AS events,
    count(*) FILTER (WHERE event_type = 'page_view') AS page_views,
    (array_agg(user_id ORDER BY timestamp, id) FILTER (
        WHERE event_type <> 'page_engaged' AND user_id IS NOT NULL
    ))[(count(user_id) FILTER (WHERE event_type <> 'page_engaged'))::integer] AS user_id,
    (array_agg(context ->> 'visitor' ORDER BY timestamp, id) FILTER (
        WHERE event_type <> 'page_engaged' AND context ->> 'visitor' IS NOT NULL
    ))[(count(context ->> 'visitor') FILTER (WHERE event_type <> 'page_engaged'))::integer] AS visitor,
    (array_agg(ARRAY[service, context ->> 'environment'] ORDER BY timestamp, id) FILTER (
        WHERE event_type <> 'page_engaged'
    ))[1:1] AS origin,
    (array_agg(
        ARRAY[
            context -> 'device' ->> 'device_type', context -> 'device' ->> 'browser', context -> 'device' ->> 'os',
            context -> 'geo' ->> 'country', context -> 'geo' ->> 'city'
        ] ORDER BY timestamp, id
    ) FILTER (
        WHERE event_type <> 'page_engaged'
            AND (jsonb_typeof(context -> 'device') = 'object' OR jsonb_typeof(context -> 'geo') = 'object')
    ))[1:1] AS client,
    (array_agg(
        ARRAY[
            data ->> 'page', data ->> 'referrer', data ->> 'channel',
            data ->> 'utm_source', data ->> 'utm_medium', data ->> 'utm_campaign'
        ] ORDER BY timestamp, id
    ) FILTER (WHERE event_type = 'page_view'))[1:1] AS entry,
    (array_agg(data ->> 'page' ORDER BY timestamp, id) FILTER (
        WHERE event_type = 'page_view'
    ))[(count(*) FILTER (WHERE event_type = 'page_view'))::integer] AS exit_page,
    array_agg(timestamp ORDER BY timestamp, id) FILTER (WHERE event_type = 'page_engaged') AS engaged_at,
    array_agg(analytics_amount(data -> 'visible_ms') ORDER BY timestamp, id) FILTER (
        WHERE event_type = 'page_engaged'
    ) AS engaged_ms
FROM analytics_events
WHERE event_type NOT IN ('api_request', 'database_query', 'application_error')
    AND (session_id IS NOT NULL OR context ->> 'visitor' IS NOT NULL OR user_id IS NOT NULL)
GROUP BY bucket, key, given
WITH NO DATA;

-- To find the parts of one key. A hash, because a key may be longer than what fits into an entry of a tree. Without a
-- name: the index stands in a schema that all installations share.
CREATE INDEX ON analytics_session_parts_filled USING hash (key);

-- One row: up to here parts are filled, and sessions made of them. What is younger is computed when it is asked for.
CREATE TABLE analytics_session_fills (filled_until timestamptz NOT NULL);
INSERT INTO analytics_session_fills (filled_until) VALUES ('-infinity');

-- SECURITY DEFINER: who may read the views may know this.
CREATE FUNCTION analytics_sessions_filled_until() RETURNS timestamptz
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path FROM CURRENT
    AS $$ SELECT f.filled_until FROM analytics_session_fills AS f $$;

CREATE VIEW analytics_session_parts AS
SELECT filled.*
FROM analytics_session_parts_filled AS filled
WHERE filled.bucket < (SELECT analytics_sessions_filled_until())
UNION ALL
SELECT live.*
FROM (SELECT analytics_sessions_filled_until() AS filled_until) AS fills,
    analytics_session_parts_live(fills.filled_until, 'infinity') AS live;

-- postgresql

-- By the hour, because changes are noted by the hour.
SELECT analytics_make_filled('analytics_session_parts', '1 hour');

-- To find the parts of one key. A hash, because a key may be longer than what fits into an entry of a tree.
CREATE INDEX analytics_session_parts_filled_key_idx ON analytics_session_parts_filled USING hash (key);

-- SECURITY DEFINER: who may read the views may know this.
CREATE FUNCTION analytics_sessions_filled_until() RETURNS timestamptz
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path FROM CURRENT
    AS $$ SELECT f.filled_until FROM analytics_fills AS f WHERE f.view_name = 'analytics_session_parts' $$;
