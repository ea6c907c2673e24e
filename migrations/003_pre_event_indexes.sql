-- Index events by type, by user and by service, each with the time
CREATE INDEX analytics_events_event_type_timestamp_idx ON analytics_events (event_type, timestamp);
CREATE INDEX analytics_events_user_id_timestamp_idx ON analytics_events (user_id, timestamp) WHERE user_id IS NOT NULL;
CREATE INDEX analytics_events_service_timestamp_idx ON analytics_events (service, timestamp);
