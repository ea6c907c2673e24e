-- Metrics: days and hours of UTC from their aggregates, rows for what is not a whole hour.

-- lost_rows --
-- Tell since when the rows of metrics are kept, and whether any between $1 and $2 are gone: the aggregate knows more.
SELECT
    max(s.gone_before, '1970-01-01T00:00:00.000000Z') AS "gone_before::timestamptz",
    EXISTS (
        SELECT 1 FROM analytics_metric_hours_filled AS f
        WHERE f.hour >= substr($1, 1, 13) || ':00:00.000000Z' AND f.hour < min($2, s.gone_before)
    ) AS "is_lost::boolean"
FROM analytics_metric_state AS s;

-- rows --
-- List the rows from $1 up to $2, the oldest first, of the name $3, whose name begins with $4, that have the tags $5, of
-- the service $6; each of them null for any. $7 is the greatest number of rows.
SELECT
    m.id AS "id::uuid", m.name, m.metric_type, m.value, m.timestamp AS "timestamp::timestamptz", m.tags, m.unit, m.service,
    m.count, m.sum, m.min, m.max, m.last
FROM metrics AS m
WHERE m.timestamp >= $1 AND m.timestamp < $2
    AND ($3 IS NULL OR m.name = $3) AND ($4 IS NULL OR substr(m.name, 1, length($4)) = $4)
    AND ($5 IS NULL OR analytics_has_tags(m.tags, $5)) AND ($6 IS NULL OR m.service = $6)
ORDER BY m.timestamp, m.id
LIMIT $7;

-- stats --
-- Add up all of a range. $1 to $6 are the bounds of its five parts: rows, hours, days, hours, rows; $7 is the name, $8
-- what the name begins with, $9 the tags, $10 the service.
SELECT
    coalesce(sum(p.count), 0) AS count, sum(p.sum) AS sum, min(p.min) AS min, max(p.max) AS max,
    sum(p.sum) / sum(p.count) AS avg
FROM (
    SELECT d.name, d.tags, d.service, d.count, d.sum, d.min, d.max
    FROM analytics_metric_days AS d
    WHERE d.day >= $3 AND d.day < $4
    UNION ALL
    SELECT h.name, h.tags, h.service, h.count, h.sum, h.min, h.max
    FROM analytics_metric_hours AS h
    WHERE h.hour >= $2 AND h.hour < $3 OR h.hour >= $4 AND h.hour < $5
    UNION ALL
    SELECT m.name, m.tags, m.service, m.count, m.sum, m.min, m.max
    FROM metrics AS m
    WHERE (m.timestamp >= $1 AND m.timestamp < $2 OR m.timestamp >= $5 AND m.timestamp < $6)
) AS p
WHERE ($7 IS NULL OR p.name = $7) AND ($8 IS NULL OR substr(p.name, 1, length($8)) = $8)
    AND ($9 IS NULL OR analytics_has_tags(p.tags, $9)) AND ($10 IS NULL OR p.service = $10);

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
    json_extract(g.quantiles, '$[0]') AS p50,
    json_extract(g.quantiles, '$[1]') AS p90,
    json_extract(g.quantiles, '$[2]') AS p99,
    CASE WHEN g.metric_type = 'counter' THEN g.sum / json_extract($12, '$[' || (g.bucket - 1) || ']') END
        AS rate_per_second
FROM (
    SELECT
        analytics_bucket(p.at, 11) AS bucket,
        p.name,
        p.metric_type,
        p.unit,
        CASE WHEN $13 IS NULL THEN p.tags ELSE analytics_only_tags(p.tags, $13) END AS tags,
        sum(p.count) AS count,
        sum(p.sum) AS sum,
        min(p.min) AS min,
        max(p.max) AS max,
        analytics_quantiles_of_histograms(p.histogram, p.min, p.max, '[0.5, 0.9, 0.99]') AS quantiles
    FROM (
        SELECT d.day AS at, d.name, d.metric_type, d.unit, d.tags, d.service, d.count, d.sum, d.min, d.max, d.histogram
        FROM analytics_metric_days AS d
        WHERE d.day >= $3 AND d.day < $4
        UNION ALL
        SELECT h.hour, h.name, h.metric_type, h.unit, h.tags, h.service, h.count, h.sum, h.min, h.max, h.histogram
        FROM analytics_metric_hours AS h
        WHERE h.hour >= $2 AND h.hour < $3 OR h.hour >= $4 AND h.hour < $5
        UNION ALL
        SELECT m.timestamp, m.name, m.metric_type, m.unit, m.tags, m.service, m.count, m.sum, m.min, m.max, m.histogram
        FROM metrics AS m
        WHERE (m.timestamp >= $1 AND m.timestamp < $2 OR m.timestamp >= $5 AND m.timestamp < $6)
    ) AS p
    WHERE ($7 IS NULL OR p.name = $7) AND ($8 IS NULL OR substr(p.name, 1, length($8)) = $8)
        AND ($9 IS NULL OR analytics_has_tags(p.tags, $9)) AND ($10 IS NULL OR p.service = $10)
    GROUP BY 1, 2, 3, 4, 5
) AS g
ORDER BY g.bucket, g.name, g.metric_type, g.unit NULLS LAST, g.tags
LIMIT $14;
