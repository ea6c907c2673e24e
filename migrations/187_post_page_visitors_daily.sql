-- Aggregate page views by day, service, page and who they are counted for, for the distinct visitors of each page

-- Who: a hash of the user, else of the visitor, to count them by; null for who is counted and not followed. `measured`
-- counts how often a page told for how long it was visible. Distinct visitors of a longer range are counted over all of
-- it.

-- timescaledb

CREATE MATERIALIZED VIEW analytics_page_visitors_daily
WITH (timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false) AS
SELECT
    time_bucket('1 day', timestamp) AS day,
    service,
    data ->> 'page' AS page,
    md5(coalesce(user_id::text, context ->> 'visitor'))::uuid AS who,
    count(*) FILTER (WHERE event_type = 'page_view') AS page_views,
    count(analytics_amount(data -> 'visible_ms')) FILTER (WHERE event_type = 'page_engaged') AS measured,
    sum(analytics_amount(data -> 'visible_ms')) FILTER (WHERE event_type = 'page_engaged') AS visible_ms
FROM analytics_events
WHERE event_type IN ('page_view', 'page_engaged') AND data ->> 'page' IS NOT NULL
GROUP BY day, service, page, who
WITH NO DATA;

SELECT analytics_keep_fresh('analytics_page_visitors_daily');

-- postgresql

CREATE FUNCTION analytics_page_visitors_daily_live(since timestamptz, until timestamptz) RETURNS TABLE (
    day timestamptz,
    service text,
    page text,
    who uuid,
    page_views bigint,
    measured bigint,
    visible_ms float8
)
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
    SELECT
        analytics_bucket('1 day', timestamp) AS day,
        service,
        data ->> 'page' AS page,
        md5(coalesce(user_id::text, context ->> 'visitor'))::uuid AS who,
        count(*) FILTER (WHERE event_type = 'page_view') AS page_views,
        count(analytics_amount(data -> 'visible_ms')) FILTER (WHERE event_type = 'page_engaged') AS measured,
        sum(analytics_amount(data -> 'visible_ms')) FILTER (WHERE event_type = 'page_engaged') AS visible_ms
    FROM analytics_events
    WHERE timestamp >= since AND timestamp < until
        AND event_type IN ('page_view', 'page_engaged') AND data ->> 'page' IS NOT NULL
    GROUP BY day, service, page, who;
    END;

SELECT analytics_make_filled('analytics_page_visitors_daily', '1 day');
