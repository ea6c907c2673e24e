-- Note which hours of events change, so that the buckets of the filled tables are computed again

-- postgresql

-- One row per filled table: `<view_name>_filled`, computed by `<view_name>_live(since, until)` in buckets of `step` and
-- read up to `filled_until`; the view computes what is younger from the events.
CREATE TABLE analytics_fills (
    view_name text PRIMARY KEY,
    bucket_column text NOT NULL,
    step interval NOT NULL,
    filled_until timestamptz NOT NULL DEFAULT '-infinity'
);

-- The hours that a committed statement changed. Written in the same transaction as its events, so that both become
-- visible together: an event that is committed after its bucket was filled is noticed, however late. No key, because
-- writers of one hour would wait for each other; analytics_collect() empties it.
CREATE TABLE analytics_changes (hour timestamptz NOT NULL);

-- The buckets to compute again, each once: the changes that analytics_collect() has sorted in.
CREATE TABLE analytics_stale (
    view_name text NOT NULL,
    bucket timestamptz NOT NULL,
    PRIMARY KEY (view_name, bucket)
);

-- SECURITY DEFINER: a writer needs no right but to insert events.
CREATE FUNCTION analytics_note_changes() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path FROM CURRENT
    AS $$
BEGIN
    INSERT INTO analytics_changes (hour) SELECT DISTINCT analytics_bucket('1 hour', timestamp) FROM changed;
    IF TG_OP = 'UPDATE' THEN
        INSERT INTO analytics_changes (hour) SELECT DISTINCT analytics_bucket('1 hour', timestamp) FROM replaced;
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER analytics_note_inserts AFTER INSERT ON analytics_events
    REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION analytics_note_changes();
CREATE TRIGGER analytics_note_updates AFTER UPDATE ON analytics_events
    REFERENCING NEW TABLE AS changed OLD TABLE AS replaced
    FOR EACH STATEMENT EXECUTE FUNCTION analytics_note_changes();
CREATE TRIGGER analytics_note_deletes AFTER DELETE ON analytics_events
    REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION analytics_note_changes();

-- Every bucket to compute again, sorted in or not yet.
CREATE FUNCTION analytics_behind() RETURNS TABLE (view_name text, bucket timestamptz)
    LANGUAGE sql STABLE
    SET search_path FROM CURRENT
    AS $$
    SELECT s.view_name, s.bucket FROM analytics_stale AS s
    UNION
    SELECT f.view_name, analytics_bucket(f.step, c.hour)
    FROM (SELECT DISTINCT hour FROM analytics_changes) AS c
    CROSS JOIN analytics_fills AS f
    $$;
