-- Aggregate metrics by hour and day, in tables that the upkeep fills, and show them by hour, day, week and month

-- Both flavours do the same, for metrics are few: an hour is computed again, as a whole, if a row of it has changed.
-- What has changed since is computed from the rows, so the views are exact at any moment.

-- both

CREATE TYPE analytics_histogram AS (bins integer[], counts bigint[]);

-- What stands for a bin: it is as far, relatively, from one end of the bin as from the other, 0.04 / 2.04 = 1.96 %.
CREATE FUNCTION analytics_metric_of_bin(bin integer) RETURNS float8
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE
        WHEN bin = 0 THEN 0
        ELSE sign(bin) * 2 * (1.04::float8 ^ least(greatest(abs(bin) - 20000, -17600), 17700)) / 2.04
    END;

-- Histograms are merged by adding them up, bin by bin.
CREATE FUNCTION analytics_merge_histograms(histograms analytics_histogram[]) RETURNS analytics_histogram
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    BEGIN ATOMIC
    SELECT CASE
        WHEN count(*) > 0 THEN
            ROW(array_agg(m.bin ORDER BY m.bin), array_agg(m.number ORDER BY m.bin))::analytics_histogram
    END
    FROM (
        SELECT b.bin, sum(b.number)::bigint AS number
        FROM unnest(histograms) AS h (bins, counts), unnest(h.bins, h.counts) AS b (bin, number)
        GROUP BY b.bin
    ) AS m;
    END;

-- The quantiles of a histogram whose values lie between two numbers; null without values. As percentile_cont does, and
-- with the reason of analytics_latency_quantile(), each is between the values at two ranks, both within 1.96 %.
CREATE FUNCTION analytics_histogram_quantiles(
    quantiles float8[], histogram analytics_histogram, lowest float8, highest float8
) RETURNS float8[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    BEGIN ATOMIC
    WITH ranked AS MATERIALIZED (
        SELECT b.bin, sum(b.number) OVER (ORDER BY b.bin) AS below, sum(b.number) OVER () AS total
        FROM unnest(histogram.bins, histogram.counts) AS b (bin, number)
    )
    SELECT array_agg(
        greatest(lowest, least(highest, e.low + (e.high - e.low) * (w.q * (e.total - 1) - floor(w.q * (e.total - 1)))))
        ORDER BY w.place
    )
    FROM unnest(quantiles) WITH ORDINALITY AS w (q, place)
    CROSS JOIN LATERAL (
        SELECT
            min(r.total)::float8 AS total,
            analytics_metric_of_bin(min(r.bin) FILTER (WHERE r.below > floor(w.q * (r.total - 1)))) AS low,
            analytics_metric_of_bin(min(r.bin) FILTER (WHERE r.below > ceil(w.q * (r.total - 1)))) AS high
        FROM ranked AS r
    ) AS e
    WHERE cardinality(histogram.bins) > 0;
    END;

-- How long the rows of metrics are kept. Replace it to keep them longer or shorter; null keeps them for ever. The
-- aggregates stay.
CREATE FUNCTION analytics_metric_retention() RETURNS interval
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN INTERVAL '31 days';

-- `gone_before`: rows of earlier hours are gone, and what arrives of them late is added to the aggregate.
CREATE TABLE analytics_metric_state (gone_before timestamptz NOT NULL);
INSERT INTO analytics_metric_state VALUES ('-infinity');

CREATE TABLE analytics_metric_hours_filled (
    hour timestamptz NOT NULL,
    name text NOT NULL,
    metric_type text NOT NULL,
    unit text,
    service text NOT NULL,
    tags jsonb NOT NULL,
    count bigint NOT NULL,
    sum float8 NOT NULL,
    min float8 NOT NULL,
    max float8 NOT NULL,
    last float8 NOT NULL,
    last_at timestamptz NOT NULL,
    histogram analytics_histogram
);
CREATE TABLE analytics_metric_days_filled (LIKE analytics_metric_hours_filled INCLUDING ALL);
ALTER TABLE analytics_metric_days_filled RENAME COLUMN hour TO day;
CREATE INDEX analytics_metric_hours_filled_hour_idx ON analytics_metric_hours_filled (hour);
CREATE INDEX analytics_metric_hours_filled_name_hour_idx ON analytics_metric_hours_filled (name, hour);
CREATE INDEX analytics_metric_days_filled_day_idx ON analytics_metric_days_filled (day);
CREATE INDEX analytics_metric_days_filled_name_day_idx ON analytics_metric_days_filled (name, day);

-- The days of which an hour was filled that they do not have.
CREATE TABLE analytics_metric_stale_days (day timestamptz PRIMARY KEY);

-- The hours and days that are computed from the rows, until the upkeep has filled them.
CREATE VIEW analytics_metric_open_hours AS
SELECT DISTINCT c.hour
FROM analytics_metric_changes AS c
WHERE c.hour >= (SELECT s.gone_before FROM analytics_metric_state AS s);

CREATE VIEW analytics_metric_open_days AS
SELECT analytics_bucket('1 day', o.hour) AS day FROM analytics_metric_open_hours AS o
UNION
SELECT s.day FROM analytics_metric_stale_days AS s;

CREATE VIEW analytics_metric_hours AS
SELECT f.* FROM analytics_metric_hours_filled AS f
WHERE f.hour NOT IN (SELECT o.hour FROM analytics_metric_open_hours AS o)
UNION ALL
SELECT
    o.hour,
    m.name,
    m.metric_type,
    m.unit,
    m.service,
    m.tags,
    sum(m.count)::bigint,
    sum(m.sum),
    min(m.min),
    max(m.max),
    (array_agg(m.last ORDER BY m.timestamp DESC, m.id DESC))[1],
    max(m.timestamp),
    analytics_merge_histograms(
        array_agg(ROW(m.bins, m.counts)::analytics_histogram) FILTER (WHERE m.bins IS NOT NULL)
    )
FROM analytics_metric_open_hours AS o
JOIN analytics_metrics AS m ON m.timestamp >= o.hour AND m.timestamp < o.hour + INTERVAL '1 hour'
GROUP BY o.hour, m.name, m.metric_type, m.unit, m.service, m.tags;

CREATE VIEW analytics_metric_days AS
SELECT f.* FROM analytics_metric_days_filled AS f
WHERE f.day NOT IN (SELECT o.day FROM analytics_metric_open_days AS o)
UNION ALL
SELECT
    o.day,
    h.name,
    h.metric_type,
    h.unit,
    h.service,
    h.tags,
    sum(h.count)::bigint,
    sum(h.sum),
    min(h.min),
    max(h.max),
    (array_agg(h.last ORDER BY h.last_at DESC))[1],
    max(h.last_at),
    analytics_merge_histograms(array_agg(h.histogram) FILTER (WHERE h.histogram IS NOT NULL))
FROM analytics_metric_open_days AS o
-- Not a day, which has another length where the session's time zone sets the clocks.
JOIN analytics_metric_hours AS h ON h.hour >= o.day AND h.hour < o.day + INTERVAL '24 hours'
GROUP BY o.day, h.name, h.metric_type, h.unit, h.service, h.tags;

-- By hour, day, week (from Monday) and month of UTC, one row per name and tags, whatever the service. Percentiles are
-- within 2 %, and null for counters.
CREATE VIEW analytics_metric_aggregates AS
SELECT
    g.name,
    g.period_start,
    g.period_type,
    g.count,
    g.sum,
    g.min,
    g.max,
    g.sum / g.count AS avg,
    q.quantiles[1] AS p50,
    q.quantiles[2] AS p90,
    q.quantiles[3] AS p99,
    g.tags,
    g.metric_type,
    g.unit
FROM (
    SELECT
        p.name,
        p.period_start,
        p.period_type,
        p.metric_type,
        p.unit,
        p.tags,
        sum(p.count)::bigint AS count,
        sum(p.sum) AS sum,
        min(p.min) AS min,
        max(p.max) AS max,
        analytics_merge_histograms(array_agg(p.histogram) FILTER (WHERE p.histogram IS NOT NULL)) AS histogram
    FROM (
        SELECT h.hour AS period_start, 'hourly' AS period_type, h.name, h.metric_type, h.unit, h.tags, h.count, h.sum,
            h.min, h.max, h.histogram
        FROM analytics_metric_hours AS h
        UNION ALL
        SELECT d.day, 'daily', d.name, d.metric_type, d.unit, d.tags, d.count, d.sum, d.min, d.max, d.histogram
        FROM analytics_metric_days AS d
        UNION ALL
        SELECT date_trunc('week', d.day, 'UTC'), 'weekly', d.name, d.metric_type, d.unit, d.tags, d.count, d.sum,
            d.min, d.max, d.histogram
        FROM analytics_metric_days AS d
        UNION ALL
        SELECT date_trunc('month', d.day, 'UTC'), 'monthly', d.name, d.metric_type, d.unit, d.tags, d.count, d.sum,
            d.min, d.max, d.histogram
        FROM analytics_metric_days AS d
    ) AS p
    GROUP BY p.name, p.period_start, p.period_type, p.metric_type, p.unit, p.tags
) AS g
CROSS JOIN LATERAL (
    SELECT analytics_histogram_quantiles(ARRAY[0.5, 0.9, 0.99], g.histogram, g.min, g.max) AS quantiles
) AS q;

COMMENT ON VIEW analytics_metric_aggregates IS 'Metrics by hour, day, week and month of UTC, name and tags.';

-- Compute the hours and days that are over and have changed; forget rows whose time is over. False if another process
-- is doing it. It blocks no writer.
--
-- Each statement sees what was committed before it. What a writer notes after the notes were taken is not lost: the note
-- stays, and so does the row.
CREATE FUNCTION analytics_fill_metrics() RETURNS boolean
    LANGUAGE plpgsql
    SET search_path FROM CURRENT
    SET timezone = 'UTC'
    AS $$
DECLARE
    gone timestamptz;
    cutoff timestamptz;
    noted timestamptz[];
    late timestamptz[];
    whole timestamptz[];
BEGIN
    IF NOT pg_try_advisory_xact_lock(
        (hashtext('asgi-analytics metrics')::bigint << 32) | 'analytics_metrics'::regclass::oid::bigint
    ) THEN
        RETURN false;
    END IF;
    SELECT s.gone_before INTO gone FROM analytics_metric_state AS s;
    WITH taken AS (
        DELETE FROM analytics_metric_changes AS c WHERE c.hour < analytics_bucket('1 hour', now()) RETURNING c.hour
    )
    SELECT
        array_agg(DISTINCT t.hour) FILTER (WHERE t.hour >= gone), array_agg(DISTINCT t.hour) FILTER (WHERE t.hour < gone)
    INTO noted, late
    FROM taken AS t;
    DELETE FROM analytics_metric_hours_filled AS f WHERE f.hour = ANY (noted);
    INSERT INTO analytics_metric_hours_filled
    SELECT
        o.hour,
        m.name,
        m.metric_type,
        m.unit,
        m.service,
        m.tags,
        sum(m.count)::bigint,
        sum(m.sum),
        min(m.min),
        max(m.max),
        (array_agg(m.last ORDER BY m.timestamp DESC, m.id DESC))[1],
        max(m.timestamp),
        analytics_merge_histograms(
            array_agg(ROW(m.bins, m.counts)::analytics_histogram) FILTER (WHERE m.bins IS NOT NULL)
        )
    FROM unnest(noted) AS o (hour)
    JOIN analytics_metrics AS m ON m.timestamp >= o.hour AND m.timestamp < o.hour + INTERVAL '1 hour'
    GROUP BY o.hour, m.name, m.metric_type, m.unit, m.service, m.tags;
    IF late IS NOT NULL THEN
        WITH came AS (
            DELETE FROM analytics_metrics AS m WHERE m.timestamp < gone RETURNING m.*
        ),
        known AS (
            DELETE FROM analytics_metric_hours_filled AS f WHERE f.hour = ANY (late) RETURNING f.*
        ),
        both_parts AS (
            SELECT k.* FROM known AS k
            UNION ALL
            SELECT
                analytics_bucket('1 hour', c.timestamp), c.name, c.metric_type, c.unit, c.service, c.tags, c.count,
                c.sum, c.min, c.max, c.last, c.timestamp,
                CASE WHEN c.bins IS NOT NULL THEN ROW(c.bins, c.counts)::analytics_histogram END
            FROM came AS c
        )
        INSERT INTO analytics_metric_hours_filled
        SELECT
            b.hour, b.name, b.metric_type, b.unit, b.service, b.tags, sum(b.count)::bigint, sum(b.sum), min(b.min),
            max(b.max), (array_agg(b.last ORDER BY b.last_at DESC))[1], max(b.last_at),
            analytics_merge_histograms(array_agg(b.histogram) FILTER (WHERE b.histogram IS NOT NULL))
        FROM both_parts AS b
        GROUP BY b.hour, b.name, b.metric_type, b.unit, b.service, b.tags;
    END IF;
    INSERT INTO analytics_metric_stale_days (day)
    SELECT DISTINCT analytics_bucket('1 day', o.hour) FROM unnest(noted || late) AS o (hour)
    ON CONFLICT DO NOTHING;
    WITH taken AS (
        DELETE FROM analytics_metric_stale_days AS s WHERE s.day < analytics_bucket('1 day', now()) RETURNING s.day
    )
    SELECT array_agg(t.day) INTO whole FROM taken AS t;
    DELETE FROM analytics_metric_days_filled AS f WHERE f.day = ANY (whole);
    INSERT INTO analytics_metric_days_filled
    SELECT
        o.day, h.name, h.metric_type, h.unit, h.service, h.tags, sum(h.count)::bigint, sum(h.sum), min(h.min),
        max(h.max), (array_agg(h.last ORDER BY h.last_at DESC))[1], max(h.last_at),
        analytics_merge_histograms(array_agg(h.histogram) FILTER (WHERE h.histogram IS NOT NULL))
    FROM unnest(whole) AS o (day)
    JOIN analytics_metric_hours_filled AS h ON h.hour >= o.day AND h.hour < o.day + INTERVAL '1 day'
    GROUP BY o.day, h.name, h.metric_type, h.unit, h.service, h.tags;
    cutoff := analytics_bucket('1 day', now() - analytics_metric_retention());
    IF cutoff > gone THEN
        -- Up to the first hour that was noted meanwhile: in one statement, so that notes and rows are of one moment.
        WITH bound AS MATERIALIZED (
            SELECT least(cutoff, min(c.hour)) AS until FROM analytics_metric_changes AS c WHERE c.hour >= gone
        ),
        forgotten AS (
            DELETE FROM analytics_metrics AS m
            USING bound AS b
            WHERE m.timestamp < b.until AND m.timestamp >= gone
        )
        UPDATE analytics_metric_state AS s
        SET gone_before = greatest(s.gone_before, b.until)
        FROM bound AS b;
    END IF;
    RETURN true;
END
$$;

-- timescaledb

-- Drop the chunks that have become empty, unless a writer is at one of them.
CREATE FUNCTION analytics_drop_metric_chunks() RETURNS void
    LANGUAGE plpgsql
    SET search_path FROM CURRENT
    SET lock_timeout = '500ms'
    AS $$
DECLARE
    chunk record;
    is_empty boolean;
BEGIN
    FOR chunk IN
        SELECT format('%I.%I', c.chunk_schema, c.chunk_name) AS name, c.range_start, c.range_end
        FROM timescaledb_information.chunks AS c
        WHERE c.hypertable_schema = current_schema() AND c.hypertable_name = 'analytics_metrics'
            AND c.range_end <= (SELECT s.gone_before FROM analytics_metric_state AS s)
    LOOP
        EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', chunk.name);
        EXECUTE format('SELECT NOT EXISTS (SELECT FROM %s)', chunk.name) INTO is_empty;
        IF is_empty THEN
            PERFORM drop_chunks('analytics_metrics', older_than => chunk.range_end, newer_than => chunk.range_start);
        END IF;
    END LOOP;
EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
    RAISE LOG 'asgi-analytics leaves chunks of metrics to the next hour: analytics_metrics is in use';
END
$$;
