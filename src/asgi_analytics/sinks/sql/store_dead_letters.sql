-- Keep what the table refused, as it was sent; the same event, sent again, is kept once.
INSERT INTO {schema}analytics_dead_letters (id, event_type, service, reason, sqlstate, payload)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
ON CONFLICT (id) DO NOTHING
