-- Make the table of metrics: one row per series and interval, with what was recorded in it

-- both

-- A row holds what was recorded since the one before: rows are added up, whichever process they come from. `value` is
-- the sum of a counter, the last of a gauge, the mean of the others. `bins` and `counts` are the histogram: how many
-- values each bin has, in the order of the bins; null for counters. A bin is 0 for zero, else, with the sign of the
-- value x, 20000 + ceil(ln |x| / ln 1.04).
CREATE TABLE analytics_metrics (
    id uuid NOT NULL,
    timestamp timestamptz NOT NULL,
    name text NOT NULL,
    metric_type text NOT NULL,
    value float8 NOT NULL,
    unit text,
    service text NOT NULL,
    tags jsonb NOT NULL DEFAULT '{}',
    count bigint NOT NULL,
    sum float8 NOT NULL,
    min float8 NOT NULL,
    max float8 NOT NULL,
    last float8 NOT NULL,
    bins integer[],
    counts bigint[],
    -- Identity is the pair, as for events.
    PRIMARY KEY (timestamp, id),
    CONSTRAINT analytics_metrics_timestamp_range
        CHECK (timestamp >= '2000-01-01 00:00:00+00' AND timestamp < '2100-01-01 00:00:00+00'),
    CONSTRAINT analytics_metrics_metric_type CHECK (metric_type IN ('counter', 'gauge', 'histogram', 'timer')),
    CONSTRAINT analytics_metrics_name CHECK (char_length(name) BETWEEN 1 AND 255),
    CONSTRAINT analytics_metrics_tags CHECK (jsonb_typeof(tags) = 'object'),
    -- Beyond, sums of float8 overflow, which would fail every question. NaN is greater than any number.
    CONSTRAINT analytics_metrics_numbers CHECK (
        sum BETWEEN -1e300 AND 1e300 AND min BETWEEN -1e300 AND max AND max <= 1e300 AND last BETWEEN min AND max
        AND value BETWEEN -1e300 AND 1e300
    ),
    CONSTRAINT analytics_metrics_histogram CHECK (
        count > 0
        AND coalesce(array_ndims(bins), 1) = 1 AND coalesce(array_ndims(counts), 1) = 1
        AND coalesce(cardinality(bins), 0) = coalesce(cardinality(counts), 0)
        AND coalesce(cardinality(bins), 0) <= 40000
        AND 40000 > ALL (bins) AND -40000 < ALL (bins) AND 0 < ALL (counts) AND count >= ALL (counts)
    )
);

-- timescaledb

SELECT create_hypertable(
    'analytics_metrics', by_range('timestamp', INTERVAL '1 day'), create_default_indexes => false
);

-- both

COMMENT ON TABLE analytics_metrics IS 'Metrics: one row per series and interval; rows of a series are added up.';

CREATE INDEX analytics_metrics_name_timestamp_idx ON analytics_metrics (name, timestamp);

-- The hours that a committed statement changed, as analytics_changes has those of the events. Written in the same
-- transaction as the rows. No key, because writers of one hour would wait for each other.
CREATE TABLE analytics_metric_changes (hour timestamptz NOT NULL);

-- SECURITY DEFINER: a writer needs no right but to insert metrics.
CREATE FUNCTION analytics_note_metric_changes() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path FROM CURRENT
    AS $$
BEGIN
    INSERT INTO analytics_metric_changes (hour) SELECT DISTINCT analytics_bucket('1 hour', timestamp) FROM changed;
    IF TG_OP = 'UPDATE' THEN
        INSERT INTO analytics_metric_changes (hour)
        SELECT DISTINCT analytics_bucket('1 hour', timestamp) FROM replaced;
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER analytics_note_metric_inserts AFTER INSERT ON analytics_metrics
    REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION analytics_note_metric_changes();
CREATE TRIGGER analytics_note_metric_updates AFTER UPDATE ON analytics_metrics
    REFERENCING NEW TABLE AS changed OLD TABLE AS replaced
    FOR EACH STATEMENT EXECUTE FUNCTION analytics_note_metric_changes();
CREATE TRIGGER analytics_note_metric_deletes AFTER DELETE ON analytics_metrics
    REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION analytics_note_metric_changes();

-- Who may insert or read events today may do so with metrics; later roles get the right from analytics-migrate roles.
DO $$
DECLARE
    granted record;
BEGIN
    FOR granted IN
        SELECT
            CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS name,
            a.privilege_type AS privilege
        FROM pg_class AS c, aclexplode(c.relacl) AS a
        WHERE c.oid = 'analytics_events'::regclass
            AND a.privilege_type IN ('INSERT', 'SELECT') AND a.grantee <> c.relowner
    LOOP
        EXECUTE format('GRANT %s ON analytics_metrics TO %s', granted.privilege, granted.name);
        IF granted.privilege = 'INSERT' THEN
            EXECUTE format('GRANT SELECT (timestamp, id) ON analytics_metrics TO %s', granted.name);
        END IF;
    END LOOP;
END
$$;
