-- Which way people go: what follows what within sessions.

-- steps --
-- Count the sessions that have a name at a position of their path, with a null next name, and those that go from it to
-- another at the next position. $1 and $2 are the range in which the sessions began, $3 is the service and $4 the
-- environment, $5 the name that a path begins with and $6 that it ends with, $7 is the greatest number of steps, $8 that
-- of names at a position, $9 that of rows.
--
-- Sessions are told from the events. Only those that reach over an end of the range are looked up: one that began before
-- it is left out, and one that began in it is followed to its end. `page_engaged` is no step, but keeps a session going.
WITH over_edges AS MATERIALIZED (
    SELECT s.key, s.given, s.started_at, s.ended_at
    FROM analytics_session_rows AS s
    WHERE s.started_at < $2 AND s.ended_at >= $1 AND (s.started_at < $1 OR s.ended_at >= $2)
),
events AS (
    -- OFFSET 0: what is sorted is the key and the name, not the JSON that they are read from.
    SELECT
        coalesce(r.session_id, r.context ->> 'visitor', r.user_id::text) COLLATE "C" AS key,
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
        o.key COLLATE "C" AS key,
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
numbered AS (
    SELECT
        c.*,
        count(*) FILTER (WHERE c.is_after_silence) OVER (
            PARTITION BY c.key, c.given ORDER BY c.timestamp, c.id ROWS UNBOUNDED PRECEDING
        ) AS number
    FROM (
        SELECT
            e.*,
            NOT e.given AND e.timestamp - lag(e.timestamp) OVER (
                PARTITION BY e.key, e.given ORDER BY e.timestamp, e.id
            ) > INTERVAL '30 minutes' AS is_after_silence
        FROM (
            SELECT * FROM events AS i WHERE i.key IS NOT NULL
            UNION ALL
            SELECT * FROM later_events
        ) AS e
    ) AS c
),
sessions AS (
    SELECT
        n.key,
        n.given,
        min(n.timestamp) AS started_at,
        array_agg(n.name ORDER BY n.timestamp, n.id) AS names,
        CASE WHEN $3::text IS NOT NULL THEN (array_agg(n.service ORDER BY n.timestamp, n.id))[1] END AS service,
        CASE WHEN $4::text IS NOT NULL THEN (array_agg(n.environment ORDER BY n.timestamp, n.id))[1] END AS environment
    FROM numbered AS n
    WHERE n.name IS NOT NULL
    GROUP BY n.key, n.given, n.number
),
begun AS (
    SELECT
        s.names,
        CASE WHEN $5::text IS NULL THEN 1 ELSE array_position(s.names, $5) END AS first
    FROM sessions AS s
    WHERE ($3::text IS NULL OR s.service = $3) AND ($4::text IS NULL OR s.environment = $4)
        AND NOT EXISTS (
            SELECT FROM over_edges AS o
            WHERE o.key COLLATE "C" = s.key AND o.given = s.given AND o.started_at < $1 AND s.started_at <= o.ended_at
        )
),
ended AS (
    SELECT
        b.names,
        b.first,
        CASE
            WHEN $6::text IS NULL THEN least(cardinality(b.names), b.first + $7::integer - 1)
            WHEN $5::text IS NULL THEN array_position(b.names, $6)
            ELSE array_position(b.names, $6, b.first + 1)
        END AS last
    FROM begun AS b
    WHERE b.first IS NOT NULL
),
counts AS MATERIALIZED (
    SELECT
        CASE WHEN $6::text IS NULL THEN s.number ELSE $7::integer - cardinality(p.names) + s.number END AS position,
        s.name,
        s.next_name,
        count(*) AS sessions
    FROM (
        SELECT e.names[greatest(e.first, e.last - $7::integer + 1):e.last] AS names FROM ended AS e WHERE e.last IS NOT NULL
    ) AS p
    CROSS JOIN LATERAL unnest(p.names, p.names[2:]) WITH ORDINALITY AS s (name, next_name, number)
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
