-- Say where the tables of the retention, the schemas and the exports hold a person

-- both

SELECT analytics_holds_person(t.name::regclass, 'none')
FROM unnest(ARRAY[
    'analytics_retention',
    'analytics_dropped',
    'analytics_event_types',
    'analytics_event_schemas',
    'analytics_drop_state',
    'analytics_refreshes',
    'analytics_exports',
    'analytics_export_lanes',
    'analytics_export_origin'
]) AS t (name)
WHERE to_regclass(t.name) IS NOT NULL;

-- What a warehouse says of a row that it refuses may quote the row.
SELECT analytics_holds_person('analytics_export_refusals', 'text', 'reason');
SELECT analytics_holds_person('analytics_warehouse_sync_status', 'text', 'error_details');
-- Until the warehouses have erased the person too.
SELECT analytics_holds_person('analytics_export_erasures', 'owner', 'user_id');
