-- The roles, and what they may do. Names in braces are quoted identifiers.

-- owner --
-- Find who is connected, who owns the tables, and what the former may do.
SELECT current_user AS me, pg_catalog.pg_get_userbyid(c.relowner) AS owner,
       pg_catalog.pg_has_role(c.relowner, 'USAGE') AS acts_for_it,
       r.rolcreaterole OR r.rolsuper AS may_create
FROM pg_catalog.pg_class AS c, pg_catalog.pg_roles AS r
WHERE c.oid = 'analytics_events'::regclass AND r.rolname = current_user;

-- existing --
-- Find the roles of $1 that exist. Nothing can be taken away from a superuser, nor from who may act for the owner.
SELECT r.rolname AS name,
       r.rolsuper OR pg_catalog.pg_has_role(r.oid, c.relowner, 'MEMBER') AS is_owner
FROM pg_catalog.pg_roles AS r, pg_catalog.pg_class AS c
WHERE r.rolname = ANY ($1) AND c.oid = 'analytics_events'::regclass;

-- excess --
-- Find which of the privileges $2 the role $1 has although they were not granted here: from PUBLIC, or from a role that
-- it is a member of.
SELECT t.name AS relation, string_agg(p.privilege, ', ' ORDER BY p.privilege) AS rights
FROM unnest($2::text[]) AS p (privilege), unnest(ARRAY['analytics_events', 'analytics_dead_letters']) AS t (name)
WHERE pg_catalog.has_table_privilege($1::name, t.name::regclass, p.privilege)
GROUP BY t.name ORDER BY t.name;

-- has_usage --
-- Tell whether the role $1 may use the schema $2.
SELECT pg_catalog.has_schema_privilege($1::name, $2::text, 'USAGE');

-- views --
-- List every view of the analytics, quoted: also those of aggregates that came later, and what is computed of them.
SELECT pg_catalog.string_agg(pg_catalog.quote_ident(v.relname), ', ' ORDER BY v.relname)
FROM pg_catalog.pg_class AS v JOIN pg_catalog.pg_class AS e USING (relnamespace, relowner)
WHERE e.oid = 'analytics_events'::regclass AND v.relname LIKE 'analytics\_%'
    AND (v.relkind = 'v' OR v.relkind = 'r' AND v.relname LIKE '%\_filled');

-- create_role --
-- Make a role.
CREATE ROLE {role} NOLOGIN;

-- rights --
-- Give the roles their rights. What they were granted before goes first: afterwards they have these rights only.
REVOKE ALL ON
    analytics_events, analytics_dead_letters, analytics_user_traits, analytics_migrations,
    analytics_visitor_keys, analytics_midnight_visitors, analytics_funnels, analytics_metrics,
    analytics_metrics_realtime, analytics_retention, analytics_event_types, analytics_event_schemas, analytics_exports,
    analytics_export_lanes, analytics_export_refusals, analytics_export_erasures, analytics_export_origin,
    analytics_warehouse_sync_status
FROM {writer}, {reader};
GRANT USAGE ON SCHEMA {schema} TO {writer}, {reader};

-- The writer may insert and nothing else.
GRANT INSERT ON analytics_events, analytics_metrics, analytics_dead_letters TO {writer};
-- ON CONFLICT reads the key, to know what is stored already; nothing else of a row.
GRANT SELECT (timestamp, id) ON analytics_events, analytics_metrics TO {writer};
GRANT SELECT (id) ON analytics_dead_letters TO {writer};
-- What runs with the rights of the owner: the workers' hourly calls, the categories of types and the schemas that events
-- are checked by, the keys that visitors are counted by, and the numbers of dashboards.
GRANT EXECUTE ON FUNCTION
    analytics_upkeep(),
    analytics_drop_old(),
    analytics_note_event_types(text[], text[]),
    analytics_kept_types(),
    analytics_schemas_fingerprint(),
    analytics_active_schemas(),
    analytics_visitor_key(date),
    analytics_seen_visitors(text[], timestamptz[]),
    analytics_note_visitors(text[], timestamptz[]),
    analytics_set_dashboard_metric(text, text, float8),
    analytics_update_realtime_metric(text, jsonb, text, interval)
TO {writer};

-- The reader may read the events, the metrics, the dead letters, the traits of users, the ledger and every view.
GRANT SELECT ON
    analytics_events, analytics_metrics, analytics_metrics_realtime, analytics_dead_letters, analytics_user_traits,
    analytics_migrations
TO {reader};
GRANT SELECT ON {views} TO {reader};
-- Funnels that are kept by name are the one thing that it may change.
GRANT SELECT, INSERT, DELETE ON analytics_funnels TO {reader};
-- How long rows are kept, and what the types of events are.
GRANT SELECT ON analytics_retention, analytics_event_types, analytics_event_schemas TO {reader};
-- Which days of raw rows are gone, so that it does not take what is left of one for all of it.
GRANT SELECT ON analytics_gone_days, analytics_metric_state TO {reader};
GRANT EXECUTE ON FUNCTION analytics_latency_quantile(float8, timestamptz, timestamptz, text, text, text) TO {reader};
-- How far behind the exports are, and what became of their batches.
GRANT SELECT ON analytics_warehouse_sync_status TO {reader};
GRANT EXECUTE ON FUNCTION analytics_export_behind(text) TO {reader};

-- exporter_rights --
-- Give the role that runs exports its rights: it reads what is copied, and keeps where it is.
REVOKE ALL ON
    analytics_events, analytics_dead_letters, analytics_user_traits, analytics_migrations,
    analytics_visitor_keys, analytics_midnight_visitors, analytics_funnels, analytics_metrics,
    analytics_metrics_realtime, analytics_event_types, analytics_exports, analytics_export_lanes,
    analytics_export_refusals, analytics_export_erasures, analytics_export_origin, analytics_warehouse_sync_status
FROM {exporter};
GRANT USAGE ON SCHEMA {schema} TO {exporter};
GRANT SELECT ON
    analytics_events, analytics_event_types, analytics_user_traits, analytics_export_origin, analytics_export_lag
TO {exporter};
GRANT SELECT, UPDATE ON analytics_exports TO {exporter};
GRANT SELECT, INSERT, UPDATE ON analytics_export_lanes TO {exporter};
GRANT SELECT, INSERT, UPDATE, DELETE ON
    analytics_export_refusals, analytics_export_erasures, analytics_warehouse_sync_status
TO {exporter};
GRANT EXECUTE ON FUNCTION analytics_export_behind(text), analytics_erase_from_exports(uuid[]) TO {exporter};
