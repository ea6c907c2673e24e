-- What a refresh does besides computing the aggregates.

-- upkeep --
-- Make and drop partitions on plain PostgreSQL. On TimescaleDB it does nothing.
SELECT analytics_upkeep();
