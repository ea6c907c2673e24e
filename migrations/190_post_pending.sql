-- Tell which ranges of the continuous aggregates are behind the events, and refresh them
-- for: timescaledb

-- The ranges of complete buckets that events were written to since they were materialised, from `since` up to `until`.
--
-- Days whose events are gone, or within a day of being dropped, are not among them: to refresh them would empty the
-- aggregate, which outlives the events. Nor is anything after now, for an event of the year 2099 would make the
-- aggregate end there, and leave nothing to be computed in real time.
CREATE FUNCTION analytics_pending(
    since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL
) RETURNS TABLE (view_name text, window_start timestamptz, window_end timestamptz)
    LANGUAGE sql STABLE
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
            greatest(
                date_bin(a.step, since, '2000-01-01 00:00:00+00'),
                analytics_refreshable_from()
            ) AS lower,
            least(
                date_bin(a.step, until + a.step - INTERVAL '1 microsecond', '2000-01-01 00:00:00+00'),
                date_bin(a.step, now(), '2000-01-01 00:00:00+00')
            ) AS upper
        FROM aggregates AS a
    ),
    days AS (
        SELECT range_agg(tstzrange(d.day, d.day + INTERVAL '1 day')) AS ranges
        FROM (
            SELECT DISTINCT g.day
            FROM timescaledb_information.chunks AS c
            CROSS JOIN generate_series(
                date_bin('1 day', c.range_start, '2000-01-01 00:00:00+00'),
                c.range_end - INTERVAL '1 microsecond',
                INTERVAL '1 day'
            ) AS g (day)
            WHERE c.hypertable_schema = current_schema()
                AND c.hypertable_name = 'analytics_events'
                AND c.range_end > (SELECT min(b.lower) FROM bounds AS b)
                AND c.range_start < (SELECT max(b.upper) FROM bounds AS b)
        ) AS d
        WHERE analytics_has_events(d.day)
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
                date_bin(b.step, greatest(x.lowest, b.lower), '2000-01-01 00:00:00+00'),
                date_bin(b.step, least(x.greatest, b.upper), '2000-01-01 00:00:00+00') + b.step
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

-- Refresh what is pending. A refresh commits on its way, and so can be called only from a procedure without a SET
-- clause, which sees the search_path of whoever calls it, a background job for instance. Therefore the names of this
-- schema and of the extension's are written into it; as a literal, for a name may hold what ends a dollar quote.
DO $do$
BEGIN
    EXECUTE format(
        'CREATE PROCEDURE analytics_refresh_pending(since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL) '
        'LANGUAGE plpgsql AS %L',
        format(
            $body$
DECLARE
    views text[];
    starts timestamptz[];
    ends timestamptz[];
BEGIN
    PERFORM %1$I.analytics_note_gone_days();
    -- Into arrays, for an open cursor would have to be kept over each of the commits.
    SELECT array_agg(p.view_name), array_agg(p.window_start), array_agg(p.window_end)
    INTO views, starts, ends
    FROM %1$I.analytics_pending(since, until) AS p;
    FOR i IN 1 .. coalesce(cardinality(views), 0) LOOP
        CALL %2$I.refresh_continuous_aggregate(format('%%I.%%I', %1$L, views[i])::regclass, starts[i], ends[i]);
    END LOOP;
END
            $body$,
            current_schema(),
            (
                SELECT n.nspname
                FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace
                WHERE e.extname = 'timescaledb'
            )
        )
    );
END
$do$;
