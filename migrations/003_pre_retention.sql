-- Cut time into buckets, and tell how long raw events are kept

-- both

-- The beginning of the bucket that a moment lies in, in UTC: analytics_bucket('1 day', now()) is the last midnight.
-- No SET clause, so that the planner can inline it.
CREATE FUNCTION analytics_bucket(step interval, moment timestamptz) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN date_bin(step, moment, '2000-01-01 00:00:00+00');

-- timescaledb

-- Null, for ever, without a retention policy.
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

-- postgresql

-- Null is for ever: until the aggregates hold the history, no event is dropped. The last step sets the retention.
CREATE FUNCTION analytics_raw_retention() RETURNS interval
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN NULL::interval;
