-- Keep aggregates in tables that the upkeep fills, and note which of their buckets are behind the events

-- One row per filled table: `<view_name>_filled` holds what `<view_name>_live` computes of the events from `live_since`
-- up to `live_until`, in buckets of `step`, an hour or a day. The view `<view_name>` reads the table up to
-- `filled_until` and the live part from there on.
--
-- The live part begins at `filled_until`, but within the transaction that fills a range: that sets it to the range,
-- copies, and sets it back, so the SQL of an aggregate is written once. Nobody else ever sees the range.
CREATE TABLE analytics_fills (
    view_name TEXT PRIMARY KEY,
    bucket_column TEXT NOT NULL,
    step TEXT NOT NULL CHECK (step IN ('hour', 'day')),
    filled_until TEXT NOT NULL DEFAULT '',
    live_since TEXT NOT NULL DEFAULT '',
    live_until TEXT NOT NULL DEFAULT '9999'
);

-- The buckets to compute again, each once: the changes that the upkeep has sorted in.
CREATE TABLE analytics_stale (
    view_name TEXT NOT NULL,
    bucket TEXT NOT NULL,
    PRIMARY KEY (view_name, bucket)
) WITHOUT ROWID;

-- Days that are in the aggregates and whose events are no longer stored, in whole or in part: they are not computed
-- again, because aggregates outlive events.
CREATE TABLE analytics_gone_days (day TEXT PRIMARY KEY);

-- For how many days raw events of a category are kept; null is for ever.
CREATE TABLE analytics_retention (
    category TEXT PRIMARY KEY,
    keep INTEGER CHECK (keep >= 1)
);
INSERT INTO analytics_retention (category, keep)
VALUES ('system', 90), ('interaction', 365), ('activity', 730), ('transaction', 2555), ('content', 2555);

-- One row while the upkeep is done: by whom, and when they last did a step of it.
CREATE TABLE analytics_upkeep (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    owner TEXT NOT NULL,
    renewed_at TEXT NOT NULL
);

-- The powers of 1.04, the bounds of the bins of histograms: of 1.04 ^ i. A bin i holds the values in
-- (1.04 ^ (i - 1), 1.04 ^ i]; 2 / 2.04 * 1.04 ^ i stands for it, as far, relatively, from one end as from the other:
-- 0.04 / 2.04 = 1.96 %. A table, because not every SQLite has functions for powers and logarithms.
CREATE TABLE analytics_powers (
    exponent INTEGER PRIMARY KEY,
    power REAL NOT NULL
);
INSERT INTO analytics_powers (exponent, power)
WITH RECURSIVE up (exponent, power) AS (
    SELECT 0, 1.0
    UNION ALL
    SELECT u.exponent + 1, u.power * 1.04 FROM up AS u WHERE u.exponent < 17700
),
down (exponent, power) AS (
    SELECT -1, 1.0 / 1.04
    UNION ALL
    SELECT d.exponent - 1, d.power / 1.04 FROM down AS d WHERE d.exponent > -17600
)
SELECT u.exponent, u.power FROM up AS u
UNION ALL
SELECT d.exponent, d.power FROM down AS d;
CREATE INDEX analytics_powers_power_idx ON analytics_powers (power);
