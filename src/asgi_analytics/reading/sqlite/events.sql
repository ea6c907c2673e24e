-- The events themselves, newest first.

-- page --
-- List events. $1 and $2 are the range; the filters, each null for any, are $3 the types, $4 all types but these, $5 the
-- user, $6 the session, $7 and $8 a key of data and its value, $9 the fingerprint, $10 the endpoint, $11 the trace,
-- $12 the service, $13 the environment; $14 and $15 are the time and id of the last event of the page before, $16 is the
-- greatest number of rows.
SELECT
    e.id AS "id::uuid", e.event_type, e.timestamp AS "timestamp::timestamptz", e.service, e.data,
    e.user_id AS "user_id::uuid", e.session_id, e.context
FROM analytics_event_facts AS e
WHERE e.timestamp >= $1 AND e.timestamp < $2
    AND ($3 IS NULL OR e.event_type IN (SELECT j.value FROM json_each($3) AS j))
    AND ($4 IS NULL OR e.event_type NOT IN (SELECT j.value FROM json_each($4) AS j))
    AND ($5 IS NULL OR e.user_id = $5)
    AND ($6 IS NULL OR e.session_id = $6)
    AND ($7 IS NULL OR analytics_text(e.data, $7) IS NOT NULL)
    AND ($8 IS NULL OR analytics_text(e.data, $7) = $8)
    AND ($9 IS NULL OR e.fingerprint = $9)
    AND ($10 IS NULL OR e.endpoint = $10)
    AND ($11 IS NULL OR analytics_text(e.context, 'trace_id') = $11)
    AND ($12 IS NULL OR e.service = $12)
    AND ($13 IS NULL OR e.environment = $13)
    AND ($14 IS NULL OR (e.timestamp <= $14 AND (e.timestamp, e.id) < ($14, $15)))
ORDER BY e.timestamp DESC, e.id DESC
LIMIT $16;

-- total --
-- Count the same events, up to 10,001. $1 to $13 are those of the page.
SELECT count(*)
FROM (
    SELECT 1
    FROM analytics_event_facts AS e
    WHERE e.timestamp >= $1 AND e.timestamp < $2
        AND ($3 IS NULL OR e.event_type IN (SELECT j.value FROM json_each($3) AS j))
        AND ($4 IS NULL OR e.event_type NOT IN (SELECT j.value FROM json_each($4) AS j))
        AND ($5 IS NULL OR e.user_id = $5)
        AND ($6 IS NULL OR e.session_id = $6)
        AND ($7 IS NULL OR analytics_text(e.data, $7) IS NOT NULL)
        AND ($8 IS NULL OR analytics_text(e.data, $7) = $8)
        AND ($9 IS NULL OR e.fingerprint = $9)
        AND ($10 IS NULL OR e.endpoint = $10)
        AND ($11 IS NULL OR analytics_text(e.context, 'trace_id') = $11)
        AND ($12 IS NULL OR e.service = $12)
        AND ($13 IS NULL OR e.environment = $13)
    LIMIT 10001
) AS counted;
