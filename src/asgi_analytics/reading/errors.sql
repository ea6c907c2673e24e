-- Application errors: hours from their aggregate, everything about a single group from the raw rows.

-- summary --
-- Count errors by hour, service, type and fingerprint. $1 to $4 are the bounds of the three parts, $5 the edges of the
-- hours, $6 is the service, $7 the greatest number of rows.
SELECT s.*
FROM (
    SELECT
        width_bucket(h.hour, $5::timestamptz[]) AS bucket, h.service, h.error_type, h.fingerprint, h.error_count,
        h.affected_users, h.sample_error_message
    FROM analytics_errors_hourly AS h
    WHERE h.hour >= $2 AND h.hour < $3 AND ($6::text IS NULL OR h.service = $6)
    UNION ALL
    SELECT
        width_bucket(e.timestamp, $5::timestamptz[]),
        e.service,
        e.data ->> 'error_type',
        e.data ->> 'fingerprint',
        count(*),
        count(DISTINCT e.user_id),
        min((e.data ->> 'error_message') COLLATE "C")
    FROM (
        SELECT r.timestamp, r.service, r.user_id, r.data
        FROM analytics_events AS r
        WHERE r.timestamp >= $1 AND r.timestamp < $2 AND r.event_type = 'application_error'
            AND ($6::text IS NULL OR r.service = $6)
        UNION ALL
        SELECT r.timestamp, r.service, r.user_id, r.data
        FROM analytics_events AS r
        WHERE r.timestamp >= $3 AND r.timestamp < $4 AND r.event_type = 'application_error'
            AND ($6::text IS NULL OR r.service = $6)
    ) AS e
    GROUP BY 1, 2, 3, 4
) AS s
ORDER BY s.bucket, s.service, s.error_count DESC, s.error_type, s.fingerprint
LIMIT $7;

-- groups --
-- Describe each group of errors, most frequent first. $1 are the edges of the buckets of the trend, whose ends are those
-- of the range; $2 is the service, $3 the environment, $4 a fingerprint, each null for any; $5 the greatest number of rows.
-- What is said of a group is said by its newest error.
WITH errors AS (
    SELECT
        e.data ->> 'fingerprint' AS fingerprint, e.timestamp, e.id, e.service, e.user_id, e.data,
        width_bucket(e.timestamp, $1::timestamptz[]) AS bucket
    FROM analytics_events AS e
    WHERE e.timestamp >= ($1::timestamptz[])[1] AND e.timestamp < ($1::timestamptz[])[cardinality($1::timestamptz[])]
        AND e.event_type = 'application_error'
        AND ($2::text IS NULL OR e.service = $2)
        AND ($3::text IS NULL OR e.context ->> 'environment' = $3)
        AND ($4::text IS NULL OR e.data ->> 'fingerprint' = $4)
),
totals AS (
    SELECT
        r.fingerprint,
        count(*) AS error_count,
        count(DISTINCT r.user_id) AS affected_users,
        min(r.timestamp) AS first_seen_at,
        max(r.timestamp) AS last_seen_at,
        min((r.data ->> 'error_message') COLLATE "C") AS sample_error_message
    FROM errors AS r
    GROUP BY r.fingerprint
    ORDER BY error_count DESC, last_seen_at DESC, r.fingerprint
    LIMIT $5
),
newest AS (
    SELECT DISTINCT ON (r.fingerprint)
        r.fingerprint, r.service, r.data ->> 'error_type' AS error_type, r.data ->> 'endpoint' AS endpoint,
        r.data ->> 'handled' = 'true' AS handled, r.data -> 'stack' AS stack
    FROM errors AS r
    ORDER BY r.fingerprint, r.timestamp DESC, r.id DESC
),
trends AS (
    SELECT c.fingerprint, array_agg(c.bucket) AS buckets, array_agg(c.errors) AS counts
    FROM (SELECT r.fingerprint, r.bucket, count(*) AS errors FROM errors AS r GROUP BY 1, 2) AS c
    GROUP BY c.fingerprint
)
SELECT
    t.fingerprint, n.error_type, t.sample_error_message, n.endpoint, n.service, t.error_count, t.affected_users,
    t.first_seen_at, t.last_seen_at, n.handled, d.buckets, d.counts, n.stack
FROM totals AS t
-- Arrays, because nulls in them are equal, and because they can be hashed.
JOIN newest AS n ON ARRAY[n.fingerprint] = ARRAY[t.fingerprint]
JOIN trends AS d ON ARRAY[d.fingerprint] = ARRAY[t.fingerprint]
ORDER BY t.error_count DESC, t.last_seen_at DESC, t.fingerprint;

-- occurrences --
-- List the newest errors of a group. $1 and $2 are the range, $3 is the fingerprint, $4 the service, $5 the environment.
SELECT
    e.id, e.timestamp, e.service, e.user_id, e.data ->> 'error_message' AS error_message,
    e.context ->> 'request_id' AS request_id, e.context ->> 'trace_id' AS trace_id
FROM analytics_events AS e
WHERE e.timestamp >= $1 AND e.timestamp < $2 AND e.event_type = 'application_error'
    AND e.data ->> 'fingerprint' = $3
    AND ($4::text IS NULL OR e.service = $4)
    AND ($5::text IS NULL OR e.context ->> 'environment' = $5)
ORDER BY e.timestamp DESC, e.id DESC
LIMIT 20;
