-- Attempts at a funnel. What stands in braces is put together in attempts.py, of parameters and fixed words. An `actor`
-- is a user, or the number of a session; step 0 is what ends an attempt.

-- hits_by_user --
-- Find what users did that is a step.
hits AS (
    SELECT e.user_id AS actor, e.timestamp AS at, e.id, unnest({steps}) AS step, {value} AS value
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
            unnest({steps}) AS step,
            {value} AS value
        FROM analytics_events AS e
        WHERE e.timestamp >= {since} AND e.timestamp < {until} + {window} AND {conditions}
    ) AS e
    JOIN sessions AS s ON s.key = e.key AND s.given = e.given AND e.at BETWEEN s.started_at AND s.ended_at
)

-- ordered --
-- Find the attempt of each actor that came furthest, step by step, in the order of the steps.
--
-- `reached` has for each actor and step, in arrays, when events reached the step, and when the latest attempt began that
-- had come so far: a later one has more of its window left, so no other can come further by that event. Both rise, so a
-- binary search finds the event of the step before that comes last before an event: nothing excluded lies between the
-- two if nothing excluded lies after it.
times AS (
    SELECT h.actor, h.step, array_agg(h.at ORDER BY h.at) AS at FROM hits AS h GROUP BY h.actor, h.step
),
excluded AS (
    SELECT t.actor, t.at FROM times AS t WHERE t.step = 0
),
reached AS (
    SELECT f.actor, 1 AS step, f.at, f.at AS started
    FROM (
        SELECT t.actor, t.at[:width_bucket({until} - INTERVAL '1 microsecond', t.at)] AS at
        FROM times AS t
        WHERE t.step = 1
    ) AS f
    WHERE cardinality(f.at) > 0
    UNION ALL
    SELECT r.actor, r.step + 1, n.at, n.started
    FROM reached AS r
    JOIN times AS t ON t.actor = r.actor AND t.step = r.step + 1
    LEFT JOIN excluded AS x ON x.actor = r.actor
    CROSS JOIN LATERAL (
        SELECT array_agg(m.at) AS at, array_agg(m.started) AS started
        FROM (
            SELECT p.at, r.at[p.before] AS previous, r.started[p.before] AS started
            FROM (
                SELECT u.at, width_bucket(u.at - ({pauses})[r.step + 1], r.at) AS before
                FROM unnest(t.at) AS u (at)
                OFFSET 0  -- the search is made once for each event
            ) AS p
            WHERE p.before > 0
            OFFSET 0
        ) AS m
        WHERE m.at <= m.started + {window}
            AND NOT coalesce(
                x.at[width_bucket(m.at - INTERVAL '1 microsecond', x.at)] > m.previous,
                false
            )
    ) AS n
    WHERE n.at IS NOT NULL
),
-- From the last step of the attempt back to the first, each time to the earliest event that leads on.
taken AS (
    SELECT
        b.actor, b.step, b.at, NULL::timestamptz AS next_at, b.step AS furthest, b.at AS reached_at, b.started_at
    FROM (
        SELECT DISTINCT ON (f.actor) f.actor, f.step, f.at, f.started_at
        FROM (SELECT r.actor, r.step, r.at[1] AS at, r.started[1] AS started_at FROM reached AS r) AS f
        ORDER BY f.actor, f.step DESC
    ) AS b
    UNION ALL
    SELECT
        k.actor,
        k.step - 1,
        r.at[
            1 + greatest(
                width_bucket(k.started_at - INTERVAL '1 microsecond', r.started),
                coalesce(
                    width_bucket(
                        x.at[width_bucket(k.at - INTERVAL '1 microsecond', x.at)] - INTERVAL '1 microsecond', r.at
                    ),
                    0
                )
            )
        ],
        k.at,
        k.furthest,
        k.reached_at,
        k.started_at
    FROM taken AS k
    JOIN reached AS r ON r.actor = k.actor AND r.step = k.step - 1
    LEFT JOIN excluded AS x ON x.actor = k.actor
)

-- unordered --
-- Find the window of each actor in which the most steps were taken, in any order.
--
-- `needs` says when a step counts as taken: if for each of its `matchers` the event is there that is `needed` of those
-- from the start on, the first, the second and so on. For steps that no event can fill beside another that is one
-- matcher and its first event; for others see attempts.py.
times AS (
    SELECT h.actor, h.step AS matcher, array_agg(h.at ORDER BY h.at) AS at FROM hits AS h GROUP BY h.actor, h.step
),
needs AS (
    SELECT n.step, n.matcher, n.needed, count(*) OVER (PARTITION BY n.step) AS matchers
    FROM unnest({need_steps}, {need_matchers}, {needed}) AS n (step, matcher, needed)
),
starts AS (
    SELECT s.actor, s.at, s.at + {window} AS until, x.at[width_bucket(s.at, x.at) + 1] AS excluded_at
    FROM (SELECT DISTINCT h.actor, h.at FROM hits AS h WHERE h.step > 0 AND h.at < {until}) AS s
    LEFT JOIN times AS x ON x.actor = s.actor AND x.matcher = 0
),
ends AS (
    SELECT f.actor, f.started_at, f.step, max(f.at) AS at
    FROM (
        SELECT
            s.actor,
            s.at AS started_at,
            n.step,
            n.matchers,
            t.at[width_bucket(s.at - INTERVAL '1 microsecond', t.at) + n.needed] AS at,
            least(s.until, s.excluded_at) AS until
        FROM starts AS s
        JOIN times AS t ON t.actor = s.actor
        JOIN needs AS n ON n.matcher = t.matcher
    ) AS f
    WHERE f.at <= f.until
    GROUP BY f.actor, f.started_at, f.step, f.matchers
    HAVING count(*) = f.matchers
),
best AS (
    SELECT DISTINCT ON (f.actor) f.*
    FROM (
        SELECT e.actor, e.started_at, count(*)::integer AS furthest, max(e.at) AS reached_at
        FROM ends AS e
        GROUP BY e.actor, e.started_at
    ) AS f
    ORDER BY f.actor, f.furthest DESC, f.reached_at, f.started_at DESC
),
taken AS (
    SELECT
        b.actor,
        (row_number() OVER (PARTITION BY b.actor ORDER BY e.at))::integer AS step,
        e.at,
        lead(e.at) OVER (PARTITION BY b.actor ORDER BY e.at) AS next_at,
        b.furthest,
        b.reached_at,
        b.started_at
    FROM best AS b
    JOIN ends AS e ON e.actor = b.actor AND e.started_at = b.started_at
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
GROUP BY GROUPING SETS ({groups})
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
    t.furthest AS current_step, t.furthest = {count} AS completed, array_agg(t.at ORDER BY t.step) AS step_timestamps
FROM taken AS t
WHERE t.furthest >= {at_least} AND t.furthest <= {at_most}
GROUP BY t.actor, t.started_at, t.reached_at, t.furthest
ORDER BY t.started_at DESC, t.actor
LIMIT {limit}

-- sessions --
-- List the attempts of sessions, the latest first.
SELECT
    s.user_id, s.id AS session_id, t.started_at,
    CASE WHEN t.furthest = {count} THEN t.reached_at END AS completed_at,
    t.furthest AS current_step, t.furthest = {count} AS completed, array_agg(t.at ORDER BY t.step) AS step_timestamps
FROM taken AS t
JOIN sessions AS s ON s.actor = t.actor
WHERE t.furthest >= {at_least} AND t.furthest <= {at_most}
GROUP BY s.actor, s.user_id, s.id, t.started_at, t.reached_at, t.furthest
ORDER BY t.started_at DESC, s.id
LIMIT {limit}
