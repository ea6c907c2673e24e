-- Materialise the events that were there before the aggregates
-- for: timescaledb
-- transaction: no
-- Before there is a retention policy, so that all of them are counted, however old.
CALL analytics_refresh_pending()
