-- Features: how often each type of event was tracked, by quarter hours of types and days of users, and raw rows for
-- what is not a whole day of UTC.

-- usage --
-- Count the events and the distinct users of each feature by bucket, the oldest first and the most used first. $1 to $4
-- are the bounds of the three parts, $5 the edges of the buckets, $6 is the service, $7 the features to list and $8
-- those to look at, both null for all; $9 are the names whose success two types tell, …_completed and …_failed, also
-- where one of them did not happen; $10 tells that each day is a bucket of its own, whose users are counted; $11 is the
-- greatest number of rows.
WITH raw AS MATERIALIZED (
    SELECT r.timestamp, r.event_type, r.user_id, r.duration_ms, r.success
    FROM analytics_event_facts AS r
    WHERE (r.timestamp >= $1 AND r.timestamp < $2 OR r.timestamp >= $3 AND r.timestamp < $4)
        AND ($6 IS NULL OR r.service = $6) AND ($8 IS NULL OR r.event_type IN (SELECT j.value FROM json_each($8) AS j))
        AND r.event_type NOT IN ('api_request', 'database_query', 'application_error', 'page_view', 'page_engaged')
),
hits AS (
    SELECT
        analytics_bucket(h.at, 5) AS bucket,
        h.event_type,
        sum(h.events) AS events,
        sum(h.measured) AS measured,
        sum(h.duration_ms) AS duration_ms,
        sum(h.succeeded) AS succeeded,
        sum(h.failed) AS failed
    FROM (
        SELECT q.quarter AS at, q.event_type, q.events, q.measured, q.duration_ms, q.succeeded, q.failed
        FROM analytics_type_quarters AS q
        WHERE q.quarter >= $2 AND q.quarter < $3 AND ($6 IS NULL OR q.service = $6)
            AND ($8 IS NULL OR q.event_type IN (SELECT j.value FROM json_each($8) AS j))
            AND q.event_type NOT IN ('api_request', 'database_query', 'application_error', 'page_view', 'page_engaged')
        UNION ALL
        SELECT
            r.timestamp, r.event_type, 1, r.duration_ms IS NOT NULL, r.duration_ms, coalesce(r.success = 'true', 0),
            coalesce(r.success = 'false', 0)
        FROM raw AS r
    ) AS h
    GROUP BY 1, 2
),
users AS (
    SELECT analytics_bucket(d.day, 5) AS bucket, d.event_type, d.unique_users
    FROM (
        SELECT t.day, t.event_type, t.unique_users
        FROM analytics_type_days_filled AS t
        WHERE $10 AND $6 IS NULL AND t.day >= $2 AND t.day < $3
        UNION ALL
        SELECT t.day, t.event_type, t.unique_users
        FROM analytics_service_type_days_filled AS t
        WHERE $10 AND t.service = $6 AND t.day >= $2 AND t.day < $3
    ) AS d
    UNION ALL
    SELECT u.bucket, u.event_type, count(*)
    FROM (
        SELECT DISTINCT analytics_bucket(h.at, 5) AS bucket, h.event_type, h.user_id
        FROM (
            SELECT d.day AS at, d.event_type, d.user_id
            FROM analytics_user_types_daily_filled AS d
            WHERE NOT $10 AND d.day >= $2 AND d.day < $3 AND ($6 IS NULL OR d.service = $6)
                AND ($7 IS NULL OR d.event_type IN (SELECT j.value FROM json_each($7) AS j))
                AND d.event_type NOT IN (
                    'api_request', 'database_query', 'application_error', 'page_view', 'page_engaged'
                )
            UNION ALL
            SELECT r.timestamp, r.event_type, r.user_id FROM raw AS r
        ) AS h
        WHERE h.user_id IS NOT NULL
    ) AS u
    GROUP BY u.bucket, u.event_type
),
named AS (
    -- Of …_completed and …_failed, what stands before.
    SELECT
        h.*,
        CASE
            WHEN h.event_type GLOB '*_completed' THEN substr(h.event_type, 1, length(h.event_type) - 10)
            WHEN h.event_type GLOB '*_failed' THEN substr(h.event_type, 1, length(h.event_type) - 7)
        END AS name
    FROM hits AS h
),
pairs AS (
    SELECT
        h.bucket, h.name,
        sum(CASE WHEN h.event_type = h.name || '_completed' THEN h.events ELSE 0 END) * 1.0 / sum(h.events) AS rate
    FROM named AS h
    WHERE h.name IS NOT NULL
        AND (
            h.name IN (SELECT j.value FROM json_each($9) AS j)
            OR h.name IN (SELECT o.name FROM named AS o GROUP BY o.name HAVING count(DISTINCT o.event_type) = 2)
        )
    GROUP BY h.bucket, h.name
)
SELECT
    h.event_type AS feature_name,
    h.bucket,
    h.events AS usage_count,
    coalesce(u.unique_users, 0) AS unique_users,
    h.duration_ms / nullif(h.measured, 0) AS avg_duration_ms,
    CASE
        WHEN h.succeeded + h.failed > 0 THEN h.succeeded * 1.0 / (h.succeeded + h.failed)
        WHEN p.name IS NOT NULL THEN p.rate
    END AS success_rate
FROM named AS h
LEFT JOIN users AS u ON u.bucket = h.bucket AND u.event_type = h.event_type
LEFT JOIN pairs AS p ON p.bucket = h.bucket AND p.name = h.name
WHERE $7 IS NULL OR h.event_type IN (SELECT j.value FROM json_each($7) AS j)
ORDER BY h.bucket, usage_count DESC, h.event_type
LIMIT $11;
