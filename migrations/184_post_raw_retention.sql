-- Tell how long raw events are kept, by the retention policy
-- for: timescaledb
-- Null, for ever, without a policy.
CREATE FUNCTION analytics_raw_retention() RETURNS interval
    LANGUAGE sql STABLE
    SET search_path FROM CURRENT
    AS $$
    SELECT min((j.config ->> 'drop_after')::interval)
    FROM timescaledb_information.jobs AS j
    WHERE j.proc_name = 'policy_retention'
        AND j.hypertable_schema = current_schema()
        AND j.hypertable_name = 'analytics_events'
    $$;
