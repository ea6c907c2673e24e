-- Aggregate metrics by hour and day, in tables that the upkeep fills, and show them by hour, day, week and month

-- An hour is computed again, as a whole, if a row of it has changed. What has changed since is computed from the rows, so
-- the views are exact at any moment. A histogram is JSON, {"bin": number of values}, as in metrics.

-- `gone_before`: rows of earlier hours are gone, and what arrives of them late is added to the aggregate. `keep`: for how
-- many days rows are kept; null is for ever. `hours_since` and `days_since`: analytics_metric_aggregates shows nothing
-- earlier; they are empty, but within the transaction in which the upkeep fills metric_aggregates.
CREATE TABLE analytics_metric_state (
    gone_before TEXT NOT NULL DEFAULT '',
    keep INTEGER DEFAULT 31 CHECK (keep >= 1),
    hours_since TEXT NOT NULL DEFAULT '',
    days_since TEXT NOT NULL DEFAULT ''
);
INSERT INTO analytics_metric_state DEFAULT VALUES;

CREATE TABLE analytics_metric_hours_filled (
    hour TEXT NOT NULL,
    name TEXT NOT NULL,
    metric_type TEXT NOT NULL,
    unit TEXT,
    service TEXT NOT NULL,
    tags TEXT NOT NULL,
    count INTEGER NOT NULL,
    sum REAL NOT NULL,
    min REAL NOT NULL,
    max REAL NOT NULL,
    last REAL NOT NULL,
    last_at TEXT NOT NULL,
    histogram TEXT
);
CREATE INDEX analytics_metric_hours_filled_hour_idx ON analytics_metric_hours_filled (hour);
CREATE INDEX analytics_metric_hours_filled_name_hour_idx ON analytics_metric_hours_filled (name, hour);

CREATE TABLE analytics_metric_days_filled (
    day TEXT NOT NULL,
    name TEXT NOT NULL,
    metric_type TEXT NOT NULL,
    unit TEXT,
    service TEXT NOT NULL,
    tags TEXT NOT NULL,
    count INTEGER NOT NULL,
    sum REAL NOT NULL,
    min REAL NOT NULL,
    max REAL NOT NULL,
    last REAL NOT NULL,
    last_at TEXT NOT NULL,
    histogram TEXT
);
CREATE INDEX analytics_metric_days_filled_day_idx ON analytics_metric_days_filled (day);
CREATE INDEX analytics_metric_days_filled_name_day_idx ON analytics_metric_days_filled (name, day);

-- The days of which an hour was filled that they do not have.
CREATE TABLE analytics_metric_stale_days (day TEXT PRIMARY KEY) WITHOUT ROWID;

-- The hours and days that are computed from the rows, until the upkeep has filled them.
CREATE VIEW analytics_metric_open_hours AS
SELECT c.hour
FROM analytics_metric_changes AS c
WHERE c.hour >= (SELECT s.gone_before FROM analytics_metric_state AS s);

CREATE VIEW analytics_metric_open_days AS
SELECT substr(o.hour, 1, 10) || 'T00:00:00.000000Z' AS day FROM analytics_metric_open_hours AS o
UNION
SELECT s.day FROM analytics_metric_stale_days AS s;

-- The open hours. Each row comes three times: with its numbers, as one that may be the last, and with its histogram by
-- bin, so that one pass adds them up.
CREATE VIEW analytics_metric_hours_live AS
SELECT
    r.hour,
    r.name,
    r.metric_type,
    r.unit,
    r.service,
    r.tags,
    sum(r.count) AS count,
    sum(r.sum) AS sum,
    min(r.min) AS min,
    max(r.max) AS max,
    max(r.last) AS last,
    max(r.last_at) AS last_at,
    CASE WHEN count(r.bin) > 0 THEN json_group_object(r.bin, r.number) FILTER (WHERE r.bin IS NOT NULL) END AS histogram
FROM (
    SELECT
        o.hour, m.name, m.metric_type, m.unit, m.service, m.tags, m.count, m.sum, m.min, m.max, NULL AS last,
        m.timestamp AS last_at, NULL AS bin, NULL AS number
    FROM analytics_metric_open_hours AS o
    CROSS JOIN metrics AS m
    WHERE m.timestamp >= o.hour AND m.timestamp < substr(o.hour, 1, 13) || ':59:59.999999Z~'
    UNION ALL
    SELECT
        l.hour, l.name, l.metric_type, l.unit, l.service, l.tags, NULL, NULL, NULL, NULL, l.last, NULL, NULL, NULL
    FROM (
        -- The columns that are not aggregated are those of the row with the maximum.
        SELECT o.hour, m.name, m.metric_type, m.unit, m.service, m.tags, m.last, max(m.timestamp || m.id)
        FROM analytics_metric_open_hours AS o
        CROSS JOIN metrics AS m
        WHERE m.timestamp >= o.hour AND m.timestamp < substr(o.hour, 1, 13) || ':59:59.999999Z~'
        GROUP BY o.hour, m.name, m.metric_type, m.unit, m.service, m.tags
    ) AS l
    UNION ALL
    SELECT
        o.hour, m.name, m.metric_type, m.unit, m.service, m.tags, NULL, NULL, NULL, NULL, NULL, NULL, b.key,
        sum(b.value)
    FROM analytics_metric_open_hours AS o
    CROSS JOIN metrics AS m
    CROSS JOIN json_each(m.histogram) AS b
    WHERE m.timestamp >= o.hour AND m.timestamp < substr(o.hour, 1, 13) || ':59:59.999999Z~'
        AND m.histogram IS NOT NULL
    GROUP BY o.hour, m.name, m.metric_type, m.unit, m.service, m.tags, b.key
) AS r
GROUP BY r.hour, r.name, r.metric_type, r.unit, r.service, r.tags;

CREATE VIEW analytics_metric_hours AS
SELECT f.* FROM analytics_metric_hours_filled AS f
WHERE f.hour NOT IN (SELECT o.hour FROM analytics_metric_open_hours AS o)
UNION ALL
SELECT l.* FROM analytics_metric_hours_live AS l;

CREATE VIEW analytics_metric_days_live AS
WITH hours AS MATERIALIZED (
    SELECT substr(h.hour, 1, 10) || 'T00:00:00.000000Z' AS day, h.*
    FROM analytics_metric_hours AS h
    WHERE substr(h.hour, 1, 10) || 'T00:00:00.000000Z' IN (SELECT o.day FROM analytics_metric_open_days AS o)
)
SELECT
    r.day,
    r.name,
    r.metric_type,
    r.unit,
    r.service,
    r.tags,
    sum(r.count) AS count,
    sum(r.sum) AS sum,
    min(r.min) AS min,
    max(r.max) AS max,
    max(r.last) AS last,
    max(r.last_at) AS last_at,
    CASE WHEN count(r.bin) > 0 THEN json_group_object(r.bin, r.number) FILTER (WHERE r.bin IS NOT NULL) END AS histogram
FROM (
    SELECT
        h.day, h.name, h.metric_type, h.unit, h.service, h.tags, h.count, h.sum, h.min, h.max, NULL AS last, h.last_at,
        NULL AS bin, NULL AS number
    FROM hours AS h
    UNION ALL
    SELECT
        l.day, l.name, l.metric_type, l.unit, l.service, l.tags, NULL, NULL, NULL, NULL, l.last, NULL, NULL, NULL
    FROM (
        SELECT h.day, h.name, h.metric_type, h.unit, h.service, h.tags, h.last, max(h.last_at)
        FROM hours AS h
        GROUP BY h.day, h.name, h.metric_type, h.unit, h.service, h.tags
    ) AS l
    UNION ALL
    SELECT
        h.day, h.name, h.metric_type, h.unit, h.service, h.tags, NULL, NULL, NULL, NULL, NULL, NULL, b.key, sum(b.value)
    FROM hours AS h
    CROSS JOIN json_each(h.histogram) AS b
    WHERE h.histogram IS NOT NULL
    GROUP BY h.day, h.name, h.metric_type, h.unit, h.service, h.tags, b.key
) AS r
GROUP BY r.day, r.name, r.metric_type, r.unit, r.service, r.tags;

CREATE VIEW analytics_metric_days AS
SELECT f.* FROM analytics_metric_days_filled AS f
WHERE f.day NOT IN (SELECT o.day FROM analytics_metric_open_days AS o)
UNION ALL
SELECT l.* FROM analytics_metric_days_live AS l;

-- By hour, day, week (from Monday) and month of UTC, one row per name and tags, whatever the service. Percentiles are
-- within 2 %, and null for counters: as percentile_cont does, each is between the values at two ranks.
CREATE VIEW analytics_metric_aggregates AS
WITH periods AS (
    SELECT h.hour AS period_start, 'hourly' AS period_type, h.name, h.metric_type, h.unit, h.tags, h.count, h.sum,
        h.min, h.max, h.histogram
    FROM analytics_metric_hours AS h
    WHERE h.hour >= (SELECT s.hours_since FROM analytics_metric_state AS s)
    UNION ALL
    SELECT d.day, 'daily', d.name, d.metric_type, d.unit, d.tags, d.count, d.sum, d.min, d.max, d.histogram
    FROM analytics_metric_days AS d
    WHERE d.day >= (SELECT s.days_since FROM analytics_metric_state AS s)
    UNION ALL
    SELECT strftime('%Y-%m-%dT00:00:00.000000Z', d.day, '-6 days', 'weekday 1'), 'weekly', d.name, d.metric_type,
        d.unit, d.tags, d.count, d.sum, d.min, d.max, d.histogram
    FROM analytics_metric_days AS d
    WHERE d.day >= (SELECT s.days_since FROM analytics_metric_state AS s)
    UNION ALL
    SELECT substr(d.day, 1, 7) || '-01T00:00:00.000000Z', 'monthly', d.name, d.metric_type, d.unit, d.tags, d.count,
        d.sum, d.min, d.max, d.histogram
    FROM analytics_metric_days AS d
    WHERE d.day >= (SELECT s.days_since FROM analytics_metric_state AS s)
),
bins AS (
    SELECT
        p.period_start, p.period_type, p.name, p.metric_type, p.unit, p.tags, CAST(b.key AS INTEGER) AS bin,
        sum(b.value) AS number
    FROM periods AS p
    CROSS JOIN json_each(p.histogram) AS b
    WHERE p.histogram IS NOT NULL
    GROUP BY p.period_start, p.period_type, p.name, p.metric_type, p.unit, p.tags, CAST(b.key AS INTEGER)
),
ranked AS (
    SELECT
        b.*,
        sum(b.number) OVER (
            PARTITION BY b.period_start, b.period_type, b.name, b.metric_type, b.unit, b.tags ORDER BY b.bin
        ) AS below,
        sum(b.number) OVER (
            PARTITION BY b.period_start, b.period_type, b.name, b.metric_type, b.unit, b.tags
        ) - 1 AS rank
    FROM bins AS b
),
ends AS (
    -- The first bin with more values below its upper end than the rank, which counts from 0.
    SELECT
        r.period_start, r.period_type, r.name, r.metric_type, r.unit, r.tags, r.rank,
        min(CASE WHEN r.below > CAST(0.5 * r.rank AS INTEGER) THEN r.bin END) AS low50,
        min(
            CASE
                WHEN r.below > CAST(0.5 * r.rank AS INTEGER) + (0.5 * r.rank > CAST(0.5 * r.rank AS INTEGER)) THEN r.bin
            END
        ) AS high50,
        min(CASE WHEN r.below > CAST(0.9 * r.rank AS INTEGER) THEN r.bin END) AS low90,
        min(
            CASE
                WHEN r.below > CAST(0.9 * r.rank AS INTEGER) + (0.9 * r.rank > CAST(0.9 * r.rank AS INTEGER)) THEN r.bin
            END
        ) AS high90,
        min(CASE WHEN r.below > CAST(0.99 * r.rank AS INTEGER) THEN r.bin END) AS low99,
        min(
            CASE
                WHEN r.below > CAST(0.99 * r.rank AS INTEGER) + (0.99 * r.rank > CAST(0.99 * r.rank AS INTEGER)) THEN r.bin
            END
        ) AS high99
    FROM ranked AS r
    GROUP BY r.period_start, r.period_type, r.name, r.metric_type, r.unit, r.tags
)
SELECT
    g.name,
    g.period_start,
    g.period_type,
    g.count,
    g.sum,
    g.min,
    g.max,
    g.sum / g.count AS avg,
    max(g.min, min(g.max, g.low50 + (g.high50 - g.low50) * (0.5 * g.rank - CAST(0.5 * g.rank AS INTEGER)))) AS p50,
    max(g.min, min(g.max, g.low90 + (g.high90 - g.low90) * (0.9 * g.rank - CAST(0.9 * g.rank AS INTEGER)))) AS p90,
    max(g.min, min(g.max, g.low99 + (g.high99 - g.low99) * (0.99 * g.rank - CAST(0.99 * g.rank AS INTEGER)))) AS p99,
    g.tags,
    g.metric_type,
    g.unit
FROM (
    SELECT
        s.period_start, s.period_type, s.name, s.metric_type, s.unit, s.tags, sum(s.count) AS count, sum(s.sum) AS sum,
        min(s.min) AS min, max(s.max) AS max, max(s.rank) AS rank,
        max(s.low50) AS low50, max(s.high50) AS high50, max(s.low90) AS low90, max(s.high90) AS high90,
        max(s.low99) AS low99, max(s.high99) AS high99
    FROM (
        SELECT
            p.period_start, p.period_type, p.name, p.metric_type, p.unit, p.tags, p.count, p.sum, p.min, p.max,
            NULL AS rank, NULL AS low50, NULL AS high50, NULL AS low90, NULL AS high90, NULL AS low99, NULL AS high99
        FROM periods AS p
        UNION ALL
        SELECT
            e.period_start, e.period_type, e.name, e.metric_type, e.unit, e.tags, NULL, NULL, NULL, NULL, e.rank,
            CASE
                WHEN e.low50 > 0 THEN (SELECT p.power FROM analytics_powers AS p WHERE p.exponent = e.low50 - 20000)
                WHEN e.low50 < 0 THEN (SELECT -p.power FROM analytics_powers AS p WHERE p.exponent = -e.low50 - 20000)
                ELSE 0.0
            END * 2 / 2.04,
            CASE
                WHEN e.high50 > 0 THEN (SELECT p.power FROM analytics_powers AS p WHERE p.exponent = e.high50 - 20000)
                WHEN e.high50 < 0 THEN (SELECT -p.power FROM analytics_powers AS p WHERE p.exponent = -e.high50 - 20000)
                ELSE 0.0
            END * 2 / 2.04,
            CASE
                WHEN e.low90 > 0 THEN (SELECT p.power FROM analytics_powers AS p WHERE p.exponent = e.low90 - 20000)
                WHEN e.low90 < 0 THEN (SELECT -p.power FROM analytics_powers AS p WHERE p.exponent = -e.low90 - 20000)
                ELSE 0.0
            END * 2 / 2.04,
            CASE
                WHEN e.high90 > 0 THEN (SELECT p.power FROM analytics_powers AS p WHERE p.exponent = e.high90 - 20000)
                WHEN e.high90 < 0 THEN (SELECT -p.power FROM analytics_powers AS p WHERE p.exponent = -e.high90 - 20000)
                ELSE 0.0
            END * 2 / 2.04,
            CASE
                WHEN e.low99 > 0 THEN (SELECT p.power FROM analytics_powers AS p WHERE p.exponent = e.low99 - 20000)
                WHEN e.low99 < 0 THEN (SELECT -p.power FROM analytics_powers AS p WHERE p.exponent = -e.low99 - 20000)
                ELSE 0.0
            END * 2 / 2.04,
            CASE
                WHEN e.high99 > 0 THEN (SELECT p.power FROM analytics_powers AS p WHERE p.exponent = e.high99 - 20000)
                WHEN e.high99 < 0 THEN (SELECT -p.power FROM analytics_powers AS p WHERE p.exponent = -e.high99 - 20000)
                ELSE 0.0
            END * 2 / 2.04
        FROM ends AS e
    ) AS s
    GROUP BY s.period_start, s.period_type, s.name, s.metric_type, s.unit, s.tags
) AS g;

-- The same as a table, which the upkeep fills. A name with two types or units has the row of whichever has more values.
CREATE TABLE metric_aggregates (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    period_start TEXT NOT NULL,
    period_type TEXT NOT NULL CHECK (period_type IN ('hourly', 'daily', 'weekly', 'monthly')),
    count INTEGER NOT NULL,
    sum REAL NOT NULL,
    min REAL NOT NULL,
    max REAL NOT NULL,
    avg REAL NOT NULL,
    p50 REAL,
    p90 REAL,
    p99 REAL,
    tags TEXT NOT NULL DEFAULT '{}',
    UNIQUE (name, period_start, period_type, tags)
);
