-- Application errors: hours from their aggregate, everything about a single group from the raw rows.

-- summary --
-- Count errors by hour, service, type and fingerprint. $1 to $4 are the bounds of the three parts, $5 the edges of the
-- hours, $6 is the service, $7 the greatest number of rows.
SELECT s.*
FROM (
    SELECT
        analytics_bucket(h.hour, 5) AS bucket, h.service, h.error_type, h.fingerprint, h.error_count,
        h.affected_users, h.sample_error_message
    FROM analytics_errors_hourly AS h
    WHERE h.hour >= $2 AND h.hour < $3 AND ($6 IS NULL OR h.service = $6)
    UNION ALL
    SELECT
        analytics_bucket(e.timestamp, 5),
        e.service,
        e.error_type,
        e.fingerprint,
        count(*),
        count(DISTINCT e.user_id),
        min(e.error_message)
    FROM analytics_event_facts AS e
    WHERE (e.timestamp >= $1 AND e.timestamp < $2 OR e.timestamp >= $3 AND e.timestamp < $4)
        AND e.event_type = 'application_error'
        AND ($6 IS NULL OR e.service = $6)
    GROUP BY 1, 2, 3, 4
) AS s
ORDER BY s.bucket, s.service, s.error_count DESC, s.error_type NULLS LAST, s.fingerprint NULLS LAST
LIMIT $7;

-- groups --
-- Describe each group of errors, most frequent first. $1 are the edges of the buckets of the trend, whose ends are those
-- of the range; $2 is the service, $3 the environment, $4 a fingerprint, each null for any; $5 the greatest number of rows.
-- What is said of a group is said by its newest error.
WITH errors AS MATERIALIZED (
    SELECT
        e.fingerprint, e.timestamp, e.id, e.service, e.user_id, e.error_message,
        analytics_bucket(e.timestamp, 1) AS bucket
    FROM analytics_event_facts AS e
    WHERE e.timestamp >= json_extract($1, '$[0]') AND e.timestamp < json_extract($1, '$[#-1]')
        AND e.event_type = 'application_error'
        AND ($2 IS NULL OR e.service = $2)
        AND ($3 IS NULL OR e.environment = $3)
        AND ($4 IS NULL OR e.fingerprint = $4)
),
totals AS (
    SELECT
        r.fingerprint,
        count(*) AS error_count,
        count(DISTINCT r.user_id) AS affected_users,
        min(r.timestamp) AS first_seen_at,
        max(r.timestamp) AS last_seen_at,
        min(r.error_message) AS sample_error_message
    FROM errors AS r
    GROUP BY r.fingerprint
    ORDER BY error_count DESC, last_seen_at DESC, r.fingerprint NULLS LAST
    LIMIT $5
),
newest AS (
    SELECT r.fingerprint, r.service, r.timestamp, r.id
    FROM (
        SELECT
            e.fingerprint, e.service, e.timestamp, e.id,
            row_number() OVER (PARTITION BY e.fingerprint ORDER BY e.timestamp DESC, e.id DESC) AS place
        FROM errors AS e
    ) AS r
    WHERE r.place = 1
),
trends AS (
    SELECT c.fingerprint, json_group_array(c.bucket) AS buckets, json_group_array(c.errors) AS counts
    FROM (SELECT r.fingerprint, r.bucket, count(*) AS errors FROM errors AS r GROUP BY 1, 2) AS c
    GROUP BY c.fingerprint
)
SELECT
    t.fingerprint,
    e.error_type,
    t.sample_error_message,
    e.endpoint,
    n.service,
    t.error_count,
    t.affected_users,
    t.first_seen_at AS "first_seen_at::timestamptz",
    t.last_seen_at AS "last_seen_at::timestamptz",
    analytics_text(e.data, 'handled') = 'true' AS "handled::boolean",
    d.buckets AS "buckets::json",
    d.counts AS "counts::json",
    CASE
        WHEN json_type(e.data, '$.stack') IN ('array', 'object') THEN json_extract(e.data, '$.stack')
    END AS stack
FROM totals AS t
JOIN newest AS n ON n.fingerprint IS t.fingerprint
JOIN trends AS d ON d.fingerprint IS t.fingerprint
JOIN analytics_event_facts AS e ON e.timestamp = n.timestamp AND e.id = n.id
ORDER BY t.error_count DESC, t.last_seen_at DESC, t.fingerprint NULLS LAST;

-- occurrences --
-- List the newest errors of a group. $1 and $2 are the range, $3 is the fingerprint, $4 the service, $5 the environment.
SELECT
    e.id AS "id::uuid", e.timestamp AS "timestamp::timestamptz", e.service, e.user_id AS "user_id::uuid", e.error_message,
    analytics_text(e.context, 'request_id') AS request_id, analytics_text(e.context, 'trace_id') AS trace_id
FROM analytics_event_facts AS e
WHERE e.timestamp >= $1 AND e.timestamp < $2 AND e.event_type = 'application_error'
    AND e.fingerprint = $3
    AND ($4 IS NULL OR e.service = $4)
    AND ($5 IS NULL OR e.environment = $5)
ORDER BY e.timestamp DESC, e.id DESC
LIMIT 20;
