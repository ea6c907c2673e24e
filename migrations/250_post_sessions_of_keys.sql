-- Join the sessions of some keys anew, without those of everybody else: to erase one person takes each of their days

-- both

-- As before, of these keys only, or of all if `keys` is null: what changes in the sessions when the parts from `since` up
-- to `until` change.
CREATE FUNCTION analytics_join_sessions(
    since timestamptz, until timestamptz, is_live boolean, keys text[]
) RETURNS TABLE (
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
        WHERE NOT is_live AND p.bucket >= since AND p.bucket < until AND (keys IS NULL OR p.key = ANY (keys))
        UNION ALL
        SELECT p.*
        FROM analytics_session_parts_live(since, until) AS p
        WHERE is_live AND (keys IS NULL OR p.key = ANY (keys))
    ),
    touched AS MATERIALIZED (
        SELECT c.key, c.given FROM changed AS c
        UNION
        SELECT s.key, s.given
        FROM analytics_sessions_filled AS s
        WHERE s.ended_at >= since AND s.first_at < until AND (keys IS NULL OR s.key = ANY (keys))
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

-- As before, of all keys.
CREATE OR REPLACE FUNCTION analytics_join_sessions(since timestamptz, until timestamptz, is_live boolean) RETURNS TABLE (
    replaced boolean,
    session analytics_sessions_filled
)
    LANGUAGE sql STABLE
    BEGIN ATOMIC
    SELECT j.replaced, j.session FROM analytics_join_sessions(since, until, is_live, NULL) AS j;
    END;

-- Bring the filled sessions of these keys, or of all if `keys` is null, in line with the filled parts from `since` up to
-- `until`.
CREATE FUNCTION analytics_fill_sessions(since timestamptz, until timestamptz, keys text[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path FROM CURRENT
    AS $$
BEGIN
    LOCK TABLE analytics_sessions_filled IN SHARE ROW EXCLUSIVE MODE;
    WITH joined AS MATERIALIZED (
        SELECT j.replaced, j.session, (j.session).key, (j.session).given, (j.session).first_at
        FROM analytics_join_sessions(since, until, false, keys) AS j
    ),
    gone AS (
        DELETE FROM analytics_sessions_filled AS s
        USING joined AS j
        WHERE j.replaced AND s.key = j.key AND s.given = j.given AND s.first_at = j.first_at
    )
    INSERT INTO analytics_sessions_filled SELECT (j.session).* FROM joined AS j WHERE NOT j.replaced;
END
$$;

-- As before, of all keys.
CREATE OR REPLACE FUNCTION analytics_fill_sessions(since timestamptz, until timestamptz) RETURNS void
    LANGUAGE sql
    BEGIN ATOMIC
    SELECT analytics_fill_sessions(since, until, NULL);
    END;
