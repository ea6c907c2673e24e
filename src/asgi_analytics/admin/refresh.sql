-- What a refresh does besides computing the aggregates.

-- upkeep --
-- Do what the workers do every hour: make partitions on plain PostgreSQL, fill metrics.
SELECT analytics_upkeep();

-- has_drop_old --
-- Tell whether rows are kept by category: the schema may be that of an earlier release.
SELECT to_regprocedure('analytics_drop_old()') IS NOT NULL;

-- drop_old --
-- Do one step of dropping raw rows whose time is over; true if there may be more.
SELECT analytics_drop_old();
