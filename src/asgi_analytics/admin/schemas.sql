-- The registry of the schemas of events.

-- lock --
-- Let nobody else change the registry until the end of the transaction.
LOCK TABLE analytics_event_schemas IN SHARE ROW EXCLUSIVE MODE;

-- newest --
-- Return the newest version of each of the types $1.
SELECT DISTINCT ON (s.event_type)
    s.event_type, s.version, s.event_category, s.schema_definition::text, s.required_fields, s.description, s.is_active
FROM analytics_event_schemas AS s
WHERE s.event_type = ANY ($1::text[])
ORDER BY s.event_type, s.version DESC;

-- days --
-- Return for how many days rows are kept, by category.
SELECT r.category, r.keep FROM analytics_retention AS r;

-- add --
-- Add the version $2 of the type $1, which is the active one from now on.
WITH older AS (
    UPDATE analytics_event_schemas AS s SET is_active = false, updated_at = now()
    WHERE s.event_type = $1 AND s.is_active
    RETURNING s.version
)
INSERT INTO analytics_event_schemas (
    event_type, version, event_category, schema_definition, required_fields, example_payload, description,
    retention_days
)
SELECT $1, $2, $3, $4::jsonb, $5::text[], $6::jsonb, $7, $8
FROM (SELECT count(*) FROM older) AS done;

-- change --
-- Change of the version $2 of the type $1 what is no part of its schema.
UPDATE analytics_event_schemas AS s
SET event_category = $3, schema_definition = $4::jsonb, required_fields = $5::text[], example_payload = $6::jsonb,
    description = $7, retention_days = $8, is_active = true, updated_at = now()
WHERE s.event_type = $1 AND s.version = $2;

-- categories --
-- Let the types $1 be of the categories $2.
INSERT INTO analytics_event_types AS t (event_type, category)
SELECT * FROM unnest($1::text[], $2::text[])
ON CONFLICT (event_type) DO UPDATE SET category = excluded.category WHERE t.category <> excluded.category;

-- list --
-- List all versions of all types.
SELECT
    s.event_type, s.version, s.event_category, s.required_fields, s.retention_days, s.is_active, s.updated_at,
    s.description
FROM analytics_event_schemas AS s
ORDER BY s.event_type, s.version;

-- active --
-- Return the schemas that events are checked by.
SELECT s.event_type, s.schema_definition, s.needs_user FROM (
    SELECT a.event_type, a.schema_definition::text, a.needs_user FROM analytics_active_schemas() AS a
) AS s;

-- newest_on_sqlite --
-- Return the newest version of each type of a JSON array.
SELECT
    s.event_type, max(s.version), s.event_category, s.schema_definition, s.required_fields, s.description, s.is_active
FROM analytics_event_schemas AS s
WHERE s.event_type IN (SELECT j.value FROM json_each(?) AS j)
GROUP BY s.event_type;

-- days_on_sqlite --
-- Return for how many days rows are kept, by category.
SELECT r.category, coalesce(min(r.keep, 36500), 36500) FROM analytics_retention AS r;

-- retire_on_sqlite --
-- Let no version of a type be active.
UPDATE analytics_event_schemas SET is_active = 0, updated_at = :now WHERE event_type = :event_type AND is_active;

-- add_on_sqlite --
-- Add a version of a type, which is the active one from now on.
INSERT INTO analytics_event_schemas (
    event_type, version, event_category, schema_definition, required_fields, example_payload, description,
    retention_days, updated_at
)
VALUES (:event_type, :version, :category, :definition, :required, :example, :description, :days, :now);

-- change_on_sqlite --
-- Change of a version of a type what is no part of its schema.
UPDATE analytics_event_schemas
SET event_category = :category, schema_definition = :definition, required_fields = :required,
    example_payload = :example, description = :description, retention_days = :days, is_active = 1, updated_at = :now
WHERE event_type = :event_type AND version = :version;

-- category_on_sqlite --
-- Let a type be of a category.
INSERT INTO analytics_event_types (event_type, category) VALUES (:event_type, :category)
ON CONFLICT (event_type) DO UPDATE SET category = excluded.category WHERE category <> excluded.category;

-- active_on_sqlite --
-- Return the schemas that events are checked by.
SELECT
    s.event_type, s.schema_definition,
    EXISTS (SELECT 1 FROM json_each(s.required_fields) AS j WHERE j.value = 'user_id')
FROM analytics_event_schemas AS s
WHERE s.is_active;
