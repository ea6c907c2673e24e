-- Which way people go: what follows what within sessions.

-- steps --
-- Count the sessions that have a name at a position of their path, with a null next name, and those that go from it to
-- another at the next position. $1 and $2 are the range in which the sessions began, $3 is the service and $4 the
-- environment, $5 the name that a path begins with and $6 that it ends with, $7 is the greatest number of steps, $8 that
-- of names at a position, $9 that of rows.
--
-- Sessions are told from the events. Only those that reach over an end of the range are looked up: one that began before
-- it is left out, and one that began in it is followed to its end. `page_engaged` is no step, but keeps a session going.
-- Keys are compared by 128 bits of their hashes, which are faster to sort.
WITH over_edges AS MATERIALIZED (
    SELECT
        s.key, s.given, s.started_at, s.ended_at,
        hashtextextended(s.key, s.given::integer) AS hash,
        hashtextextended(s.key, 2 + s.given::integer) AS other_hash
    FROM analytics_session_rows AS s
    WHERE s.started_at < $2 AND s.ended_at >= $1 AND (s.started_at < $1 OR s.ended_at >= $2)
),
events AS (
    -- OFFSET 0: what is sorted is the hashes and the name, not the JSON that they are read from.
    SELECT
        coalesce(r.session_id, r.context ->> 'visitor', r.user_id::text) AS key,
        r.session_id IS NOT NULL AS given,
        r.timestamp,
        r.id,
        CASE
            WHEN r.event_type = 'page_view' THEN coalesce(r.data ->> 'page', 'page_view')
            WHEN r.event_type <> 'page_engaged' THEN r.event_type
        END AS name,
        CASE WHEN $3::text IS NOT NULL THEN r.service END AS service,
        CASE WHEN $4::text IS NOT NULL THEN r.context ->> 'environment' END AS environment
    FROM analytics_events AS r
    WHERE r.timestamp >= $1::timestamptz AND r.timestamp < $2::timestamptz
        AND r.event_type NOT IN ('api_request', 'database_query', 'application_error')
    OFFSET 0
),
later_events AS (
    SELECT
        o.hash,
        o.other_hash,
        o.given,
        r.timestamp,
        r.id,
        CASE
            WHEN r.event_type = 'page_view' THEN coalesce(r.data ->> 'page', 'page_view')
            WHEN r.event_type <> 'page_engaged' THEN r.event_type
        END AS name,
        CASE WHEN $3::text IS NOT NULL THEN r.service END AS service,
        CASE WHEN $4::text IS NOT NULL THEN r.context ->> 'environment' END AS environment
    FROM analytics_events AS r
    JOIN over_edges AS o
        ON o.key = coalesce(r.session_id, r.context ->> 'visitor', r.user_id::text)
        AND o.given = (r.session_id IS NOT NULL)
    WHERE o.started_at >= $1 AND r.timestamp <= o.ended_at
        AND r.timestamp >= $2::timestamptz
        AND r.timestamp <= (SELECT max(l.ended_at) FROM over_edges AS l WHERE l.started_at >= $1)
        AND r.event_type NOT IN ('api_request', 'database_query', 'application_error')
),
parts AS (
    -- As no silence of more than 30 minutes fits into a half hour, what one key does in it is a part of one session.
    SELECT
        e.hash,
        e.other_hash,
        date_bin('30 minutes', e.timestamp, '2000-01-01 00:00:00+00') AS bucket,
        bool_or(e.given) AS given,
        min(e.timestamp) AS first_at,
        max(e.timestamp) AS last_at,
        min(e.timestamp) FILTER (WHERE e.name IS NOT NULL) AS started_at,
        array_agg(e.name ORDER BY e.timestamp, e.id) FILTER (WHERE e.name IS NOT NULL) AS names,
        CASE
            WHEN $3::text IS NOT NULL
                THEN (array_agg(e.service ORDER BY e.timestamp, e.id) FILTER (WHERE e.name IS NOT NULL))[1]
        END AS service,
        CASE
            WHEN $4::text IS NOT NULL
                THEN (array_agg(e.environment ORDER BY e.timestamp, e.id) FILTER (WHERE e.name IS NOT NULL))[1]
        END AS environment
    FROM (
        SELECT
            hashtextextended(i.key, i.given::integer) AS hash,
            hashtextextended(i.key, 2 + i.given::integer) AS other_hash,
            i.given, i.timestamp, i.id, i.name, i.service, i.environment
        FROM events AS i
        WHERE i.key IS NOT NULL
        UNION ALL
        SELECT * FROM later_events
    ) AS e
    GROUP BY e.hash, e.other_hash, bucket
),
numbered AS (
    SELECT
        c.*,
        count(*) FILTER (WHERE c.is_after_silence) OVER (
            PARTITION BY c.hash, c.other_hash ORDER BY c.bucket ROWS UNBOUNDED PRECEDING
        ) AS number
    FROM (
        SELECT
            p.*,
            NOT p.given AND p.first_at - lag(p.last_at) OVER (PARTITION BY p.hash, p.other_hash ORDER BY p.bucket)
                > INTERVAL '30 minutes' AS is_after_silence
        FROM parts AS p
    ) AS c
),
placed AS (
    -- Each part of a session with the number of steps before it, and the first step after it.
    SELECT
        n.hash,
        n.other_hash,
        n.number,
        n.names,
        (sum(cardinality(n.names)) OVER of_session - cardinality(n.names))::integer AS before,
        lead(n.names[1]) OVER of_session AS next_name,
        first_value(n.started_at) OVER of_session AS started_at,
        first_value(n.service) OVER of_session AS service,
        first_value(n.environment) OVER of_session AS environment
    FROM numbered AS n
    WHERE n.names IS NOT NULL
    WINDOW of_session AS (PARTITION BY n.hash, n.other_hash, n.number ORDER BY n.bucket)
),
begun AS (
    SELECT
        p.*,
        CASE
            WHEN $5::text IS NULL THEN 1
            ELSE min(p.before + array_position(p.names, $5)) OVER (PARTITION BY p.hash, p.other_hash, p.number)
        END AS first
    FROM placed AS p
    WHERE ($3::text IS NULL OR p.service = $3) AND ($4::text IS NULL OR p.environment = $4)
        AND NOT EXISTS (
            SELECT FROM over_edges AS o
            WHERE o.hash = p.hash AND o.other_hash = p.other_hash
                AND o.started_at < $1 AND p.started_at <= o.ended_at
        )
),
ended AS (
    SELECT
        b.*,
        CASE
            WHEN $6::text IS NULL THEN b.first + $7::integer - 1
            ELSE min(
                b.before + array_position(
                    b.names, $6, greatest(1, b.first - b.before + ($5::text IS NOT NULL)::integer)
                )
            ) OVER (PARTITION BY b.hash, b.other_hash, b.number)
        END AS last
    FROM begun AS b
    WHERE b.first IS NOT NULL
),
chosen AS (
    SELECT
        e.names,
        array_append(e.names, e.next_name) AS names_and_next,
        e.before,
        greatest(e.first, e.last - $7::integer + 1) AS first,
        e.last
    FROM ended AS e
    WHERE e.last > e.before
),
counts AS MATERIALIZED (
    SELECT
        c.before + c.since - 1 + s.number - CASE WHEN $6::text IS NULL THEN c.first - 1 ELSE c.last - $7::integer END
            AS position,
        s.name,
        CASE WHEN c.before + c.since - 1 + s.number < c.last THEN s.next_name END AS next_name,
        count(*) AS sessions
    FROM (SELECT h.*, greatest(1, h.first - h.before) AS since FROM chosen AS h) AS c
    CROSS JOIN LATERAL unnest(
        c.names[c.since:c.last - c.before], c.names_and_next[c.since + 1:c.last - c.before + 1]
    ) WITH ORDINALITY AS s (name, next_name, number)
    GROUP BY 1, 2, 3
),
labels AS (
    SELECT r.position, r.name, CASE WHEN r.rank > $8::bigint THEN 'other' ELSE r.name END AS label
    FROM (
        SELECT
            c.position, c.name,
            row_number() OVER (
                PARTITION BY c.position ORDER BY c.name = 'other', sum(c.sessions) DESC, c.name
            ) AS rank
        FROM counts AS c
        GROUP BY c.position, c.name
    ) AS r
),
labelled AS (
    SELECT c.position, l.label AS name, n.label AS next_name, c.sessions
    FROM counts AS c
    JOIN labels AS l ON l.position = c.position AND l.name = c.name
    LEFT JOIN labels AS n ON n.position = c.position + 1 AND n.name = c.next_name
)
SELECT l.position, l.name, NULL AS next_name, sum(l.sessions)::bigint AS sessions
FROM labelled AS l
GROUP BY l.position, l.name
UNION ALL
SELECT l.position, l.name, l.next_name, sum(l.sessions)::bigint
FROM labelled AS l
WHERE l.next_name IS NOT NULL
GROUP BY l.position, l.name, l.next_name
ORDER BY sessions DESC, position, name, next_name
LIMIT $9;
