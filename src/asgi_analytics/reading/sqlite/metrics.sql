-- Metrics: days and hours of UTC from their aggregates, rows for what is not a whole hour.

-- lost_rows --
-- Tell since when the rows of metrics are kept, and whether any between $1 and $2 are gone: the aggregate knows more.
SELECT
    s.gone_before,
    EXISTS (
        SELECT FROM analytics_metric_hours_filled AS f
        WHERE f.hour >= date_bin('1 hour', $1, '2000-01-01 00:00:00+00')
            AND f.hour < least($2, s.gone_before)
    ) AS is_lost
FROM analytics_metric_state AS s;

-- rows --
-- List the rows from $1 up to $2, the oldest first, of the name $3, whose name begins with $4, that have the tags $5, of
-- the service $6; each of them null for any. $7 is the greatest number of rows.
SELECT m.id, m.name, m.metric_type, m.value, m.timestamp, m.tags, m.unit, m.service, m.count, m.sum, m.min, m.max, m.last
FROM analytics_metrics AS m
WHERE m.timestamp >= $1 AND m.timestamp < $2
    AND ($3 IS NULL OR m.name = $3) AND ($4 IS NULL OR starts_with(m.name, $4))
    AND ($5 IS NULL OR m.tags @> $5) AND ($6 IS NULL OR m.service = $6)
ORDER BY m.timestamp, m.id
LIMIT $7;

-- stats --
-- Add up all of a range. $1 to $6 are the bounds of its five parts: rows, hours, days, hours, rows; $7 is the name, $8
-- what the name begins with, $9 the tags, $10 the service.
SELECT coalesce(sum(p.count), 0), sum(p.sum), min(p.min), max(p.max), sum(p.sum) / sum(p.count)* 1.0
FROM (
    SELECT d.name, d.tags, d.service, d.count, d.sum, d.min, d.max
    FROM analytics_metric_days AS d
    WHERE d.day >= $3 AND d.day < $4
    UNION ALL
    SELECT h.name, h.tags, h.service, h.count, h.sum, h.min, h.max
    FROM analytics_metric_hours AS h
    WHERE h.hour >= $2 AND h.hour < $3
    UNION ALL
    SELECT h.name, h.tags, h.service, h.count, h.sum, h.min, h.max
    FROM analytics_metric_hours AS h
    WHERE h.hour >= $4 AND h.hour < $5
    UNION ALL
    SELECT m.name, m.tags, m.service, m.count, m.sum, m.min, m.max
    FROM analytics_metrics AS m
    WHERE m.timestamp >= $1 AND m.timestamp < $2
    UNION ALL
    SELECT m.name, m.tags, m.service, m.count, m.sum, m.min, m.max
    FROM analytics_metrics AS m
    WHERE m.timestamp >= $5 AND m.timestamp < $6
) AS p
WHERE ($7 IS NULL OR p.name = $7) AND ($8 IS NULL OR starts_with(p.name, $8))
    AND ($9 IS NULL OR p.tags @> $9) AND ($10 IS NULL OR p.service = $10);

-- aggregates --
-- Describe each bucket of each name and tags, the oldest first. $1 to $10 are as for stats; $11 are the edges of the
-- buckets, $12 how many seconds of each are over, $13 the names of the tags to tell apart, null for all; $14 is the
-- greatest number of rows.
SELECT
    g.bucket,
    g.name,
    g.metric_type,
    g.unit,
    g.tags,
    g.count,
    g.sum,
    g.min,
    g.max,
    g.sum / g.count AS avg,
    q.quantiles[1] AS p50,
    q.quantiles[2] AS p90,
    q.quantiles[3] AS p99,
    CASE WHEN g.metric_type = 'counter' THEN g.sum / ($12* 1.0[])[g.bucket] END AS rate_per_second
FROM (
    SELECT
        analytics_bucket(p.at, 11) AS bucket,
        p.name,
        p.metric_type,
        p.unit,
        CASE
            WHEN $13 IS NULL THEN p.tags
            ELSE coalesce(
                (SELECT jsonb_object_agg(k.tag, p.tags -> k.tag) FROM unnest($13) AS k (tag) WHERE p.tags ? k.tag), '{}'
            )
        END AS tags,
        sum(p.count) AS count,
        sum(p.sum) AS sum,
        min(p.min) AS min,
        max(p.max) AS max,
        analytics_merge_histograms(array_agg(p.histogram) FILTER (WHERE p.histogram IS NOT NULL)) AS histogram
    FROM (
        SELECT d.day AS at, d.name, d.metric_type, d.unit, d.tags, d.service, d.count, d.sum, d.min, d.max, d.histogram
        FROM analytics_metric_days AS d
        WHERE d.day >= $3 AND d.day < $4
        UNION ALL
        SELECT h.hour, h.name, h.metric_type, h.unit, h.tags, h.service, h.count, h.sum, h.min, h.max, h.histogram
        FROM analytics_metric_hours AS h
        WHERE h.hour >= $2 AND h.hour < $3
        UNION ALL
        SELECT h.hour, h.name, h.metric_type, h.unit, h.tags, h.service, h.count, h.sum, h.min, h.max, h.histogram
        FROM analytics_metric_hours AS h
        WHERE h.hour >= $4 AND h.hour < $5
        UNION ALL
        SELECT m.timestamp, m.name, m.metric_type, m.unit, m.tags, m.service, m.count, m.sum, m.min, m.max,
            CASE WHEN m.bins IS NOT NULL THEN ROW(m.bins, m.counts)::analytics_histogram END
        FROM analytics_metrics AS m
        WHERE m.timestamp >= $1 AND m.timestamp < $2
        UNION ALL
        SELECT m.timestamp, m.name, m.metric_type, m.unit, m.tags, m.service, m.count, m.sum, m.min, m.max,
            CASE WHEN m.bins IS NOT NULL THEN ROW(m.bins, m.counts)::analytics_histogram END
        FROM analytics_metrics AS m
        WHERE m.timestamp >= $5 AND m.timestamp < $6
    ) AS p
    WHERE ($7 IS NULL OR p.name = $7) AND ($8 IS NULL OR starts_with(p.name, $8))
        AND ($9 IS NULL OR p.tags @> $9) AND ($10 IS NULL OR p.service = $10)
    GROUP BY 1, 2, 3, 4, 5
) AS g
CROSS JOIN LATERAL (
    SELECT analytics_histogram_quantiles(ARRAY[0.5, 0.9, 0.99], g.histogram, g.min, g.max) AS quantiles
) AS q
ORDER BY g.bucket, g.name, g.metric_type, g.unit, g.tags
LIMIT $14;
