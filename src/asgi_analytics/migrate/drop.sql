-- What an installation is made of, to take it away.

-- objects --
-- List the tables, views, functions and types of the schema $1 that have one of the names $2, each with the statement
-- that drops it, unless it went with another; partitions are left out, which do.
WITH ours AS (
    SELECT n.name FROM unnest($2::text[]) AS n (name)
    UNION ALL
    SELECT n.name || s.suffix
    FROM unnest($2::text[]) AS n (name), unnest(ARRAY['_filled', '_live', '_default']) AS s (suffix)
)
SELECT 'table' AS kind, c.relname AS name, format('DROP TABLE IF EXISTS %I.%I', n.nspname, c.relname) AS statement
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relname IN (SELECT o.name FROM ours AS o)
UNION ALL
SELECT
    'view', c.relname,
    format(
        CASE
            WHEN c.relname = ANY ($3::text[]) THEN 'DROP MATERIALIZED VIEW IF EXISTS %I.%I'
            ELSE 'DROP VIEW IF EXISTS %I.%I'
        END,
        n.nspname, c.relname
    )
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relkind = 'v' AND c.relname IN (SELECT o.name FROM ours AS o)
UNION ALL
SELECT 'function', p.proname, 'DROP ROUTINE IF EXISTS ' || p.oid::regprocedure
FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
WHERE n.nspname = $1 AND p.proname IN (SELECT o.name FROM ours AS o)
UNION ALL
SELECT 'type', t.typname, format('DROP TYPE IF EXISTS %I.%I', n.nspname, t.typname)
FROM pg_catalog.pg_type AS t
JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
LEFT JOIN pg_catalog.pg_class AS c ON c.oid = t.typrelid
WHERE n.nspname = $1 AND (t.typtype IN ('e', 'd') OR (t.typtype = 'c' AND c.relkind = 'c'))
    AND t.typname IN (SELECT o.name FROM ours AS o)
ORDER BY 1 DESC, 2;

-- continuous_aggregates --
-- List the continuous aggregates of the schema $1.
SELECT view_name FROM timescaledb_information.continuous_aggregates WHERE view_schema = $1;

-- delete_jobs --
-- Delete the background jobs that call procedures of the schema $1.
SELECT delete_job(j.job_id) FROM timescaledb_information.jobs AS j
WHERE j.proc_schema = $1 AND j.proc_name = ANY ($2::text[]);

-- sqlite_objects --
-- List the tables, views and triggers of an SQLite database; indexes go with their tables.
SELECT type, name FROM sqlite_master
WHERE type IN ('table', 'view', 'trigger') AND name NOT LIKE 'sqlite\_%' ESCAPE '\'
ORDER BY CASE type WHEN 'trigger' THEN 0 WHEN 'view' THEN 1 ELSE 2 END, name;
