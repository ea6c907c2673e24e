-- What brings the aggregates up to date. The functions are those of the migrations, the same on both flavours.

-- collect --
-- Prepare a refresh: sort in what has changed, note the days that must be left alone.
SELECT analytics_collect();

-- pending --
-- Find the ranges that are behind the events, from $1 up to $2; null is no limit.
SELECT view_name, window_start, window_end FROM analytics_pending($1, $2);

-- fill --
-- Compute the view $1 again, from $2 up to $3.
CALL analytics_fill($1, $2, $3);

-- fill_script --
-- Compute all that is pending, in psql: a CALL for each range, executed by \gexec.
SELECT format('CALL analytics_fill(%L, %L, %L)', view_name, window_start, window_end) FROM analytics_pending();
