-- Drop raw events after 90 days, and on TimescaleDB turn them into columns after 7
-- history: filled

-- Only now that the aggregates hold the history: none of these events is dropped uncounted, however old.

-- timescaledb

CALL add_columnstore_policy('analytics_events', after => INTERVAL '7 days');
SELECT add_retention_policy('analytics_events', drop_after => INTERVAL '90 days');

-- postgresql

-- How long raw events are kept. Replace it to keep them longer or shorter; null keeps them for ever.
CREATE OR REPLACE FUNCTION analytics_raw_retention() RETURNS interval
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN INTERVAL '90 days';
