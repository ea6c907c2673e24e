-- Let TimescaleDB refresh the aggregates, turn chunks into columns, and drop old events
-- for: timescaledb

-- Every hour the last 3 days. The bucket that is not complete, and the hour after it for stragglers, are computed in
-- real time. Raw events must be kept for longer than these 3 days.
SELECT add_continuous_aggregate_policy(
    format('%I', c.view_name)::regclass,
    start_offset => INTERVAL '3 days',
    end_offset => INTERVAL '1 hour',
    schedule_interval => INTERVAL '1 hour'
)
FROM timescaledb_information.continuous_aggregates AS c
WHERE c.hypertable_schema = current_schema() AND c.hypertable_name = 'analytics_events'
ORDER BY c.view_name;

-- Four times a day what came late, up to where the hourly policies begin. Not by a policy of TimescaleDB, which has a
-- fixed range: it would empty the aggregate of a day whose chunk somebody dropped by hand.
DO $do$
BEGIN
    EXECUTE format(
        'CREATE PROCEDURE analytics_refresh_late(job_id integer, config jsonb) LANGUAGE plpgsql AS %L',
        format(
            $body$
BEGIN
    CALL %I.analytics_refresh_pending(until => now() - INTERVAL '3 days');
END
            $body$,
            current_schema()
        )
    );
END
$do$;
SELECT add_job(
    'analytics_refresh_late', INTERVAL '6 hours', initial_start => now() + INTERVAL '25 minutes', fixed_schedule => false
);

CALL add_columnstore_policy('analytics_events', after => INTERVAL '7 days');
SELECT add_retention_policy('analytics_events', drop_after => INTERVAL '90 days');
