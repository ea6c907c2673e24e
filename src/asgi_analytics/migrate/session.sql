-- settings --
-- Return the values of the settings that $1 names, without those that this server does not know.
SELECT name, current_setting(name, true) AS value
FROM unnest($1::text[]) AS name
WHERE current_setting(name, true) IS NOT NULL;

-- set --
-- Give the settings $1 the values $2, until the end of the transaction if $3 is true, else for the session. Settings
-- that this server does not know are left out.
SELECT pg_catalog.set_config(name, value, $3)
FROM unnest($1::text[], $2::text[]) AS setting (name, value)
WHERE current_setting(name, true) IS NOT NULL;

-- current_schema --
-- Return the first schema of the search_path that exists.
SELECT current_schema();

-- schema_exists --
-- Tell whether the schema that $1 names, quoted, exists.
SELECT to_regnamespace($1) IS NOT NULL;

-- create_schema --
-- Create the schema.
CREATE SCHEMA IF NOT EXISTS {schema};
