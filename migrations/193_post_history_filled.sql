-- Fill in the events that were there before the aggregates
-- for: postgresql
-- transaction: no
-- Before there is anything that drops partitions, so that none of them is dropped uncounted.
CALL analytics_fill_pending(all_history => true)
