-- Note with each event the transaction that stored it, which analytics-export tells what is new by

-- Times and ids do not tell: a transaction may commit late, and a row may be back-dated. Two snapshots do: what the later
-- one sees and the earlier one did not is what was committed in between. Rows of before have null.

-- both

-- Both statements need all of the table for a moment, and every writer waits behind who waits for that.
DO $do$
DECLARE
    before constant text := current_setting('lock_timeout');
BEGIN
    PERFORM set_config('lock_timeout', '500ms', true);
    FOR attempt IN 1 .. 120 LOOP
        BEGIN
            LOCK TABLE analytics_events IN ACCESS EXCLUSIVE MODE;
            EXIT;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            IF attempt = 120 THEN
                RAISE;
            END IF;
            PERFORM pg_sleep(0.1 + random() * 0.4);
        END;
    END LOOP;
    PERFORM set_config('lock_timeout', before, true);
END
$do$;

-- Two statements: a column that comes with a volatile default would rewrite all rows, and hypertables with a columnstore
-- refuse it. The sum lets a later cluster go on above the numbers of this one: analytics_export_rebase().
ALTER TABLE analytics_events ADD COLUMN export_xid bigint;
ALTER TABLE analytics_events ALTER COLUMN export_xid SET DEFAULT (pg_current_xact_id()::text::bigint + 0);

COMMENT ON COLUMN analytics_events.export_xid IS 'The transaction that stored the row; null for rows of earlier releases.';

-- Which cluster the numbers are of, and what is added to its own: another one begins to count anew.
CREATE TABLE analytics_export_origin (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    system_identifier bigint NOT NULL,
    shift bigint NOT NULL DEFAULT 0
);
INSERT INTO analytics_export_origin (system_identifier) SELECT c.system_identifier FROM pg_control_system() AS c;

-- timescaledb

-- With the least and the greatest number of each batch, a look for new rows leaves the batches of old ones alone. For
-- chunks that become columns from now on.
ALTER TABLE analytics_events SET (timescaledb.sparse_index = 'bloom(user_id),minmax(export_xid)');
