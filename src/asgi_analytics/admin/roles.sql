-- The writer may insert and nothing else. What it was granted before goes first: afterwards it has these rights only.
REVOKE ALL ON analytics_events, analytics_dead_letters, analytics_migrations FROM {writer};
GRANT USAGE ON SCHEMA {schema} TO {writer};
GRANT INSERT ON analytics_events, analytics_dead_letters TO {writer};
-- ON CONFLICT reads the key, to know what is there already; nothing else of a row.
GRANT SELECT (timestamp, id) ON analytics_events TO {writer};
GRANT SELECT (id) ON analytics_dead_letters TO {writer};
-- The workers' hourly call, which runs with the rights of the owner. On TimescaleDB it does nothing.
GRANT EXECUTE ON FUNCTION analytics_upkeep() TO {writer};
-- The reader may read the events, the dead letters, the ledger and every view.
REVOKE ALL ON analytics_events, analytics_dead_letters, analytics_migrations FROM {reader};
GRANT USAGE ON SCHEMA {schema} TO {reader};
GRANT SELECT ON analytics_events, analytics_dead_letters, analytics_migrations TO {reader};
GRANT SELECT ON analytics_daily_active_users, analytics_task_stats_daily, analytics_api_latency_hourly,
    analytics_integration_health_daily, analytics_auth_events_daily, analytics_cocoon_activity_daily,
    analytics_errors_hourly TO {reader};
-- What the first of the views and the percentiles are made of.
GRANT SELECT ON analytics_user_days, analytics_latency_histogram TO {reader};
GRANT EXECUTE ON FUNCTION analytics_latency_quantile(float8, timestamptz, timestamptz, text, text, text) TO {reader};
