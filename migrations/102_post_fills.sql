-- Make what notes which buckets of the filled tables are behind the events
-- for: postgresql

-- One row for each filled table: `<view_name>_filled`, computed by `<view_name>_live(since, until)` in buckets of `step`
-- and read up to `filled_until`; the view computes what is younger from the events.
CREATE TABLE analytics_fills (
    view_name text PRIMARY KEY,
    bucket_column text NOT NULL,
    step interval NOT NULL,
    filled_until timestamptz NOT NULL DEFAULT '-infinity'
);

-- The hours that a committed statement changed. Written in the same transaction as its events, whoever sees one sees
-- the other: an event that is committed after its bucket was filled is noticed, however late. No key, because writers
-- of one hour would wait for each other; analytics_collect() empties it.
CREATE TABLE analytics_changes (hour timestamptz NOT NULL);

-- The buckets to compute again, each once.
CREATE TABLE analytics_stale (
    view_name text NOT NULL,
    bucket timestamptz NOT NULL,
    PRIMARY KEY (view_name, bucket)
);

-- What runs with the owner's rights, for whoever may insert events, must not take a temporary table for one of ours:
-- pg_temp, else the first place where tables are looked for, is put last.
SELECT set_config('search_path', current_setting('search_path') || ', pg_temp', true);

-- SECURITY DEFINER: a writer needs no right but to insert events.
CREATE FUNCTION analytics_note_changes() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path FROM CURRENT
    AS $$
BEGIN
    INSERT INTO analytics_changes (hour)
    SELECT DISTINCT date_bin('1 hour', timestamp, '2000-01-01 00:00:00+00') FROM changed;
    IF TG_OP = 'UPDATE' THEN
        INSERT INTO analytics_changes (hour)
        SELECT DISTINCT date_bin('1 hour', timestamp, '2000-01-01 00:00:00+00') FROM replaced;
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

-- What is there already has to be filled as well. The triggers hold a lock that lets no writer in until this commits.
INSERT INTO analytics_changes (hour)
SELECT DISTINCT date_bin('1 hour', timestamp, '2000-01-01 00:00:00+00') FROM analytics_events;
