-- Turn the largest aggregates into columns when nothing is refreshed there any more
-- for: timescaledb
-- After 100 days, when the raw events are gone: until then a refresh would have to take the columns apart again.
-- Without segments, users stay together in their order; older releases of TimescaleDB would make segments of them.
ALTER MATERIALIZED VIEW analytics_user_days SET (
    timescaledb.enable_columnstore = true,
    timescaledb.segmentby = '',
    timescaledb.orderby = 'day, user_id'
);
ALTER MATERIALIZED VIEW analytics_latency_histogram SET (
    timescaledb.enable_columnstore = true,
    timescaledb.segmentby = 'service, endpoint, method',
    timescaledb.orderby = 'hour, bin'
);
CALL add_columnstore_policy('analytics_user_days', after => INTERVAL '100 days');
CALL add_columnstore_policy('analytics_latency_histogram', after => INTERVAL '100 days');
