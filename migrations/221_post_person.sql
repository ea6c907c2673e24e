-- Say where each table holds a person, as analytics_holds_person() describes it

-- both

SELECT analytics_holds_person('analytics_events', 'user', 'user_id');
SELECT analytics_holds_person('analytics_events', 'session', 'session_id');
SELECT analytics_holds_person('analytics_events', 'event', 'data', 'context');
SELECT analytics_holds_person('analytics_dead_letters', 'event', 'payload');
SELECT analytics_holds_person('analytics_user_traits', 'owner', 'user_id');

SELECT analytics_holds_person('analytics_session_parts_filled', 'user', 'user_id');
SELECT analytics_holds_person('analytics_session_parts_filled', 'session', 'key', 'visitor');
SELECT analytics_holds_person('analytics_sessions_filled', 'user', 'user_id');
SELECT analytics_holds_person('analytics_sessions_filled', 'session', 'key', 'id', 'visitor');
SELECT analytics_holds_person('analytics_sessions_filled', 'hash', 'who');

SELECT analytics_holds_person('analytics_user_days_filled', 'user', 'user_id');
SELECT analytics_holds_person('analytics_user_quarters_filled', 'user', 'user_id');
SELECT analytics_holds_person('analytics_user_types_daily_filled', 'user', 'user_id');
SELECT analytics_holds_person('analytics_consumer_days_filled', 'owner', 'user_id');
SELECT analytics_holds_person('analytics_page_visitors_daily_filled', 'hash', 'who');
SELECT analytics_holds_person('analytics_page_visitors_daily_filled', 'text', 'page');
SELECT analytics_holds_person('analytics_errors_hourly_filled', 'text', 'sample_error_message');

-- Numbers, names that the application's code gives, and the books of the upkeep. Midnight visitors are keyed hashes that
-- nothing ties to a user, and are forgotten after 48 hours.
SELECT analytics_holds_person(c.oid::regclass, 'none')
FROM unnest(ARRAY[
    'analytics_api_latency_hourly_filled',
    'analytics_auth_events_daily_filled',
    'analytics_cocoon_activity_daily_filled',
    'analytics_endpoint_days_filled',
    'analytics_endpoint_hours_filled',
    'analytics_integration_health_daily_filled',
    'analytics_latency_histogram_filled',
    'analytics_query_days_filled',
    'analytics_service_type_days_filled',
    'analytics_statement_days_filled',
    'analytics_task_stats_daily_filled',
    'analytics_things_daily_filled',
    'analytics_type_days_filled',
    'analytics_type_quarters_filled',
    'analytics_metric_hours_filled',
    'analytics_metric_days_filled',
    'analytics_metrics',
    'analytics_metric_changes',
    'analytics_metric_stale_days',
    'analytics_metric_state',
    'analytics_metrics_realtime',
    'analytics_dashboard_values',
    'analytics_funnels',
    'analytics_gone_days',
    'analytics_migrations',
    'analytics_visitor_keys',
    'analytics_midnight_visitors',
    'analytics_subject_requests',
    'analytics_subject_key',
    -- On TimescaleDB only.
    'analytics_session_fills',
    'analytics_session_windows',
    -- On plain PostgreSQL only.
    'analytics_fills',
    'analytics_changes',
    'analytics_stale'
]) AS t (name)
JOIN pg_class AS c ON c.oid = to_regclass(t.name);
