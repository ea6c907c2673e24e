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
events AS MATERIALIZED (
    SELECT
        coalesce(r.session_id, r.visitor, r.user_id) AS key,
        r.session_id IS NOT NULL AS given,
        r.timestamp,
        r.id,
        CASE
            WHEN r.event_type = 'page_view' THEN coalesce(r.page, 'page_view')
            WHEN r.event_type <> 'page_engaged' THEN r.event_type
        END AS name,
        CASE WHEN $3 IS NOT NULL THEN r.service END AS service,
        CASE WHEN $4 IS NOT NULL THEN r.environment END AS environment
    FROM analytics_event_facts AS r
    WHERE r.timestamp >= $1
        AND r.timestamp <= (
            SELECT max($2, coalesce(max(l.ended_at), '')) FROM over_edges AS l WHERE l.started_at >= $1
        )
        AND r.event_type NOT IN ('api_request', 'database_query', 'application_error')
        AND coalesce(r.session_id, r.visitor, r.user_id) IS NOT NULL
),
within AS (
    SELECT e.* FROM events AS e WHERE e.timestamp < $2
    UNION ALL
    SELECT e.*
    FROM events AS e
    JOIN over_edges AS o ON o.key = e.key AND o.given = e.given
    WHERE e.timestamp >= $2 AND o.started_at >= $1 AND e.timestamp <= o.ended_at
),
numbered AS (
    -- Events between which there is no silence have one number.
    SELECT
        c.*,
        sum(c.is_after_silence) OVER (
            PARTITION BY c.key, c.given ORDER BY c.timestamp, c.id ROWS UNBOUNDED PRECEDING
        ) AS number
    FROM (
        SELECT
            w.*,
            coalesce(
                NOT w.given
                AND analytics_microseconds(w.timestamp) - analytics_microseconds(
                    lag(w.timestamp) OVER (PARTITION BY w.key, w.given ORDER BY w.timestamp, w.id)
                ) > 1800000000,
                0
            ) AS is_after_silence
        FROM within AS w
    ) AS c
),
placed AS (
    -- The steps of each session by their numbers, each with the next one.
    SELECT
        n.key,
        n.given,
        n.number,
        n.name,
        row_number() OVER of_session AS place,
        lead(n.name) OVER of_session AS next_name,
        first_value(n.timestamp) OVER of_session AS started_at,
        first_value(n.service) OVER of_session AS service,
        first_value(n.environment) OVER of_session AS environment
    FROM numbered AS n
    WHERE n.name IS NOT NULL
    WINDOW of_session AS (PARTITION BY n.key, n.given, n.number ORDER BY n.timestamp, n.id)
),
begun AS (
    SELECT
        p.key, p.given, p.number, p.name, p.place, p.next_name,
        CASE
            WHEN $5 IS NULL THEN 1
            ELSE min(CASE WHEN p.name = $5 THEN p.place END) OVER (PARTITION BY p.key, p.given, p.number)
        END AS first
    FROM placed AS p
    WHERE ($3 IS NULL OR p.service = $3) AND ($4 IS NULL OR p.environment = $4)
        AND NOT EXISTS (
            SELECT 1 FROM over_edges AS o
            WHERE o.key = p.key AND o.given = p.given AND o.started_at < $1 AND p.started_at <= o.ended_at
        )
),
ended AS (
    SELECT
        b.name, b.place, b.next_name, b.first,
        CASE
            WHEN $6 IS NULL THEN b.first + $7 - 1
            ELSE min(CASE WHEN b.name = $6 AND b.place >= b.first + ($5 IS NOT NULL) THEN b.place END)
                OVER (PARTITION BY b.key, b.given, b.number)
        END AS last
    FROM begun AS b
    WHERE b.first IS NOT NULL
),
counts AS MATERIALIZED (
    SELECT
        e.place - CASE WHEN $6 IS NULL THEN e.first - 1 ELSE e.last - $7 END AS position,
        e.name,
        CASE WHEN e.place < e.last THEN e.next_name END AS next_name,
        count(*) AS sessions
    FROM ended AS e
    WHERE e.last IS NOT NULL AND e.place >= max(e.first, e.last - $7 + 1) AND e.place <= e.last
    GROUP BY 1, 2, 3
),
labels AS MATERIALIZED (
    SELECT r.position, r.name, CASE WHEN r.place > $8 THEN 'other' ELSE r.name END AS label
    FROM (
        SELECT
            c.position, c.name,
            row_number() OVER (PARTITION BY c.position ORDER BY c.name = 'other', c.sessions DESC, c.name) AS place
        FROM (
            SELECT n.position, n.name, sum(n.sessions) AS sessions FROM counts AS n GROUP BY n.position, n.name
        ) AS c
    ) AS r
),
labelled AS (
    SELECT c.position, l.label AS name, n.label AS next_name, c.sessions
    FROM counts AS c
    JOIN labels AS l ON l.position = c.position AND l.name = c.name
    LEFT JOIN labels AS n ON n.position = c.position + 1 AND n.name = c.next_name
)
SELECT l.position, l.name, NULL AS next_name, sum(l.sessions) AS sessions
FROM labelled AS l
GROUP BY l.position, l.name
UNION ALL
SELECT l.position, l.name, l.next_name, sum(l.sessions)
FROM labelled AS l
WHERE l.next_name IS NOT NULL
GROUP BY l.position, l.name, l.next_name
ORDER BY sessions DESC, position, name, next_name NULLS LAST
LIMIT $9;
