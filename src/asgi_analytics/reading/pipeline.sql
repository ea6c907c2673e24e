-- How the pipeline is: what arrived last, what was refused, what is behind, and what the database holds.

-- health --
-- Say when the first and the last event happened, and how many in the last minute. $1 is a minute ago, $2 now, $3 the
-- service.
SELECT
    (
        SELECT e.timestamp FROM analytics_events AS e WHERE $3::text IS NULL OR e.service = $3
        ORDER BY e.timestamp DESC LIMIT 1
    ) AS newest_event_at,
    (
        SELECT count(*) FROM analytics_events AS e
        WHERE e.timestamp >= $1 AND e.timestamp <= $2 AND ($3::text IS NULL OR e.service = $3)
    ) AS events_last_minute,
    (
        SELECT e.timestamp FROM analytics_events AS e WHERE $3::text IS NULL OR e.service = $3
        ORDER BY e.timestamp LIMIT 1
    ) AS oldest_event_at;

-- dead_letters --
-- Count dead letters by reason. $1 is the service.
SELECT d.reason, count(*) AS count, max(d.received_at) AS last_received_at
FROM analytics_dead_letters AS d
WHERE $1::text IS NULL OR d.service = $1
GROUP BY d.reason
ORDER BY count DESC, d.reason
LIMIT 10001;

-- pending --
-- Say which views are behind the events, and since when.
SELECT p.view_name, min(p.window_start) AS since
FROM analytics_pending() AS p
GROUP BY p.view_name
ORDER BY since, p.view_name;

-- due --
-- Say of which categories rows are still there although their time is over.
SELECT d.category, d.keep, d.days, d.events, d.due_since FROM analytics_due() AS d;

-- exports --
-- Say how far behind each export is, and what became of its newest batch, whose token begins with the export's name.
SELECT
    l.name, l.events_behind, l.seconds_behind,
    (SELECT count(*) FROM analytics_export_dead_letters AS d WHERE d.name = l.name) AS dead_letters,
    b.created_at AS last_batch_at,
    CASE WHEN b.sync_status <> 'completed' THEN b.error_details END AS last_error
FROM analytics_export_lag AS l
LEFT JOIN LATERAL (
    SELECT s.created_at, s.sync_status, s.error_details
    FROM analytics_warehouse_sync_status AS s
    WHERE regexp_replace(s.sync_batch_id, '(-[^-]+){3}$', '') = l.name
    ORDER BY s.created_at DESC
    LIMIT 1
) AS b ON true
ORDER BY l.name;

-- is_filled --
-- Tell whether the aggregates are filled tables, as they are on plain PostgreSQL.
SELECT to_regclass('analytics_fills') IS NOT NULL;

-- database_plain --
-- Tell the versions of plain PostgreSQL and what the events weigh with their indexes.
SELECT
    'postgresql' AS flavour,
    split_part(current_setting('server_version'), ' ', 1) AS postgresql_version,
    NULL::text AS timescaledb_version,
    (
        SELECT sum(pg_total_relation_size(t.relid))::bigint FROM pg_partition_tree('analytics_events') AS t WHERE t.isleaf
    ) AS size_bytes,
    NULL::bigint AS compressed_size_bytes;

-- database_timescaledb --
-- Tell the versions of TimescaleDB and what the events weigh with their indexes, and what of that are columns.
SELECT
    'timescaledb' AS flavour,
    split_part(current_setting('server_version'), ' ', 1) AS postgresql_version,
    (SELECT e.extversion FROM pg_catalog.pg_extension AS e WHERE e.extname = 'timescaledb') AS timescaledb_version,
    hypertable_size('analytics_events') AS size_bytes,
    (
        SELECT sum(s.after_compression_total_bytes)::bigint FROM hypertable_columnstore_stats('analytics_events') AS s
    ) AS compressed_size_bytes;
