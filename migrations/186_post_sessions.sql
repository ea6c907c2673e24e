-- Join parts into sessions: a table that the upkeep fills, and views that complete it with what happened a moment ago

-- both

-- One row per run of a key's parts without a silence of more than 30 minutes; of a session_id that was given, one row
-- for all of its parts. Each filled part is in exactly one row.
--
-- `first_at` is that of the first part. A session begins at its first event, `started_at`, which is null for a run of
-- nothing but `page_engaged`: that is no session, and is kept because an event that comes late may make it one.
--
-- `who` is a hash of the user, else of the visitor, to count them by: short, and fast to tell apart.
--
-- A bounce is a session of one page view, without any other event, that was looked at for less than 10 seconds.
CREATE TABLE analytics_sessions_filled (
    key text NOT NULL,
    given boolean NOT NULL,
    first_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL,
    started_at timestamptz,
    id text,
    user_id uuid,
    visitor text,
    event_count bigint NOT NULL,
    page_views bigint NOT NULL,
    visible_ms float8 NOT NULL,
    service text,
    environment text,
    device_type text,
    browser text,
    os text,
    country text,
    city text,
    referrer text,
    channel text,
    utm_source text,
    utm_medium text,
    utm_campaign text,
    landing_page text,
    exit_page text,
    duration_ms float8,
    is_bounce boolean,
    who uuid
);

-- Hashes, because ids and keys may be longer than what fits into an entry of a tree.
CREATE INDEX analytics_sessions_filled_key_idx ON analytics_sessions_filled USING hash (key);
CREATE INDEX analytics_sessions_filled_id_idx ON analytics_sessions_filled USING hash (id);
CREATE INDEX analytics_sessions_filled_ended_at_idx ON analytics_sessions_filled (ended_at);
CREATE INDEX analytics_sessions_filled_started_at_idx ON analytics_sessions_filled (started_at);
CREATE INDEX analytics_sessions_filled_user_id_started_at_idx ON analytics_sessions_filled (user_id, started_at)
    WHERE user_id IS NOT NULL;

-- What changes in the sessions when the parts from `since` up to `until`, both on the edge of one, change: the rows of
-- the table that no longer hold, with `replaced`, and those that are to stand there instead.
--
-- The parts in the range are the filled ones, or with `is_live` those of the events as they are now. All keys are
-- concerned that have a part in the range, or had one. Of these every row is joined anew that reaches to half an hour
-- from the range, of those that were given each. So it never adds to what there was, and may be repeated: late events,
-- rows that grow, two that become one, and deletions all end at the same rows.
--
-- It has settings of its own, because a reader has others: few keys are looked up in much, by an index.
CREATE FUNCTION analytics_join_sessions(since timestamptz, until timestamptz, is_live boolean) RETURNS TABLE (
    replaced boolean,
    session analytics_sessions_filled
)
    LANGUAGE plpgsql STABLE
    SET search_path FROM CURRENT
    SET enable_nestloop = on
    SET jit = off
    SET plan_cache_mode = force_custom_plan
    ROWS 100
    AS $$
BEGIN
    RETURN QUERY
    WITH changed AS MATERIALIZED (
        SELECT p.*
        FROM analytics_session_parts_filled AS p
        WHERE NOT is_live AND p.bucket >= since AND p.bucket < until
        UNION ALL
        SELECT p.* FROM analytics_session_parts_live(since, until) AS p WHERE is_live
    ),
    touched AS MATERIALIZED (
        SELECT c.key, c.given FROM changed AS c
        UNION
        SELECT s.key, s.given FROM analytics_sessions_filled AS s WHERE s.ended_at >= since AND s.first_at < until
    ),
    gone AS MATERIALIZED (
        SELECT s.*
        FROM touched AS t
        JOIN analytics_sessions_filled AS s ON s.key = t.key AND s.given = t.given
        WHERE s.given
            OR (s.ended_at >= since - INTERVAL '30 minutes' AND s.first_at <= until + INTERVAL '30 minutes')
    ),
    parts AS (
        SELECT c.* FROM changed AS c
        UNION ALL
        SELECT p.*
        FROM (
            SELECT g.key, g.given, min(g.first_at) AS first_at, max(g.ended_at) AS ended_at
            FROM gone AS g
            GROUP BY g.key, g.given
        ) AS g
        JOIN analytics_session_parts_filled AS p ON p.key = g.key AND p.given = g.given
        WHERE p.last_at >= g.first_at AND p.first_at <= g.ended_at AND (p.bucket < since OR p.bucket >= until)
    ),
    numbered AS MATERIALIZED (
        -- Parts between which there is no silence have one number.
        SELECT
            c.*,
            count(*) FILTER (WHERE c.is_after_silence) OVER (PARTITION BY c.key, c.given ORDER BY c.bucket) AS number
        FROM (
            SELECT
                p.*,
                NOT p.given AND p.first_at - lag(p.last_at) OVER (PARTITION BY p.key, p.given ORDER BY p.bucket)
                    > INTERVAL '30 minutes' AS is_after_silence
            FROM parts AS p
        ) AS c
    ),
    joined AS MATERIALIZED (
        SELECT
            n.key,
            n.given,
            n.number,
            min(n.first_at) AS first_at,
            max(n.last_at) AS ended_at,
            min(n.started_at) AS started_at,
            (array_agg(n.user_id ORDER BY n.bucket DESC) FILTER (WHERE n.user_id IS NOT NULL))[1] AS user_id,
            (array_agg(n.visitor ORDER BY n.bucket DESC) FILTER (WHERE n.visitor IS NOT NULL))[1] AS visitor,
            sum(n.events)::bigint AS events,
            sum(n.page_views)::bigint AS page_views,
            array_agg(n.origin ORDER BY n.bucket) FILTER (WHERE n.origin IS NOT NULL) AS origin,
            array_agg(n.client ORDER BY n.bucket) FILTER (WHERE n.client IS NOT NULL) AS client,
            array_agg(n.entry ORDER BY n.bucket) FILTER (WHERE n.entry IS NOT NULL) AS entry,
            (array_agg(n.exit_page ORDER BY n.bucket DESC) FILTER (WHERE n.page_views > 0))[1] AS exit_page
        FROM numbered AS n
        GROUP BY n.key, n.given, n.number
    ),
    visible AS (
        SELECT n.key, n.given, n.number, sum(e.ms) AS ms
        FROM numbered AS n
        JOIN joined AS j ON j.key = n.key AND j.given = n.given AND j.number = n.number
        CROSS JOIN LATERAL unnest(n.engaged_at, n.engaged_ms) AS e (at, ms)
        WHERE n.engaged_at IS NOT NULL AND e.at >= j.started_at
        GROUP BY n.key, n.given, n.number
    )
    SELECT true, g::analytics_sessions_filled FROM gone AS g
    UNION ALL
    SELECT
        false,
        ROW(
            j.key,
            j.given,
            j.first_at,
            j.ended_at,
            j.started_at,
            CASE
                WHEN j.given THEN j.key
                ELSE md5(j.key || ' ' || extract(epoch FROM j.started_at))::uuid::text
            END,
            j.user_id,
            j.visitor,
            j.events,
            j.page_views,
            coalesce(v.ms, 0),
            j.origin[1][1][1],
            j.origin[1][1][2],
            j.client[1][1][1],
            j.client[1][1][2],
            j.client[1][1][3],
            j.client[1][1][4],
            j.client[1][1][5],
            j.entry[1][1][2],
            j.entry[1][1][3],
            j.entry[1][1][4],
            j.entry[1][1][5],
            j.entry[1][1][6],
            j.entry[1][1][1],
            j.exit_page,
            (extract(epoch FROM j.ended_at - j.started_at) * 1000)::float8,
            CASE WHEN j.page_views > 0 THEN j.page_views = 1 AND j.events = 1 AND coalesce(v.ms, 0) < 10000 END,
            md5(coalesce(j.user_id::text, j.visitor))::uuid
        )::analytics_sessions_filled
    FROM joined AS j
    LEFT JOIN visible AS v ON v.key = j.key AND v.given = j.given AND v.number = j.number;
END
$$;

-- Bring the filled sessions in line with the filled parts from `since` up to `until`.
CREATE FUNCTION analytics_fill_sessions(since timestamptz, until timestamptz) RETURNS void
    LANGUAGE plpgsql
    SET search_path FROM CURRENT
    AS $$
BEGIN
    LOCK TABLE analytics_sessions_filled IN SHARE ROW EXCLUSIVE MODE;
    WITH joined AS MATERIALIZED (
        SELECT j.replaced, j.session, (j.session).key, (j.session).given, (j.session).first_at
        FROM analytics_join_sessions(since, until, false) AS j
    ),
    gone AS (
        DELETE FROM analytics_sessions_filled AS s
        USING joined AS j
        WHERE j.replaced AND s.key = j.key AND s.given = j.given AND s.first_at = j.first_at
    )
    INSERT INTO analytics_sessions_filled SELECT (j.session).* FROM joined AS j WHERE NOT j.replaced;
END
$$;

-- Every session with all that is known of it: the filled ones, but for those that go on, and what is younger. Most of
-- them ended too long ago to go on, which is quicker to see than to look each up.
CREATE VIEW analytics_session_rows AS
WITH young AS MATERIALIZED (
    SELECT j.replaced, j.session, (j.session).key, (j.session).given, (j.session).first_at
    FROM (SELECT analytics_sessions_filled_until() AS filled_until) AS fills,
        analytics_join_sessions(fills.filled_until, 'infinity', true) AS j
)
SELECT s.*
FROM analytics_sessions_filled AS s
WHERE s.started_at IS NOT NULL
    AND (
        (NOT s.given AND s.ended_at < (SELECT analytics_sessions_filled_until()) - INTERVAL '30 minutes')
        OR NOT EXISTS (
            SELECT FROM young AS y
            WHERE y.replaced AND y.key = s.key AND y.given = s.given AND y.first_at = s.first_at
        )
    )
UNION ALL
SELECT (y.session).* FROM young AS y WHERE NOT y.replaced AND (y.session).started_at IS NOT NULL;

CREATE VIEW analytics_sessions AS
SELECT
    s.id,
    s.user_id,
    s.visitor,
    s.started_at,
    s.ended_at,
    s.duration_ms,
    s.event_count,
    s.page_views,
    s.device_type,
    s.browser,
    s.os,
    s.country,
    s.city,
    s.referrer,
    s.channel,
    s.utm_source,
    s.utm_medium,
    s.utm_campaign,
    s.landing_page,
    s.exit_page,
    s.is_bounce
FROM analytics_session_rows AS s;

ALTER PROCEDURE analytics_fill(text, timestamptz, timestamptz) RENAME TO analytics_fill_aggregate;

-- timescaledb

-- What is being filled. A refresh commits, so that sessions cannot be filled in its transaction: whoever fills next
-- does what another was kept from.
CREATE TABLE analytics_session_windows (
    since timestamptz NOT NULL,
    until timestamptz NOT NULL,
    noted_at timestamptz NOT NULL DEFAULT now()
);

-- What a refresh does first: note the days that it must leave alone, and fill what was noted so long ago that nobody
-- can be at it any more.
CREATE OR REPLACE FUNCTION analytics_collect() RETURNS void
    LANGUAGE plpgsql
    SET search_path FROM CURRENT
    AS $$
DECLARE
    noted record;
BEGIN
    PERFORM analytics_note_gone_days();
    FOR noted IN
        DELETE FROM analytics_session_windows AS w WHERE w.noted_at < now() - INTERVAL '1 hour' RETURNING w.*
    LOOP
        PERFORM analytics_fill_sessions(noted.since, noted.until);
    END LOOP;
END
$$;

-- Compute the buckets of a view from `since` up to `until`, both on the edge of one; after the parts of sessions the
-- sessions too. The name of the schema is written into it for the reason given at analytics_fill_aggregate().
DO $do$
BEGIN
    EXECUTE format(
        'CREATE PROCEDURE analytics_fill(view_name text, since timestamptz, until timestamptz) '
        'LANGUAGE plpgsql AS %L',
        format(
            $body$
DECLARE
    noted record;
BEGIN
    IF view_name <> 'analytics_session_parts_filled' THEN
        CALL %1$I.analytics_fill_aggregate(view_name, since, until);
        RETURN;
    END IF;
    INSERT INTO %1$I.analytics_session_windows (since, until) VALUES (analytics_fill.since, analytics_fill.until);
    COMMIT;
    CALL %1$I.analytics_fill_aggregate(view_name, since, until);
    FOR noted IN SELECT DISTINCT w.since, w.until FROM %1$I.analytics_session_windows AS w ORDER BY w.since LOOP
        PERFORM %1$I.analytics_fill_sessions(noted.since, noted.until);
    END LOOP;
    UPDATE %1$I.analytics_session_fills AS f
    SET filled_until = analytics_fill.until
    WHERE f.filled_until < analytics_fill.until;
    -- Another may still be at what it noted.
    DELETE FROM %1$I.analytics_session_windows AS w
    WHERE w.since = analytics_fill.since AND w.until = analytics_fill.until;
END
            $body$,
            current_schema()
        )
    );
END
$do$;

-- What the refresh policies do for the other aggregates: every hour what changed, but for the hour of stragglers.
DO $do$
BEGIN
    EXECUTE format(
        'CREATE PROCEDURE analytics_refresh_sessions(job_id integer, config jsonb) LANGUAGE plpgsql AS %L',
        format(
            $body$
DECLARE
    starts timestamptz[];
    ends timestamptz[];
BEGIN
    PERFORM %1$I.analytics_collect();
    -- Into arrays, because an open cursor would have to be kept over each of the commits.
    SELECT array_agg(p.window_start), array_agg(p.window_end)
    INTO starts, ends
    FROM %1$I.analytics_pending() AS p
    WHERE p.view_name = 'analytics_session_parts_filled';
    FOR i IN 1 .. coalesce(cardinality(starts), 0) LOOP
        CALL %1$I.analytics_fill('analytics_session_parts_filled', starts[i], ends[i]);
    END LOOP;
END
            $body$,
            current_schema()
        )
    );
END
$do$;
SELECT add_job(
    'analytics_refresh_sessions', INTERVAL '1 hour', initial_start => now() + INTERVAL '40 minutes',
    fixed_schedule => false
);

-- postgresql

-- Compute the buckets of a view from `since` up to `until`, both on the edge of one; after the parts of sessions the
-- sessions too, in the same transaction. Waits for others who fill.
CREATE PROCEDURE analytics_fill(view_name text, since timestamptz, until timestamptz)
    LANGUAGE plpgsql
    SET search_path FROM CURRENT
    AS $$
BEGIN
    CALL analytics_fill_aggregate(view_name, since, until);
    IF view_name = 'analytics_session_parts' THEN
        PERFORM analytics_fill_sessions(since, until);
    END IF;
END
$$;
