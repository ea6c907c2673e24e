-- Aggregate what sessions are made of by half hour and key, in parts that can be joined

-- The key is the session_id that was given, else the visitor, else the user. No silence of more than 30 minutes fits
-- into a half hour, so what one key does in it is always one part of one session.
--
-- What counts, `events`, are page views and tracked events. What is captured (requests, queries, errors) is left out.
-- `page_engaged` is none of the events, but it extends a session: `first_at` and `last_at` include it, and its times
-- are kept, because only what is said of a session that has begun, at that instant or later, belongs to it.
--
-- `user_id`, `visitor` and `exit_page` are the last ones that are known, all others are the first, as JSON arrays:
-- `origin` is the service and the environment; `client` the device type, browser, operating system, country and city of
-- the first event that tells; `entry` the page, referrer, channel and campaign (source, medium, name) of the first page
-- view; `engaged` are pairs of a time and what was visible then, in ms. The first and the last are found by texts that
-- begin with the time and the id, 63 characters.

INSERT INTO analytics_fills (view_name, bucket_column, step) VALUES ('analytics_session_parts', 'bucket', 'hour');

CREATE VIEW analytics_session_parts_live AS
SELECT
    e.half_hour AS bucket,
    coalesce(e.session_id, e.visitor, e.user_id) AS key,
    e.session_id IS NOT NULL AS given,
    min(e.timestamp) AS first_at,
    max(e.timestamp) AS last_at,
    min(CASE WHEN e.event_type <> 'page_engaged' THEN e.timestamp END) AS started_at,
    count(*) FILTER (WHERE e.event_type <> 'page_engaged') AS events,
    count(*) FILTER (WHERE e.event_type = 'page_view') AS page_views,
    substr(max(CASE WHEN e.event_type <> 'page_engaged' THEN e.timestamp || e.id || e.user_id END), 64) AS user_id,
    substr(max(CASE WHEN e.event_type <> 'page_engaged' THEN e.timestamp || e.id || e.visitor END), 64) AS visitor,
    substr(
        min(CASE WHEN e.event_type <> 'page_engaged' THEN e.timestamp || e.id || json_array(e.service, e.environment) END),
        64
    ) AS origin,
    substr(
        min(
            CASE
                WHEN e.event_type <> 'page_engaged'
                    AND (json_type(e.context, '$.device') = 'object' OR json_type(e.context, '$.geo') = 'object')
                    THEN e.timestamp || e.id || json_array(
                        json_extract(e.context, '$.device.device_type'), json_extract(e.context, '$.device.browser'),
                        json_extract(e.context, '$.device.os'), json_extract(e.context, '$.geo.country'),
                        json_extract(e.context, '$.geo.city')
                    )
            END
        ),
        64
    ) AS client,
    substr(
        min(
            CASE
                WHEN e.event_type = 'page_view'
                    THEN e.timestamp || e.id || json_array(
                        e.page, json_extract(e.data, '$.referrer'), json_extract(e.data, '$.channel'),
                        json_extract(e.data, '$.utm_source'), json_extract(e.data, '$.utm_medium'),
                        json_extract(e.data, '$.utm_campaign')
                    )
            END
        ),
        64
    ) AS entry,
    nullif(
        substr(max(CASE WHEN e.event_type = 'page_view' THEN e.timestamp || e.id || coalesce(e.page, '') END), 64), ''
    ) AS exit_page,
    CASE
        WHEN count(*) FILTER (WHERE e.event_type = 'page_engaged') > 0
            THEN json_group_array(json_array(e.timestamp, e.visible_ms)) FILTER (WHERE e.event_type = 'page_engaged')
    END AS engaged
FROM analytics_event_facts AS e
WHERE e.timestamp >= (SELECT f.live_since FROM analytics_fills AS f WHERE f.view_name = 'analytics_session_parts')
    AND e.timestamp < (SELECT f.live_until FROM analytics_fills AS f WHERE f.view_name = 'analytics_session_parts')
    AND e.event_type NOT IN ('api_request', 'database_query', 'application_error')
    AND coalesce(e.session_id, e.visitor, e.user_id) IS NOT NULL
GROUP BY e.half_hour, coalesce(e.session_id, e.visitor, e.user_id), e.session_id IS NOT NULL;

CREATE TABLE analytics_session_parts_filled (
    bucket TEXT NOT NULL,
    key TEXT NOT NULL,
    given INTEGER NOT NULL,
    first_at TEXT NOT NULL,
    last_at TEXT NOT NULL,
    started_at TEXT,
    events INTEGER NOT NULL,
    page_views INTEGER NOT NULL,
    user_id TEXT,
    visitor TEXT,
    origin TEXT,
    client TEXT,
    entry TEXT,
    exit_page TEXT,
    engaged TEXT
);
CREATE INDEX analytics_session_parts_filled_bucket_idx ON analytics_session_parts_filled (bucket);
CREATE INDEX analytics_session_parts_filled_key_idx ON analytics_session_parts_filled (key, bucket);
