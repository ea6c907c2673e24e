-- Attempts at a funnel. What stands in braces is put together in attempts.py, of parameters and fixed words. An `actor`
-- is a user, or the number of a session; step 0 is what ends an attempt. The times of an actor's events are held in
-- arrays, one for each step, and searched by width_bucket(): the number of times that are not later.

-- hits_by_user --
-- Find what users did that is a step.
hits AS (
    SELECT e.user_id AS actor, e.timestamp AS at, e.id, {step} AS step, {value} AS value
    FROM analytics_events AS e
    WHERE e.timestamp >= {since} AND e.timestamp < {until} + {window} AND e.user_id IS NOT NULL AND {conditions}
)

-- hits_by_session --
-- Find what happened in sessions that is a step. An event belongs to the session of its key that it lies in.
sessions AS MATERIALIZED (
    SELECT row_number() OVER () AS actor, s.key, s.given, s.started_at, s.ended_at, s.user_id, s.id
    FROM analytics_session_rows AS s
    WHERE s.ended_at >= {since} AND s.started_at < {until} + {window}
),
hits AS (
    SELECT s.actor, e.at, e.id, e.step, e.value
    FROM (
        SELECT
            coalesce(e.session_id, e.context ->> 'visitor', e.user_id::text) AS key,
            e.session_id IS NOT NULL AS given,
            e.timestamp AS at,
            e.id,
            {step} AS step,
            {value} AS value
        FROM analytics_events AS e
        WHERE e.timestamp >= {since} AND e.timestamp < {until} + {window} AND {conditions}
        ) AS e
    JOIN sessions AS s ON s.key = e.key AND s.given = e.given AND e.at BETWEEN s.started_at AND s.ended_at
)

-- ordered --
-- Find the attempt of each actor that came furthest, step by step, in the order of the steps.
arrays AS (
    SELECT h.actor, {arrays}
    FROM hits AS h
    GROUP BY h.actor
),
attempts AS (
    SELECT a.actor, {started_at} AS started_at, {reached_at} AS reached_at, {furthest} AS furthest, ARRAY[{times}] AS times
    FROM arrays AS a
    CROSS JOIN LATERAL (SELECT a.hits_1 AS at, a.hits_1 AS started) AS reached_1
    {forth}
    {back}
    WHERE a.hits_1 IS NOT NULL
)

-- forth --
-- Find when events reached a step, and when the latest attempt began that had come so far: a later one has more of its
-- window left, so no other can come further by that event. Both rise, so a binary search finds the event of the step
-- before that comes last before an event: nothing excluded lies between the two if nothing excluded lies after it.
CROSS JOIN LATERAL (
    SELECT array_agg(m.at) AS at, array_agg(m.started) AS started
    FROM (
        SELECT p.at, reached_{before}.at[p.before] AS previous, reached_{before}.started[p.before] AS started
        FROM (
            SELECT u.at, width_bucket(u.at - {pause}, reached_{before}.at) AS before
            FROM unnest(a.hits_{step}) AS u (at)
            OFFSET 0  -- the search is made once for each event
        ) AS p
        WHERE p.before > 0
        OFFSET 0
    ) AS m
    WHERE m.at <= m.started + {window}
        AND NOT coalesce(
            a.hits_0[width_bucket(m.at - INTERVAL '1 microsecond', a.hits_0)] > m.previous,
            false
        )
) AS reached_{step}

-- back --
-- Find when the attempt took a step: the last one first, each time with the earliest event that leads on.
CROSS JOIN LATERAL (
    SELECT CASE
        WHEN {next_at} IS NULL THEN reached_{step}.at[1]
        ELSE reached_{step}.at[
            1 + greatest(
                width_bucket({started_at} - INTERVAL '1 microsecond', reached_{step}.started),
                coalesce(
                    width_bucket(
                        a.hits_0[width_bucket({next_at} - INTERVAL '1 microsecond', a.hits_0)]
                            - INTERVAL '1 microsecond',
                        reached_{step}.at
                    ),
                    0
                )
            )
        ]
    END AS at
    OFFSET 0
) AS taken_{step}

-- unordered --
-- Find the window of each actor in which the most steps were taken, in any order.
arrays AS (
    SELECT
        h.actor,
        array_agg(h.at ORDER BY h.at) FILTER (WHERE h.step > 0 AND h.at < {until}) AS starts,
        {arrays}
    FROM hits AS h
    GROUP BY h.actor
),
attempts AS (
    SELECT a.actor, b.started_at, b.reached_at, b.furthest, t.times
    FROM arrays AS a
    CROSS JOIN LATERAL (
        SELECT
            s.at AS started_at,
            s.until,
            ARRAY[{times}] AS times,
            {furthest} AS furthest,
            {reached_at} AS reached_at
        FROM (
            SELECT u.at, least(u.at + {window}, a.hits_0[width_bucket(u.at, a.hits_0) + 1]) AS until
            FROM unnest(a.starts) AS u (at)
            OFFSET 0
        ) AS s
        CROSS JOIN LATERAL (SELECT {ends} OFFSET 0) AS e
        ORDER BY furthest DESC, reached_at, started_at DESC
        LIMIT 1
    ) AS b
    CROSS JOIN LATERAL (
        SELECT array_agg(u.at ORDER BY u.at) AS times FROM unnest(b.times) AS u (at) WHERE u.at <= b.until
    ) AS t
)

-- taken --
-- Take the attempts apart into their steps.
taken AS (
    SELECT
        t.actor, s.step, t.times[s.step] AS at, t.times[s.step + 1] AS next_at, t.furthest, t.reached_at, t.started_at
    FROM attempts AS t
    CROSS JOIN LATERAL generate_series(1, t.furthest) AS s (step)
)

-- without_values --
-- Leave the attempts as they are.
labelled AS (
    SELECT t.*, NULL::text AS value FROM taken AS t
)

-- with_values --
-- Give each attempt the value of its first or last event; all but those of the most actors are one.
values AS (
    SELECT DISTINCT ON (t.actor) t.actor, h.value
    FROM taken AS t
    JOIN hits AS h ON h.actor = t.actor AND {touched}
    WHERE t.step = 1
    ORDER BY t.actor, h.id
),
labels AS (
    SELECT r.value, CASE WHEN r.rank > {most_values} THEN 'other' ELSE r.value END AS label
    FROM (
        SELECT c.value, row_number() OVER (ORDER BY c.actors DESC, c.value) AS rank
        FROM (
            SELECT v.value, count(*) AS actors
            FROM values AS v
            WHERE v.value <> 'other'  -- what an application calls so is among the others
            GROUP BY v.value
        ) AS c
    ) AS r
),
labelled AS (
    SELECT t.*, coalesce(l.label, v.value) AS value
    FROM taken AS t
    JOIN values AS v ON v.actor = t.actor
    LEFT JOIN labels AS l ON l.value = v.value
)

-- summary --
-- Count the actors that reached each step, and how long the way to the next one took them: of all, then of each value,
-- those of the most actors first, then all others, then attempts without one.
SELECT
    grouping(t.value) = 1 AS is_total,
    t.value,
    t.step,
    count(*) AS count,
    count(*) FILTER (WHERE t.step = t.furthest AND t.step < {count} AND t.started_at + {window} >= {now}) AS in_progress,
    percentile_cont(ARRAY[0.5, 0.9]) WITHIN GROUP (ORDER BY date_part('epoch', t.next_at - t.at) * 1000) AS next_ms,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY date_part('epoch', t.at - t.started_at) * 1000) AS total_ms
FROM labelled AS t
GROUP BY GROUPING SETS ((t.step), (t.value, t.step))
HAVING grouping(t.value) = 1 OR {has_values}
ORDER BY
    is_total DESC,
    t.value IS NULL,
    t.value = 'other',
    max(count(*)) OVER (PARTITION BY t.value) DESC,
    t.value,
    t.step

-- users --
-- List the attempts of users, the latest first.
SELECT
    t.actor AS user_id, NULL::text AS session_id, t.started_at,
    CASE WHEN t.furthest = {count} THEN t.reached_at END AS completed_at,
    t.furthest AS current_step, t.furthest = {count} AS completed, t.times[:t.furthest] AS step_timestamps
FROM attempts AS t
WHERE t.furthest >= {at_least} AND t.furthest <= {at_most}
ORDER BY t.started_at DESC, t.actor
LIMIT {limit}

-- sessions --
-- List the attempts of sessions, the latest first.
SELECT
    s.user_id, s.id AS session_id, t.started_at,
    CASE WHEN t.furthest = {count} THEN t.reached_at END AS completed_at,
    t.furthest AS current_step, t.furthest = {count} AS completed, t.times[:t.furthest] AS step_timestamps
FROM attempts AS t
JOIN sessions AS s ON s.actor = t.actor
WHERE t.furthest >= {at_least} AND t.furthest <= {at_most}
ORDER BY t.started_at DESC, s.id
LIMIT {limit}
