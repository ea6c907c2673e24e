-- Pages: days of each page and visitor, raw rows for what is not a whole day of UTC, and the sessions that led to them.

-- pages --
-- List the pages that were viewed, the most viewed first. $1 to $4 are the bounds of the three parts, $5 is the
-- service, $6 the greatest number of rows. Entries and exits are those of sessions that began in the range.
WITH hits AS MATERIALIZED (
    SELECT d.page, d.who, d.page_views, d.measured, d.visible_ms
    FROM analytics_page_visitors_daily AS d
    WHERE d.day >= $2 AND d.day < $3 AND ($5 IS NULL OR d.service = $5)
    UNION ALL
    SELECT
        e.page,
        coalesce(e.user_id, e.visitor),
        e.event_type = 'page_view',
        e.event_type = 'page_engaged' AND e.visible_ms IS NOT NULL,
        CASE WHEN e.event_type = 'page_engaged' THEN e.visible_ms END
    FROM analytics_event_facts AS e
    WHERE (e.timestamp >= $1 AND e.timestamp < $2 OR e.timestamp >= $3 AND e.timestamp < $4)
        AND e.event_type IN ('page_view', 'page_engaged')
        AND ($5 IS NULL OR e.service = $5) AND e.page IS NOT NULL
),
pages AS (
    SELECT
        h.page,
        sum(h.page_views) AS page_views,
        sum(h.visible_ms) / nullif(sum(h.measured), 0) AS avg_visible_ms
    FROM hits AS h
    GROUP BY h.page
    HAVING sum(h.page_views) > 0
),
visitors AS (
    SELECT v.page, count(*) AS visitors
    FROM (SELECT DISTINCT h.page, h.who FROM hits AS h WHERE h.page_views > 0 AND h.who IS NOT NULL) AS v
    GROUP BY v.page
),
sessions AS MATERIALIZED (
    SELECT s.landing_page, s.exit_page, count(*) AS sessions
    FROM analytics_session_rows AS s
    WHERE s.started_at >= $1 AND s.started_at < $4 AND s.page_views > 0 AND ($5 IS NULL OR s.service = $5)
    GROUP BY s.landing_page, s.exit_page
),
ends AS (
    SELECT e.page, sum(e.entries) AS entries, sum(e.exits) AS exits
    FROM (
        SELECT s.landing_page AS page, s.sessions AS entries, 0 AS exits FROM sessions AS s
        UNION ALL
        SELECT s.exit_page, 0, s.sessions FROM sessions AS s
    ) AS e
    GROUP BY e.page
)
SELECT
    p.page, p.page_views, coalesce(v.visitors, 0) AS visitors, coalesce(e.entries, 0) AS entries,
    coalesce(e.exits, 0) AS exits, p.avg_visible_ms
FROM pages AS p
LEFT JOIN visitors AS v ON v.page = p.page
LEFT JOIN ends AS e ON e.page = p.page
ORDER BY p.page_views DESC, p.page
LIMIT $6;
