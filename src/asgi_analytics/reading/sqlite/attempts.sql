-- Attempts at a funnel. What stands in braces is put together in attempts.py, of parameters and fixed words. An `actor`
-- is a user, or the number of a session. The attempt that counts is found by analytics_attempt(), see
-- sqlite_attempts.py; times are microseconds there.

-- hits_by_user --
-- Find what users did that is a step, with the numbers of the steps.
hits AS (
    SELECT e.user_id AS actor, e.timestamp AS at, e.id, {step} AS steps, {value} AS value
    FROM analytics_event_facts AS e
    WHERE e.timestamp >= {since} AND e.timestamp < {end} AND e.user_id IS NOT NULL AND {conditions}
)

-- hits_by_session --
-- Find what happened in sessions that is a step. An event belongs to the session of its key that it lies in.
sessions AS MATERIALIZED (
    SELECT
        row_number() OVER () AS actor, s.key, s.given, s.started_at, s.ended_at, s.user_id,
        CASE WHEN s.given THEN s.id ELSE analytics_session_id(s.key, s.started_at) END AS id
    FROM analytics_session_rows AS s
    WHERE s.ended_at >= {since} AND s.started_at < {end}
),
events AS MATERIALIZED (
    SELECT
        coalesce(e.session_id, e.visitor, e.user_id) AS key,
        e.session_id IS NOT NULL AS given,
        e.timestamp AS at,
        e.id,
        {step} AS steps,
        {value} AS value
    FROM analytics_event_facts AS e
    WHERE e.timestamp >= {since} AND e.timestamp < {end} AND {conditions}
),
hits AS (
    SELECT s.actor, e.at, e.id, e.steps, e.value
    FROM events AS e
    JOIN sessions AS s ON s.key = e.key AND s.given = e.given AND e.at BETWEEN s.started_at AND s.ended_at
)

-- attempts --
-- Find the attempt of each actor that came furthest.
attempts AS MATERIALIZED (
    SELECT
        f.actor,
        json_extract(f.attempt, '$.started_at') AS started_at,
        json_extract(f.attempt, '$.reached_at') AS reached_at,
        json_extract(f.attempt, '$.furthest') AS furthest,
        json_extract(f.attempt, '$.times') AS times,
        json_extract(f.attempt, '$.value') AS value
    FROM (
        SELECT h.actor, analytics_attempt(h.at, h.steps, h.id, h.value, {plan}) AS attempt
        FROM hits AS h
        GROUP BY h.actor
    ) AS f
    WHERE f.attempt IS NOT NULL
)

-- labelled --
-- Take the attempts apart into their steps, each with the value of its attempt; all but those of the most actors are
-- one.
labels AS MATERIALIZED (
    SELECT r.value, CASE WHEN r.place > {most_values} THEN 'other' ELSE r.value END AS label
    FROM (
        SELECT c.value, row_number() OVER (ORDER BY c.actors DESC, c.value) AS place
        FROM (
            SELECT a.value, count(*) AS actors
            FROM attempts AS a
            WHERE a.value <> 'other'  -- what an application calls so is among the others
            GROUP BY a.value
        ) AS c
    ) AS r
),
labelled AS MATERIALIZED (
    SELECT
        j.key + 1 AS step,
        j.value AS at,
        json_extract(a.times, '$[' || (j.key + 1) || ']') AS next_at,
        a.furthest,
        a.started_at,
        coalesce(l.label, a.value) AS value
    FROM attempts AS a
    CROSS JOIN json_each(a.times) AS j
    LEFT JOIN labels AS l ON l.value = a.value
)

-- summary --
-- Count the actors that reached each step, and how long the way to the next one took them: of all, then of each value,
-- those of the most actors first, then all others, then attempts without one.
SELECT
    r.is_total AS "is_total::boolean", r.value, r.step, r.count, r.in_progress, r.next_ms AS "next_ms::json",
    r.total_ms AS "total_ms::float8"
FROM (
    SELECT
        1 AS is_total,
        NULL AS value,
        t.step,
        count(*) AS count,
        sum(
            t.step = t.furthest AND t.step < {count} AND t.started_at + {window} >= analytics_microseconds({now})
        ) AS in_progress,
        analytics_quantiles((t.next_at - t.at) / 1000.0, '[0.5, 0.9]') AS next_ms,
        analytics_quantile((t.at - t.started_at) / 1000.0, 0.5) AS total_ms
    FROM labelled AS t
    GROUP BY t.step
    UNION ALL
    SELECT
        0,
        t.value,
        t.step,
        count(*),
        sum(t.step = t.furthest AND t.step < {count} AND t.started_at + {window} >= analytics_microseconds({now})),
        analytics_quantiles((t.next_at - t.at) / 1000.0, '[0.5, 0.9]'),
        analytics_quantile((t.at - t.started_at) / 1000.0, 0.5)
    FROM labelled AS t
    WHERE {has_values}
    GROUP BY t.value, t.step
) AS r
ORDER BY
    r.is_total DESC,
    r.value IS NULL,
    r.value = 'other',
    max(r.count) OVER (PARTITION BY r.is_total, r.value) DESC,
    r.value,
    r.step

-- users --
-- List the attempts of users, the latest first.
SELECT
    t.actor AS "user_id::uuid", NULL AS session_id, analytics_time(t.started_at) AS "started_at::timestamptz",
    CASE WHEN t.furthest = {count} THEN analytics_time(t.reached_at) END AS "completed_at::timestamptz",
    t.furthest AS current_step, t.furthest = {count} AS "completed::boolean",
    (SELECT json_group_array(analytics_time(j.value)) FROM json_each(t.times) AS j) AS "step_timestamps::timestamptz[]"
FROM attempts AS t
WHERE t.furthest >= {at_least} AND t.furthest <= {at_most}
ORDER BY t.started_at DESC, t.actor
LIMIT {limit}

-- sessions --
-- List the attempts of sessions, the latest first.
SELECT
    s.user_id AS "user_id::uuid", s.id AS session_id, analytics_time(t.started_at) AS "started_at::timestamptz",
    CASE WHEN t.furthest = {count} THEN analytics_time(t.reached_at) END AS "completed_at::timestamptz",
    t.furthest AS current_step, t.furthest = {count} AS "completed::boolean",
    (SELECT json_group_array(analytics_time(j.value)) FROM json_each(t.times) AS j) AS "step_timestamps::timestamptz[]"
FROM attempts AS t
JOIN sessions AS s ON s.actor = t.actor
WHERE t.furthest >= {at_least} AND t.furthest <= {at_most}
ORDER BY t.started_at DESC, s.id
LIMIT {limit}
