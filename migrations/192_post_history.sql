-- Materialise the events that were there before the aggregates
-- for: timescaledb
-- transaction: no
-- Before there is a retention policy, so that none of them is dropped uncounted.
CALL analytics_refresh_pending(all_history => true)
