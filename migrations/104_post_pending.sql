-- Tell which ranges of the aggregates are behind the events

-- timescaledb

-- The ranges of complete buckets that events were written to since they were materialised, from `since` up to `until`.
--
-- Nothing of the last hour is among them, nor after now. What is materialised hides what comes in later until the next
-- refresh, and most events that come late come within the hour; an event of the year 2099 would make the aggregate end
-- there, and leave nothing to be computed in real time. SECURITY DEFINER: a reader may ask, too.
CREATE FUNCTION analytics_pending(
    since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL
) RETURNS TABLE (view_name text, window_start timestamptz, window_end timestamptz)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path FROM CURRENT
    SET timezone = 'UTC'
    AS $$
    WITH aggregates AS (
        SELECT c.user_view_name, c.mat_hypertable_id, c.raw_hypertable_id, b.bucket_width::interval AS step
        FROM _timescaledb_catalog.continuous_agg AS c
        JOIN _timescaledb_catalog.continuous_aggs_bucket_function AS b USING (mat_hypertable_id)
        JOIN _timescaledb_catalog.hypertable AS h ON h.id = c.raw_hypertable_id
        WHERE h.schema_name = current_schema() AND h.table_name = 'analytics_events'
    ),
    bounds AS (
        SELECT
            a.*,
            greatest(analytics_bucket(a.step, since), analytics_refreshable_from()) AS lower,
            least(
                analytics_bucket(a.step, until + a.step - INTERVAL '1 microsecond'),
                analytics_bucket(a.step, now() - INTERVAL '1 hour')
            ) AS upper
        FROM aggregates AS a
    ),
    days AS (
        SELECT range_agg(tstzrange(d.day, d.day + INTERVAL '1 day')) AS ranges
        FROM analytics_refreshable_days() AS d (day)
    ),
    -- What TimescaleDB noted as changed and has not refreshed: for each aggregate, and for all before it is shared out.
    -- Both bounds are inclusive, in microseconds, with the ends of bigint for "since ever" and "for ever".
    changes AS (
        SELECT b.mat_hypertable_id, l.lowest_modified_value AS lowest, l.greatest_modified_value AS greatest
        FROM bounds AS b
        JOIN _timescaledb_catalog.continuous_aggs_materialization_invalidation_log AS l
            ON l.materialization_id = b.mat_hypertable_id
        UNION ALL
        SELECT b.mat_hypertable_id, l.lowest_modified_value, l.greatest_modified_value
        FROM bounds AS b
        JOIN _timescaledb_catalog.continuous_aggs_hypertable_invalidation_log AS l
            ON l.hypertable_id = b.raw_hypertable_id
    ),
    changed AS (
        SELECT
            b.mat_hypertable_id,
            range_agg(tstzrange(
                analytics_bucket(b.step, greatest(x.lowest, b.lower)),
                analytics_bucket(b.step, least(x.greatest, b.upper)) + b.step
            )) AS ranges
        FROM bounds AS b
        JOIN (
            SELECT
                c.mat_hypertable_id,
                _timescaledb_functions.to_timestamp(greatest(c.lowest, -1)) AS lowest,
                _timescaledb_functions.to_timestamp(least(c.greatest, 4102444800000000)) AS greatest  -- the year 2100
            FROM changes AS c
            WHERE c.greatest >= 0
        ) AS x USING (mat_hypertable_id)
        WHERE b.lower < b.upper AND x.lowest < b.upper AND x.greatest >= b.lower
        GROUP BY b.mat_hypertable_id
    )
    SELECT b.user_view_name::text, lower(w), upper(w)
    FROM bounds AS b
    JOIN changed AS c USING (mat_hypertable_id)
    CROSS JOIN days AS d
    CROSS JOIN unnest(c.ranges * d.ranges * tstzmultirange(tstzrange(b.lower, b.upper))) AS w
    ORDER BY lower(w), b.user_view_name
    $$;

-- postgresql

-- The ranges of complete buckets to fill, from `since` up to `until`, at most a day of hours or a week of days long.
-- Nothing of the last hour: what is filled hides what comes in later until it is filled again, and most events that come
-- late come within the hour. SECURITY DEFINER: a reader may ask, too.
CREATE FUNCTION analytics_pending(
    since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL
) RETURNS TABLE (view_name text, window_start timestamptz, window_end timestamptz)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path FROM CURRENT
    SET timezone = 'UTC'
    AS $$
    WITH wanted AS (
        SELECT
            f.view_name,
            f.step,
            b.bucket,
            analytics_bucket(
                CASE WHEN f.step < INTERVAL '1 day' THEN INTERVAL '1 day' ELSE INTERVAL '7 days' END, b.bucket
            ) AS block
        FROM analytics_behind() AS b
        JOIN analytics_fills AS f USING (view_name)
        WHERE b.bucket + f.step <= now() - INTERVAL '1 hour'
            AND (since IS NULL OR b.bucket + f.step > since)
            AND (until IS NULL OR b.bucket < until)
            AND analytics_bucket('1 day', b.bucket) IN (SELECT d.day FROM analytics_refreshable_days() AS d (day))
    ),
    numbered AS (
        -- Buckets that follow each other without a hole have one difference to their number.
        SELECT
            w.*,
            w.bucket - w.step * row_number() OVER (PARTITION BY w.view_name, w.block ORDER BY w.bucket) AS run
        FROM wanted AS w
    )
    SELECT n.view_name, min(n.bucket), max(n.bucket + n.step)
    FROM numbered AS n
    GROUP BY n.view_name, n.block, n.run
    ORDER BY 2, 1
    $$;
